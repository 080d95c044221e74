//! Nix itself: its version, its daemon, its configuration.

use std::fs;
use std::time::Duration;

use machinist_builder::nix_conf::Daemon;

use crate::Conf;
use crate::finding::{Finding, Repair};
use crate::host::{Host, SOON};

/// The kernel tells its own start to the second.
const SLACK: Duration = Duration::from_secs(2);

/// The features of the command line that we use.
const COMMAND: [&str; 2] = ["--extra-experimental-features", "nix-command"];

/// What asks the daemon who it is.
const INFO: [&str; 5] = ["store", "info", "--json", "--store", "daemon"];

pub(crate) fn check(host: &Host, conf: Conf<'_>) -> Vec<Finding> {
    let (version, client) = version(host);
    let installed = client.is_some();
    let mut findings = vec![version];
    if installed {
        findings.push(daemon(host, client));
    }
    findings.push(parse(host, conf, installed));
    if let Ok(conf) = conf {
        findings.extend(stale(host, &conf.files));
    }
    findings.extend(homeless(host));
    findings
}

/// A version: its numbers, as far as they are numbers.
fn numbers(version: &str) -> Vec<u32> {
    let parts = version.split(['.', '-', '+']);
    parts.map_while(|part| part.parse().ok()).collect()
}

fn version(host: &Host) -> (Finding, Option<String>) {
    const LOOKED: &str = "nix --version";
    let said = match host.ask("nix", ["--version"], SOON) {
        Ok(said) => said,
        Err(error) => {
            let finding = Finding::failure("nix.version", LOOKED, error.to_string())
                .why("there are no builds without Nix")
                .mend("install Nix 2.34 or newer: https://nixos.org/download");
            return (finding, None);
        }
    };
    let line = said.stdout.trim();
    let version = line.split_whitespace().last().unwrap_or_default();
    let parts = numbers(version);
    let finding = if parts < vec![2, 20] {
        Finding::failure("nix.version", LOOKED, line)
            .why("before 2.20, Nix cannot run a program of ours to reach a builder")
            .mend("upgrade Nix: 2.34 is what machinist is tested with")
    } else if (vec![2, 31, 0]..=vec![2, 31, 2]).contains(&parts) {
        Finding::warning("nix.version", LOOKED, line)
            .why("Nix 2.31.0 to 2.31.2 take every machine USER@localhost for this host itself")
            .mend("upgrade Nix to 2.31.3 or newer")
    } else if parts < vec![2, 32] && !line.contains("Lix") {
        Finding::fine(
            "nix.version",
            LOOKED,
            format!("{line}, which has no external builders"),
        )
    } else {
        Finding::fine("nix.version", LOOKED, line)
    };
    (finding, Some(version.to_owned()))
}

fn daemon(host: &Host, client: Option<String>) -> Finding {
    const LOOKED: &str = "nix store info --store daemon";
    if !host.has_daemon() {
        return Finding::warning("nix.daemon", LOOKED, "there is no daemon: builds are the user's own")
            .why("without a daemon builds have no users of their own, and each user has another configuration")
            .mend("systemctl enable --now nix-daemon.socket, or install Nix for several users");
    }
    let said = match host.ask("nix", COMMAND.into_iter().chain(INFO), SOON) {
        Ok(said) if said.success => said,
        Ok(said) => {
            return unreachable(said.last_line());
        }
        Err(error) => return unreachable(&error.to_string()),
    };
    let info: serde_json::Value = serde_json::from_str(&said.stdout).unwrap_or_default();
    let version = info["version"].as_str().unwrap_or("an unknown version");
    let trusted = match trust(&info) {
        Some(true) => "trusts this user",
        Some(false) => "does not trust this user",
        None => "does not say whether it trusts this user",
    };
    let found = format!("version {version}, which {trusted}");
    if client.as_deref().is_some_and(|client| client != version) {
        return Finding::warning(
            "nix.daemon",
            LOOKED,
            format!("{found}; the client is {}", client.unwrap_or_default()),
        )
        .why("an older daemon goes on running after an upgrade")
        .mend("systemctl restart nix-daemon");
    }
    Finding::fine("nix.daemon", LOOKED, found)
}

/// What `nix store info` says of it.
fn trust(info: &serde_json::Value) -> Option<bool> {
    let trusted = &info["trusted"];
    trusted.as_i64().map(|it| it != 0).or(trusted.as_bool())
}

