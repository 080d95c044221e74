//! Machines that are reached by SSH: by whose configuration, where to, and by which key.
//!
//! The daemon calls `ssh` as root. So root's files count, and the system's; a user's own do not.

use std::net::ToSocketAddrs as _;

use machinist_builder::machines_file::{Listed, Machine};
use machinist_builder::nix_conf::NixConf;

use super::{is_root, listed};
use crate::finding::Finding;
use crate::host::{Host, SOON};

const ID: &str = "machines.ssh";
const MEND: &str = "reach it without SSH's names and keys: machinist builder register";

pub(crate) fn check(host: &Host, conf: &NixConf) -> Vec<Finding> {
    let machines = listed(host, conf);
    let by_ssh = machines.iter().filter(|it| it.machine.uri.is_ssh());
    let mut findings: Vec<Finding> = by_ssh.map(|machine| one(host, machine)).collect();
    if !findings.is_empty() {
        findings.extend(options(host));
    }
    findings
}

/// Options for ssh, where somebody has set them: the daemon has an environment of its own.
fn options(host: &Host) -> Option<Finding> {
    const NAME: &str = "NIX_SSHOPTS";
    if let Some(set) = host.nix.builds.environment.get(NAME) {
        let looked = format!("{NAME} of {}", host.nix.builds.name);
        return Some(Finding::fine(
            ID,
            &looked,
            format!("{set}, before Nix's own options"),
        ));
    }
    let set = host.nix.client.as_ref()?.environment.get(NAME)?;
    Some(
        Finding::warning(ID, NAME, format!("'{set}', in this user's environment"))
            .why("the daemon calls ssh, with its own environment and root's files: neither this nor ~/.ssh/config is seen there")
            .mend(MEND)
            .mend(format!("or systemctl edit nix-daemon: Environment=\"{NAME}={set}\"")),
    )
}

/// What `ssh -G` says, as far as it matters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Seen {
    host_name: String,
    port: u16,
    alias: Option<String>,
    remote_command: Option<String>,
    proxied: bool,
}

fn seen(text: &str) -> Seen {
    let mut seen = Seen::default();
    for line in text.lines() {
        let (name, value) = line.split_once(' ').unwrap_or((line, ""));
        let set = (value != "none" && !value.is_empty()).then(|| value.to_owned());
        match name {
            "hostname" => value.clone_into(&mut seen.host_name),
            "port" => seen.port = value.parse().unwrap_or(0),
            "hostkeyalias" => seen.alias = set,
            "remotecommand" => seen.remote_command = set,
            "proxyjump" | "proxycommand" => seen.proxied |= set.is_some(),
            _ => {}
        }
    }
    seen
}

/// `USER@HOST:PORT` of a URI's authority, as words for ssh.
fn words(authority: &str) -> Vec<String> {
    let authority = authority.split('/').next().unwrap_or_default();
    let after_user = authority.rfind('@').map_or(0, |at| at + 1);
    let (host, port) = match authority[after_user..].rsplit_once(':') {
        Some((host, port)) if !host.ends_with(':') && port.parse::<u16>().is_ok() => {
            (&authority[..after_user + host.len()], Some(port))
        }
        _ => (authority, None),
    };
    let mut words: Vec<String> = vec!["-G".into()];
    if let Some(port) = port {
        words.extend(["-p".into(), port.into()]);
    }
    words.extend(["--".into(), host.replace(['[', ']'], "")]);
    words
}

fn one(host: &Host, listed: &Listed) -> Finding {
    let machine = &listed.machine;
    let looked = format!(
        "ssh -G, for {} at {}",
        machine.uri.authority(),
        listed.entry.place
    );
    let said = match host.ask("ssh", words(machine.uri.authority()), SOON) {
        Ok(said) if said.success => said,
        Ok(said) => {
            return Finding::failure(ID, &looked, said.last_line())
                .why("ssh does not take the machine's address")
                .mend(MEND);
        }
        Err(error) => {
            return Finding::failure(ID, &looked, error.to_string())
                .why("Nix reaches this machine by ssh")
                .mend("install ssh");
        }
    };
    let seen = seen(&said.stdout);
    let resolves = seen.proxied
        || (seen.host_name.as_str(), seen.port)
            .to_socket_addrs()
            .is_ok();
    let mut finding = judge(machine, &seen, resolves, &looked);
    if !is_root() {
        finding.found += " (as this user; the daemon calls it as root, with root's files)";
    }
    finding
}

