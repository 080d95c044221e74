//! What builds may do on this host, which is a Linux.

use std::collections::BTreeSet;
use std::path::Path;

use machinist_builder::nix_conf::{Daemon, NixConf};
use machinist_sys::id_map;

use crate::finding::{Finding, Repair};
use crate::host::{Host, SOON};
use crate::trial::{Abilities, Trial, broken_promises};

/// The first of the ids that Nix gives to builds, and how many there are.
const START_ID: u64 = 0x3400_0000;
const ID_COUNT: u64 = 8_388_608;

pub(crate) fn check(host: &Host, conf: &NixConf) -> Vec<Finding> {
    let mut findings = vec![user_namespaces(host), cgroups(host)];
    findings.extend(delegation(host));
    findings.extend(unprivileged(host));
    findings.extend(terminals(host));
    findings.extend(world_writable(host, conf));
    findings.extend(sandbox_paths(host, conf));
    findings.extend(clashes(host, conf));
    if !host.at("/nix/store").is_dir() {
        return findings;
    }
    let trial = Trial::default();
    match trial.run(host) {
        Err(why) => findings.push(
            Finding::failure("linux.sandbox", "a build", why)
                .why("nothing can be built here")
                .mend("machinist doctor --for builder, once what is named above is mended"),
        ),
        Ok(abilities) => findings.extend(plain(conf, &abilities)),
    }
    findings.push(ids(host, conf));
    findings
}

/// What any build can do.
fn plain(conf: &NixConf, abilities: &Abilities) -> Vec<Finding> {
    const LOOKED: &str = "a build";
    let no = |thing: &str| abilities.get(thing).and_then(|it| it.as_ref().err());
    let mut findings = Vec::new();
    findings.push(match no("sandbox") {
        Some(why) => Finding::failure("linux.sandbox", LOOKED, why)
            .why("builds see this host, and what works here need not work elsewhere")
            .mend("sandbox = true")
            .mend("sandbox-fallback = false"),
        None if conf.flag("sandbox-fallback") != Some(false) => Finding::warning(
            "linux.sandbox",
            LOOKED,
            "it has a sandbox, but sandbox-fallback is true",
        )
        .why("where a sandbox cannot be made, Nix builds without one, and says nothing")
        .mend("sandbox-fallback = false"),
        None => Finding::fine("linux.sandbox", LOOKED, "it has a sandbox"),
    });
    findings.push(match no("pty") {
        Some(why) => Finding::failure("linux.pty", LOOKED, why)
            .why("the driver of NixOS tests needs terminals")
            .mend("mount -t devpts devpts /dev/pts -o newinstance,ptmxmode=0666, where the daemon runs"),
        None => Finding::fine("linux.pty", LOOKED, "it opened a terminal"),
    });
    let features = conf.words("system-features", &[]);
    let claims = |feature: &str| features.iter().any(|it| it == feature);
    let advertised =
        claims("kvm") || (conf.get("system-features").is_none() && Path::new("/dev/kvm").exists());
    findings.push(match no("kvm") {
        None => Finding::fine("linux.kvm", LOOKED, "it made a VM by KVM"),
        Some(why) if advertised => Finding::failure("linux.kvm", LOOKED, why)
            .why("the feature kvm is advertised, and builds that ask for it fail or are emulated; groups do not reach into the sandbox")
            .mend("echo 'KERNEL==\"kvm\", MODE=\"0666\"' > /etc/udev/rules.d/99-kvm.rules && udevadm trigger /dev/kvm")
            .mend("or take kvm out of system-features"),
        Some(why) => Finding::warning("linux.kvm", LOOKED, why)
            .why("VMs of tests are emulated, ten times slower")
            .mend("a host with KVM, or nested virtualization for this one"),
    });
    let has_path = |name: &str| {
        conf.words(name, &[])
            .iter()
            .any(|it| it.starts_with("/dev/net"))
    };
    let shown = has_path("sandbox-paths") || has_path("extra-sandbox-paths");
    if claims("devnet") || shown {
        findings.push(match no("tun").filter(|_| claims("devnet")) {
            None => Finding::fine("linux.devnet", LOOKED, "as it is said"),
            Some(why) => Finding::failure("linux.devnet", LOOKED, why)
                .why("the feature devnet is advertised: tests that ask for it start, and have no network")
                .mend("extra-sandbox-paths = /dev/net?")
                .mend("modprobe tun && chmod 666 /dev/net/tun"),
        });
    }
    findings
}