/// Whether the daemon trusts this user, if it tells.
pub(super) fn is_trusted(host: &Host) -> Option<bool> {
    let arguments = COMMAND.into_iter().chain(INFO);
    let said = host.ask("nix", arguments, SOON).ok()?;
    trust(&serde_json::from_str(&said.stdout).ok()?)
}

fn unreachable(why: &str) -> Finding {
    Finding::failure("nix.daemon", "nix store info --store daemon", why)
        .why("all builds of ordinary users go through the daemon")
        .mend("systemctl restart nix-daemon.socket; on macOS: launchctl kickstart -k system/org.nixos.nix-daemon")
}

/// What Nix says of its own configuration, and what it does not say.
fn parse(host: &Host, conf: Conf<'_>, installed: bool) -> Finding {
    let file = host.nix.directory.join("nix.conf").display().to_string();
    let conf = match conf {
        Ok(conf) => conf,
        Err(error) => {
            return Finding::failure("nix.conf", &file, error.to_string())
                .why("Nix does not start")
                .mend("mend or remove that line");
        }
    };
    let mut wrong: Vec<String> = Vec::new();
    for assignment in conf.assignments() {
        if assignment.name == "extra-builders" {
            wrong.push(format!(
                "{}: extra-builders is no setting: Nix passes over it",
                assignment.place
            ));
        }
    }
    for name in [
        "system-features",
        "experimental-features",
        "sandbox-paths",
        "trusted-users",
    ] {
        for lost in conf.lost(name) {
            wrong.push(format!(
                "{}: {} is lost, since {name} is set after it",
                lost.place, lost.name
            ));
        }
    }
    for path in &conf.unreadable {
        wrong.push(format!(
            "{} cannot be read, which Nix does not say",
            path.display()
        ));
    }
    if installed {
        let arguments = COMMAND.into_iter().chain(["config", "show"]);
        if let Ok(said) = host.ask("nix", arguments, SOON) {
            let complaints = ["unknown setting", "Ignoring setting", "error:"];
            let lines = said.stderr.lines().map(str::trim);
            let told = lines.filter(|line| complaints.iter().any(|it| line.contains(it)));
            for line in told {
                if !wrong.iter().any(|known| known == line) {
                    wrong.push(line.to_owned());
                }
            }
        }
    }
    if wrong.is_empty() {
        let files = conf.files.len();
        return Finding::fine("nix.conf", &file, format!("read, from {files} file(s)"));
    }
    Finding::warning("nix.conf", &file, wrong.join("; "))
        .why("what is passed over looks as if it were set")
        .mend("mend or remove those lines")
}

/// When a running daemon read its configuration.
fn stale(host: &Host, files: &[std::path::PathBuf]) -> Option<Finding> {
    let Daemon { pid, started } = Daemon::find(&host.nix.files)?;
    let changed = |path: &std::path::PathBuf| {
        let modified = fs::metadata(host.nix.files.find(path))
            .ok()?
            .modified()
            .ok()?;
        (modified > started + SLACK).then(|| path.display().to_string())
    };
    let newer: Vec<String> = files.iter().filter_map(changed).collect();
    let looked = format!("nix-daemon, process {pid}");
    if newer.is_empty() {
        return Some(Finding::fine(
            "nix.stale",
            &looked,
            "it started after the last change",
        ));
    }
    Some(
        Finding::warning("nix.stale", &looked, format!("it started before {} changed", newer.join(", ")))
            .why("a daemon reads its configuration when it starts; only the file of machines is read for each build")
            .mend("systemctl restart nix-daemon"),
    )
}

fn homeless(host: &Host) -> Option<Finding> {
    const PATH: &str = "/homeless-shelter";
    let found = host.at(PATH);
    found.exists().then(|| {
        Finding::failure("nix.homeless", PATH, "it exists")
            .why("it is the home of builds, which are not to have one: Nix refuses to build without a sandbox")
            .mend(format!("rm -r {PATH}, after a look at what is in it"))
            .repair(Repair::RemoveEmpty(found))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        assert_eq!(numbers("2.34.8"), [2, 34, 8]);
        assert_eq!(numbers("2.24.0pre20240801_abc"), [2, 24]);
        assert!(numbers("2.9.1") < vec![2, 20]);
    }
}