fn judge(machine: &Machine, seen: &Seen, resolves: bool, looked: &str) -> Finding {
    let target = format!("{}, port {}", seen.host_name, seen.port);
    if let Some(command) = &seen.remote_command {
        return Finding::failure(ID, looked, format!("RemoteCommand is '{command}'"))
            .why("ssh takes no second command, and Nix gives it one")
            .mend("take RemoteCommand out of /etc/ssh/ssh_config and root's ~/.ssh/config for this host");
    }
    if !resolves {
        return Finding::failure(ID, looked, format!("{target}: no such host name"))
            .why("the name is known to a user's configuration alone, or to a file that /etc/ssh/ssh_config does not include: no 'Include /etc/ssh/ssh_config.d/*'")
            .mend(MEND)
            .mend("or add 'Include /etc/ssh/ssh_config.d/*' at the top of /etc/ssh/ssh_config");
    }
    let here = ["localhost", "127.0.0.1", "::1"].contains(&seen.host_name.as_str())
        || (seen.host_name.as_str(), seen.port)
            .to_socket_addrs()
            .is_ok_and(|mut all| all.any(|it| it.ip().is_loopback()));
    if here && seen.port == 22 && !seen.proxied {
        return Finding::failure(ID, looked, format!("{target}: this host's own ssh server"))
            .why("a builder on this host listens on another port, which only a configuration file named; so its host key is another one, too (REMOTE HOST IDENTIFICATION HAS CHANGED)")
            .mend(MEND)
            .mend("or name the port in the machine's URI, such as ssh-ng://builder@localhost:31022");
    }
    match (&seen.alias, &machine.host_key) {
        (Some(alias), Some(_)) if *alias != seen.host_name => {
            return Finding::failure(ID, looked, format!("HostKeyAlias is '{alias}'"))
                .why("Nix names the host key by the host's name, under which ssh does not look for it then")
                .mend("take HostKeyAlias out for this host, or the key out of the last column");
        }
        (_, None) => {
            return Finding::warning(ID, looked, format!("{target}, without a host key in the last column"))
                .why("root must know the host already: nobody is asked, and the error is 'Host key verification failed'")
                .mend("write the host's key there: base64 -w0 /etc/ssh/ssh_host_ed25519_key.pub, on the machine");
        }
        _ => {}
    }
    Finding::fine(ID, looked, target)
}