/// A build that is root of many ids, as tests with containers need it.
fn ids(host: &Host, conf: &NixConf) -> Finding {
    const ID: &str = "linux.uid-range";
    const LOOKED: &str = "a build that asks for uid-range";
    let features: BTreeSet<String> = ["uid-range".to_owned()].into();
    let trial = Trial {
        features: features.clone(),
        entry: None,
    };
    let (found, broken) = match trial.run(host) {
        Ok(abilities) => {
            let broken = broken_promises(&features, &abilities);
            (broken.join("; "), !broken.is_empty())
        }
        Err(why) => (why, true),
    };
    if !broken {
        return Finding::fine(
            ID,
            LOOKED,
            "it was root of 65536 ids, and could do what containers need",
        );
    }
    let mut finding =
        Finding::warning(ID, LOOKED, found).why("tests with containers cannot be built here");
    if conf.flag("auto-allocate-uids") != Some(true) {
        finding = finding.mend("auto-allocate-uids = true");
    }
    let enabled = conf.words("experimental-features", &[]);
    for feature in ["auto-allocate-uids", "cgroups"] {
        if !enabled.iter().any(|it| it == feature) {
            finding = finding.mend(format!("extra-experimental-features = {feature}"));
        }
    }
    let offered = conf.words("system-features", &["uid-range"]);
    if !offered.iter().any(|it| it == "uid-range") {
        finding = finding.mend("extra-system-features = uid-range, after system-features");
    }
    if finding.mend.is_empty() {
        finding = finding.mend("restart the daemon, and look whether its unit has Delegate=yes");
    }
    finding
}

fn user_namespaces(host: &Host) -> Finding {
    const ID: &str = "linux.userns";
    const FILE: &str = "/proc/sys/user/max_user_namespaces";
    match host.text(FILE).map(|text| text.trim().to_owned()) {
        Some(most) if most == "0" => Finding::failure(ID, FILE, "0")
            .why("Nix's sandbox needs a user namespace for each build")
            .mend("sysctl -w user.max_user_namespaces=65536"),
        Some(most) => Finding::fine(ID, FILE, most),
        None => Finding::failure(
            ID,
            FILE,
            "it is not there: this kernel has no user namespaces",
        )
        .why("Nix's sandbox needs a user namespace for each build")
        .mend("a kernel with CONFIG_USER_NS"),
    }
}

fn cgroups(host: &Host) -> Finding {
    const ID: &str = "linux.cgroup2";
    const LOOKED: &str = "/sys/fs/cgroup";
    if host.at("/sys/fs/cgroup/cgroup.controllers").exists() {
        return Finding::fine(ID, LOOKED, "cgroup2");
    }
    Finding::warning(ID, LOOKED, "no cgroup2")
        .why("a build with uid-range gets a control group of its own, of the new kind")
        .mend("boot with systemd.unified_cgroup_hierarchy=1")
}

/// Whether systemd leaves the daemon's control group to it, where systemd runs it.
fn delegation(host: &Host) -> Option<Finding> {
    const UNIT: &str = "nix-daemon.service";
    let words = ["show", "--property=Delegate,LoadState", UNIT];
    let said = host.ask("systemctl", words, SOON).ok()?;
    let has = |line: &str| said.stdout.lines().any(|it| it == line);
    if !said.success || !has("LoadState=loaded") || !has("Delegate=no") {
        return None;
    }
    Some(
        Finding::warning("linux.cgroup2", &format!("systemctl show {UNIT}"), "it has no Delegate=yes")
            .why("the daemon makes a control group for each build with uid-range, and systemd may take it away")
            .mend(format!("systemctl edit {UNIT}: [Service] Delegate=yes; then restart it")),
    )
}

