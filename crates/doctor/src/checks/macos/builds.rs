//! What builds on a Mac stand on: build users and the store, where builders lie, and what a program is
//! allowed to do.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::ask;
use crate::finding::Finding;
use crate::host::Host;

/// The mode of a store that builds' users may write to, and only there where they may.
const STORE_MODE: u32 = 0o1775;

/// Where macOS removes what nobody has used for some days.
const PURGED: [&str; 5] = [
    "/tmp",
    "/private/tmp",
    "/var/tmp",
    "/private/var/tmp",
    "/var/folders",
];

pub(super) fn check(host: &Host) -> Vec<Finding> {
    let mut findings = entitlements(host);
    findings.push(build_users(host));
    findings.extend(host.known.builders.iter().filter_map(|it| purged(it)));
    findings
}

/// What `codesign -d --entitlements -` says of an entitlement, as XML or as a list.
fn entitled(said: &str, name: &str) -> bool {
    let Some((_, rest)) = said.split_once(name) else {
        return false;
    };
    // Its value is before the next key.
    let end = ["<key>", "[Key]"]
        .iter()
        .filter_map(|key| rest.find(key))
        .min();
    rest[..end.unwrap_or(rest.len())].contains("true")
}

/// QEMU runs our VMs; of that one by Apple's other framework nothing is asked yet.
fn entitlements(host: &Host) -> Vec<Finding> {
    const ID: &str = "mac.entitlement";
    const HYPERVISOR: &str = "com.apple.security.hypervisor";
    let name = format!("qemu-system-{}", std::env::consts::ARCH);
    let Some(program) = host.program(&name) else {
        // The checks of VMs tell of it.
        return Vec::new();
    };
    let path = program.display().to_string();
    let looked = format!("codesign -d --entitlements - {path}");
    let Some(said) = ask(host, "codesign", &["-d", "--entitlements", "-", &path]) else {
        return vec![Finding::unknown(ID, &looked, "it does not tell")];
    };
    vec![match entitled(&said, HYPERVISOR) {
        true => Finding::fine(ID, &looked, HYPERVISOR),
        false => Finding::failure(ID, &looked, format!("it has no {HYPERVISOR}"))
            .why("macOS lets no program without it make a VM: builders are emulated, or do not start")
            .mend(format!(
                "write a property list with the key {HYPERVISOR} and the value true to e.plist; codesign --force --sign - --entitlements e.plist {path}"
            )),
    }]
}

/// A record of `dscl . -read`: the words of a key, which may go on in the next lines.
fn record<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    let mut words = Vec::new();
    let mut within = false;
    for line in text.lines() {
        let rest = match line.strip_prefix(key).and_then(|it| it.strip_prefix(':')) {
            Some(rest) => {
                within = true;
                rest
            }
            None if within && line.starts_with(' ') => line,
            None => {
                within = false;
                continue;
            }
        };
        words.extend(rest.split_whitespace());
    }
    words
}

fn build_users(host: &Host) -> Finding {
    const ID: &str = "mac.nixbld";
    const LOOKED: &str = "dscl . -read /Groups/nixbld, and /nix/store";
    const WHY: &str = "the daemon gives each build a user of this group, who makes the build's outputs in the store: 'the build users group 'nixbld' has no members'";
    let words = [
        ".",
        "-read",
        "/Groups/nixbld",
        "GroupMembership",
        "PrimaryGroupID",
    ];
    let Some(said) = ask(host, "dscl", &words) else {
        return Finding::unknown(ID, LOOKED, "it does not tell");
    };
    let members = record(&said, "GroupMembership");
    let group = record(&said, "PrimaryGroupID");
    let Some(group) = group.first().and_then(|it| it.parse::<u32>().ok()) else {
        return Finding::failure(ID, LOOKED, "there is no group nixbld")
            .why(WHY)
            .mend("run Nix's installer again, which makes it");
    };
    if members.is_empty() {
        return Finding::failure(ID, LOOKED, "nixbld has no members")
            .why(WHY)
            .mend("for n in $(seq 1 32); do sudo dseditgroup -o edit -t user -a _nixbld$n nixbld; done");
    }
    let found = format!("{} users in nixbld", members.len());
    let Ok(store) = host.at("/nix/store").metadata() else {
        return Finding::unknown(ID, LOOKED, "there is no /nix/store");
    };
    let mode = store.mode() & 0o7777;
    if mode != STORE_MODE || store.gid() != group {
        return Finding::failure(
            ID,
            LOOKED,
            format!(
                "the store is of group {} with mode {mode:o}; nixbld is {group}",
                store.gid()
            ),
        )
        .why("an external builder makes outputs as a build's user, who may not write there")
        .mend("sudo chgrp nixbld /nix/store && sudo chmod 1775 /nix/store");
    }
    Finding::fine(ID, LOOKED, found)
}

/// A builder among files that are removed.
fn purged(builder: &Path) -> Option<Finding> {
    let place = PURGED.iter().find(|it| builder.starts_with(it))?;
    let name = builder.file_name().unwrap_or_default().display();
    Some(
        Finding::failure("mac.tmp", &builder.display().to_string(), format!("builder {name} lies in {place}"))
            .why("macOS removes what nobody has used there for three days: disks and sockets of builders, too")
            .mend("make it where it stays: sudo machinist builder create, which takes /var/lib/machinist/builders"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entitlements_in_both_forms() {
        let name = "com.apple.security.hypervisor";
        let xml = "Executable=/usr/local/Cellar/qemu/8.0.3/bin/qemu-system-x86_64\n<?xml version=\"1.0\" encoding=\"UTF-8\"?><!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \"https://www.apple.com/DTDs/PropertyList-1.0.dtd\"><plist version=\"1.0\"><dict><key>com.apple.security.hypervisor</key><true/></dict></plist>\n";
        let list = "Executable=/opt/qemu\n[Dict]\n\t[Key] com.apple.security.hypervisor\n\t[Value]\n\t\t[Bool] true\n";
        assert!(entitled(xml, name) && entitled(list, name));
        assert!(!entitled("Executable=/opt/qemu\n", name));
        let off = list.replace("true", "false") + "\t[Key] other\n\t[Value]\n\t\t[Bool] true\n";
        assert!(!entitled(&off, name));
        assert!(entitled(&off, "other"));
    }

    #[test]
    fn records_of_the_directory() {
        let short = "GroupMembership: _nixbld1 _nixbld2\nPrimaryGroupID: 350\n";
        assert_eq!(record(short, "GroupMembership"), ["_nixbld1", "_nixbld2"]);
        assert_eq!(record(short, "PrimaryGroupID"), ["350"]);
        let long = "GroupMembership:\n _nixbld1 _nixbld2\n _nixbld3\nPrimaryGroupID: 350\n";
        assert_eq!(record(long, "GroupMembership").len(), 3);
        assert!(record("No such key: GroupMembership\n", "GroupMembership").is_empty());
    }

    #[test]
    fn places_that_are_emptied() {
        assert!(purged(Path::new("/private/tmp/b/linux")).is_some());
        assert!(purged(Path::new("/tmpfoo/linux")).is_none());
        assert!(purged(Path::new("/var/lib/machinist/builders/linux")).is_none());
    }
}