/// What ssh's own words mean, and what helps: for errors of connections.
pub(super) fn explain(said: &str) -> Option<(&'static str, &'static str)> {
    let causes = [
        (
            "UNPROTECTED PRIVATE KEY FILE",
            "ssh refuses a private key that others can read",
            "chmod 600 the key, which must be root's",
        ),
        (
            "REMOTE HOST IDENTIFICATION HAS CHANGED",
            "another machine answered than the one whose key is pinned: on this host's port 22 that is its own ssh server",
            "name the port in the URI, and pin the key that the machine has; or use machinist builder register",
        ),
        (
            "Host key verification failed",
            "root does not know the machine's host key, and nobody is asked",
            "write it to the last column: base64 -w0 of the machine's ssh_host_ed25519_key.pub",
        ),
        (
            "Could not resolve hostname",
            "the host's name is known to a user's configuration alone",
            "add 'Include /etc/ssh/ssh_config.d/*' to /etc/ssh/ssh_config, or write the address",
        ),
        (
            "Permission denied (",
            "the machine takes no key that root has",
            "name a key in the third column that root can read, and that the machine knows",
        ),
        (
            "Cannot execute command-line and remote command",
            "a RemoteCommand is configured for the host",
            "take it out of the configuration",
        ),
        (
            "Connection refused",
            "nothing listens there",
            "start the builder; look whether the port is right",
        ),
        (
            "is not an absolute path",
            "the key of the third column is no absolute path",
            "write its whole path",
        ),
        (
            "protocol mismatch",
            "something prints on the connection before Nix speaks, such as a shell's profile",
            "keep the profile of the machine's user silent",
        ),
    ];
    let found = causes.into_iter().find(|(words, ..)| said.contains(words));
    found.map(|(_, why, mend)| (why, mend))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Level;

    /// Of OpenSSH 10, shortened.
    const SAID: &str = "host linux-builder\nuser builder\nhostname linux-builder\nport 22\naddressfamily any\nproxyjump none\nstricthostkeychecking ask\nuserknownhostsfile /root/.ssh/known_hosts /root/.ssh/known_hosts2\n";

    fn machine(entry: &str) -> Machine {
        Machine::parse(entry, "x86_64-linux").unwrap()
    }

    #[test]
    fn what_ssh_would_do() {
        let parsed = seen(SAID);
        assert_eq!(
            (parsed.host_name.as_str(), parsed.port),
            ("linux-builder", 22)
        );
        assert!(!parsed.proxied && parsed.alias.is_none());
        let more = seen(
            "hostname localhost\nport 31022\nhostkeyalias x\nremotecommand tmux\nproxyjump gate\n",
        );
        assert!(more.proxied);
        assert_eq!(more.alias.as_deref(), Some("x"));
        assert_eq!(more.remote_command.as_deref(), Some("tmux"));
    }

    #[test]
    fn addresses_as_ssh_takes_them() {
        assert_eq!(
            words("builder@h:31022"),
            ["-G", "-p", "31022", "--", "builder@h"]
        );
        assert_eq!(words("h"), ["-G", "--", "h"]);
        assert_eq!(words("u@[::1]:22"), ["-G", "-p", "22", "--", "u@::1"]);
        assert_eq!(words("u@[::1]"), ["-G", "--", "u@::1"]);
    }

    /// The story of seed 003, from its machine on.
    #[test]
    fn a_builder_whose_name_only_a_file_knows() {
        let machine =
            machine("ssh-ng://builder@linux-builder aarch64-linux /etc/nix/builder_ed25519 1");
        let mut found = seen(SAID);
        let unknown = judge(&machine, &found, false, "");
        assert_eq!(unknown.level, Level::Failure);
        assert!(unknown.why.contains("Include /etc/ssh/ssh_config.d"));
        // With the name in /etc/hosts, the port is still in that file alone.
        "localhost".clone_into(&mut found.host_name);
        let own = judge(&machine, &found, true, "");
        assert!(own.found.contains("own ssh server"), "{own:?}");
        found.port = 31022;
        let unpinned = judge(&machine, &found, true, "");
        assert_eq!(unpinned.level, Level::Warning);
        found.remote_command = Some("tmux".into());
        assert_eq!(judge(&machine, &found, true, "").level, Level::Failure);
    }

    #[test]
    fn the_words_of_seed_003() {
        for (said, expected) in [
            (
                "Permissions 0640 for '/etc/nix/builder_ed25519' are too open.\n@ WARNING: UNPROTECTED PRIVATE KEY FILE! @",
                "others can read",
            ),
            (
                "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.",
                "another machine answered",
            ),
            (
                "failed to start SSH connection to 'builder@localhost': Host key verification failed.",
                "nobody is asked",
            ),
            (
                "ssh: Could not resolve hostname linux-builder: Name or service not known",
                "user's configuration",
            ),
        ] {
            let (why, _) = explain(said).unwrap();
            assert!(why.contains(expected), "{said}: {why}");
        }
        assert_eq!(explain("something else"), None);
    }
}