/// Terminals of the daemon: what it hands on to builds.
fn terminals(host: &Host) -> Option<Finding> {
    let daemon = Daemon::find(&host.nix.files);
    let (root, whose) = match daemon {
        Some(Daemon { pid, .. }) if super::is_root() => {
            (format!("/proc/{pid}/root"), "the daemon's")
        }
        _ => (String::new(), "this host's"),
    };
    let looked = format!("{whose} /dev/pts/ptmx");
    let number = |name: &str| -> Option<u64> {
        let text = host.text(&format!("/proc/sys/kernel/pty/{name}"))?;
        text.trim().parse().ok()
    };
    if let (Some(used), Some(most)) = (number("nr"), number("max"))
        && used >= most
    {
        return Some(
            Finding::failure("linux.devpts", "/proc/sys/kernel/pty", format!("all {most} terminals are in use"))
                .why("each build gets a terminal for its log: 'opening pseudoterminal master' is the error")
                .mend("sysctl -w kernel.pty.max=65536"),
        );
    }
    if host.at(&format!("{root}/dev/pts/ptmx")).exists() {
        return Some(Finding::fine("linux.devpts", &looked, "it is there"));
    }
    Some(
        Finding::failure("linux.devpts", &looked, "it is not there")
            .why("each build gets a terminal for its log: 'opening pseudoterminal master' is the error; and its own terminals are made only where the daemon has some")
            .mend("mkdir -p /dev/pts && mount -t devpts devpts /dev/pts -o ptmxmode=0666,gid=5, where the daemon runs"),
    )
}

/// Nix refuses to build below what everybody may write to, and below links.
fn world_writable(host: &Host, conf: &NixConf) -> Option<Finding> {
    use std::os::unix::fs::MetadataExt as _;
    let set = conf.get("build-dir").map(|set| set.value);
    let build = set.unwrap_or_else(|| "/nix/var/nix/builds".to_owned());
    let is_open = |path: &&Path| {
        let found = host.nix.files.find(path).symlink_metadata();
        // All may write to a link, as Nix sees it.
        found.is_ok_and(|it| it.mode() & 0o002 != 0)
    };
    let open = Path::new(&build).ancestors().find(is_open)?;
    let found = host.nix.files.find(open);
    let looked = open.display().to_string();
    let finding = |what: &str, mend: String| {
        Finding::failure("linux.builddir", &looked, what)
            .why("Nix refuses to build below it: 'is world-writable or a symlink'")
            .mend(mend)
    };
    if found.is_symlink() {
        let mend = "build-dir = the directory that it leads to";
        return Some(finding("it is a link", mend.to_owned()));
    }
    let finding = finding("everybody may write to it", format!("chmod o-w {looked}"));
    // Nix's own directories are nobody else's; what else is on the way may be meant so.
    Some(match open.starts_with("/nix") {
        true => finding.repair(Repair::NotForOthers(found)),
        false => finding,
    })
}

/// Whether who is not root may make user namespaces: without a daemon, that is who builds.
fn unprivileged(host: &Host) -> Option<Finding> {
    const ID: &str = "linux.userns";
    if host.has_daemon() {
        return None;
    }
    let forbidden = [
        ("kernel/unprivileged_userns_clone", "0", "1"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "0"),
    ];
    let (name, _, mend) = forbidden.into_iter().find(|(name, bad, _)| {
        let text = host.text(&format!("/proc/sys/{name}"));
        text.is_some_and(|text| text.trim() == *bad)
    })?;
    Some(
        Finding::warning(
            ID,
            &format!("/proc/sys/{name}"),
            "only root may make user namespaces",
        )
        .why("there is no daemon, so builds are the user's own, and get no sandbox")
        .mend(format!("sysctl -w {}={mend}", name.replace('/', ".")))
        .mend("or install Nix for several users, with its daemon"),
    )
}

/// An entry of `sandbox-paths`: where it is seen, where it lies, and whether it may be missing.
fn sandbox_path(word: &str) -> (&str, &str, bool) {
    let (word, optional) = match word.strip_suffix('?') {
        Some(word) => (word, true),
        None => (word, false),
    };
    let (target, source) = word.split_once('=').unwrap_or((word, word));
    (target, source, optional)
}

fn sandbox_paths(host: &Host, conf: &NixConf) -> Vec<Finding> {
    const ID: &str = "linux.sandbox-paths";
    let mut words = conf.words("sandbox-paths", &[]);
    words.sort();
    let entries: Vec<_> = words.iter().map(|word| sandbox_path(word)).collect();
    let mut findings = Vec::new();
    for (target, source, optional) in &entries {
        if !optional && host.at(source).symlink_metadata().is_err() {
            findings.push(
                Finding::failure(ID, source, "it is not there")
                    .why("every build with a sandbox fails: 'getting attributes of path'")
                    .mend(format!(
                        "write {source}? if it may be missing, or take it out of sandbox-paths"
                    )),
            );
        }
        let outer = entries.iter().find(|(outer, ..)| {
            target
                .strip_prefix(outer)
                .is_some_and(|rest| rest.starts_with('/'))
        });
        if let Some((outer, within, _)) = outer.filter(|_| host.at(source).is_file()) {
            findings.push(
                Finding::failure(ID, target, format!("it is a file in {outer}, which is shown as well"))
                    .why(format!("Nix makes the file in the one before it shows the other: a file of {within} becomes empty ON THIS HOST"))
                    .mend(format!("take {target} out of sandbox-paths")),
            );
        }
    }
    if findings.is_empty() && !entries.is_empty() {
        findings.push(Finding::fine(
            ID,
            "sandbox-paths",
            format!("{} path(s)", entries.len()),
        ));
    }
    findings
}

/// Users of the host among the ids of builds.
fn clashes(host: &Host, conf: &NixConf) -> Option<Finding> {
    const ID: &str = "linux.uid-clash";
    if conf.flag("auto-allocate-uids") != Some(true) {
        return None;
    }
    let number = |name: &str, usual| {
        let set = conf.get(name).and_then(|set| set.value.parse::<u64>().ok());
        set.unwrap_or(usual)
    };
    let first = number("start-id", START_ID);
    let ids = first..first.saturating_add(number("id-count", ID_COUNT));
    let looked = format!("users from {} to {}", ids.start, ids.end.saturating_sub(1));
    let passwd = host.text("/etc/passwd").unwrap_or_default();
    let clash = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let id: u64 = fields.nth(1)?.parse().ok()?;
        ids.contains(&id).then(|| format!("{name} has {id}"))
    });
    if let Some(found) = clash {
        return Some(
            Finding::failure(ID, &looked, found)
                .why("Nix gives these ids to builds, and refuses one that is a user's")
                .mend("start-id = another beginning, or give the user another id"),
        );
    }
    let map = host.text("/proc/self/uid_map").unwrap_or_default();
    if !covers(&map, ids.end) {
        return Some(
            Finding::failure(
                ID,
                &looked,
                "this is a user namespace in which there are none of these ids",
            )
            .why("a build with uid-range cannot be made root of them")
            .mend("start-id = one of the ids that are mapped here (/proc/self/uid_map)"),
        );
    }
    Some(Finding::fine(ID, &looked, "none"))
}

/// Whether all ids up to `end` are mapped. Parts of them are no use: builds get them one after another.
fn covers(map: &str, end: u64) -> bool {
    id_map::ranges(map).any(|range| {
        let first = u64::from(range.inside);
        first <= START_ID && first + u64::from(range.count) >= end
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        assert_eq!(sandbox_path("/dev/net?"), ("/dev/net", "/dev/net", true));
        assert_eq!(sandbox_path("/bin/sh=/x/y"), ("/bin/sh", "/x/y", false));
    }

    #[test]
    fn maps() {
        let end = START_ID + ID_COUNT;
        assert!(covers("         0          0 4294967295\n", end));
        assert!(!covers("0 100000 65536\n", end));
        assert!(!covers("", end));
    }
}
