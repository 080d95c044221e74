//! What builders on a Mac need. What programs of macOS say is taken apart by functions that are tested on
//! what they do say.

mod builds;
mod launchd;
mod net;
mod services;

use std::collections::BTreeMap;

use crate::finding::Finding;
use crate::host::{Host, SOON};

/// The oldest macOS whose Virtualization.framework has what we use.
const OLDEST: u32 = 13;
/// The oldest that gives VMs virtualization of their own.
const NESTED: u32 = 15;

pub(crate) fn check(host: &Host) -> Vec<Finding> {
    let mut findings = vec![
        version(host),
        virtualization(host),
        nested(host),
        rosetta(host),
    ];
    findings.push(store(host));
    findings.extend(flavour(host));
    findings.extend(services::check(host));
    findings.extend(ssh_include(host));
    findings.extend(builds::check(host));
    findings.extend(net::check(host));
    findings
}

fn ask(host: &Host, name: &str, arguments: &[&str]) -> Option<String> {
    let said = host.ask(name, arguments, SOON).ok()?;
    Some(if said.stdout.is_empty() {
        said.stderr
    } else {
        said.stdout
    })
}

fn major(version: &str) -> Option<u32> {
    version.trim().split('.').next()?.parse().ok()
}

fn version(host: &Host) -> Finding {
    const ID: &str = "mac.version";
    const LOOKED: &str = "sw_vers -productVersion";
    let said = ask(host, "sw_vers", &["-productVersion"]).unwrap_or_default();
    match major(&said) {
        Some(version) if version >= OLDEST => Finding::fine(ID, LOOKED, said.trim()),
        Some(_) => Finding::failure(ID, LOOKED, said.trim())
            .why("VMs with Linux and Rosetta need macOS 13")
            .mend("upgrade macOS"),
        None => Finding::unknown(ID, LOOKED, "it does not tell"),
    }
}

fn sysctl(host: &Host, name: &str) -> Option<u32> {
    ask(host, "sysctl", &["-n", name])?.trim().parse().ok()
}

fn virtualization(host: &Host) -> Finding {
    const ID: &str = "mac.virtualization";
    const LOOKED: &str = "sysctl kern.hv_support kern.hv_vmm_present";
    let support = sysctl(host, "kern.hv_support");
    let within = sysctl(host, "kern.hv_vmm_present");
    match (support, within) {
        (Some(1), Some(1)) => Finding::failure(ID, LOOKED, "this Mac is a VM itself")
            .why("a VM in a VM is emulated")
            .mend("run it on the Mac itself"),
        (Some(1), _) => Finding::fine(ID, LOOKED, "this Mac can run VMs"),
        (Some(_), _) => Finding::failure(ID, LOOKED, "this Mac cannot run VMs")
            .why("a builder is a VM")
            .mend("another Mac; Apple's own chips can"),
        (None, _) => Finding::unknown(ID, LOOKED, "it does not tell"),
    }
}

/// The number of `Apple M3 Pro`.
fn generation(brand: &str) -> Option<u32> {
    let mut words = brand.split_whitespace();
    let word = words.find(|word| word.starts_with('M'))?;
    word.strip_prefix('M')?.parse().ok()
}

fn nested(host: &Host) -> Finding {
    const ID: &str = "mac.nested";
    const LOOKED: &str = "sysctl machdep.cpu.brand_string";
    let brand = ask(host, "sysctl", &["-n", "machdep.cpu.brand_string"]).unwrap_or_default();
    let version = ask(host, "sw_vers", &["-productVersion"]);
    let new = version
        .as_deref()
        .and_then(major)
        .is_some_and(|it| it >= NESTED);
    match generation(&brand) {
        Some(number) if number >= 3 && new => Finding::fine(ID, LOOKED, brand.trim()),
        _ => Finding::warning(ID, LOOKED, format!("{}, which gives VMs no virtualization", brand.trim()))
            .why("a builder here has no KVM, whatever it is said to have: VMs of tests are emulated in it")
            .mend("take kvm out of the builder's features; or a Mac with an M3 and macOS 15"),
    }
}

fn rosetta(host: &Host) -> Finding {
    const ID: &str = "mac.rosetta";
    const FILE: &str = "/Library/Apple/usr/libexec/oah/RosettaLinux/rosetta";
    if host.at(FILE).exists() {
        return Finding::fine(ID, FILE, "it is there");
    }
    Finding::warning(ID, FILE, "it is not there")
        .why("without Rosetta a builder runs programs for x86_64-linux by emulation, or not at all")
        .mend("softwareupdate --install-rosetta --agree-to-license")
}

/// What `diskutil info` says, by name.
fn disk_info(text: &str) -> BTreeMap<&str, &str> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines
        .map(|(name, value)| (name.trim(), value.trim()))
        .collect()
}

fn store(host: &Host) -> Finding {
    const ID: &str = "mac.store";
    const LOOKED: &str = "diskutil info /nix";
    let said = ask(host, "diskutil", &["info", "/nix"]).unwrap_or_default();
    match disk_info(&said).get("File System Personality") {
        Some(kind) if kind.starts_with("Case-sensitive") => Finding::fine(ID, LOOKED, *kind),
        Some(kind) => Finding::fine(
            ID,
            LOOKED,
            format!(
                "{kind}: some names are written as NAME~nix~case~hack~N, so what goes to a builder is copied by Nix, never shared"
            ),
        ),
        None => Finding::unknown(ID, LOOKED, "it does not tell"),
    }
}

/// Who manages Nix here, and so where machines are written.
fn flavour(host: &Host) -> Vec<Finding> {
    const ID: &str = "mac.flavour";
    let mut findings = Vec::new();
    let custom = "/etc/nix/nix.custom.conf";
    if host.at("/usr/local/bin/determinate-nixd").exists() {
        findings.push(Finding::fine(
            ID,
            "/usr/local/bin/determinate-nixd",
            format!("Determinate Nix: it writes nix.conf itself; own settings go to {custom}"),
        ));
    }
    let moved = "/etc/nix/nix.custom.conf.before-nix-darwin";
    if host.at(moved).exists() {
        findings.push(
            Finding::warning(
                ID,
                moved,
                "nix-darwin has put the custom configuration aside",
            )
            .why("what was set there does not count any more")
            .mend(format!(
                "bring what is needed from {moved} into nix.settings of nix-darwin"
            )),
        );
    }
    findings
}

/// Only builders by SSH need it: their names are in a file that the system's one has to include.
fn ssh_include(host: &Host) -> Option<Finding> {
    const FILE: &str = "/etc/ssh/ssh_config";
    let extra = host.at("/etc/ssh/ssh_config.d/100-linux-builder.conf");
    if !extra.exists() {
        return None;
    }
    let text = host.text(FILE).unwrap_or_default();
    Some(match includes(&text) {
        true => Finding::fine("mac.sshinclude", FILE, "it includes /etc/ssh/ssh_config.d"),
        false => Finding::failure("mac.sshinclude", FILE, "it does not include /etc/ssh/ssh_config.d")
            .why("the name, the port and the key of the linux-builder are in a file there")
            .mend("add 'Include /etc/ssh/ssh_config.d/*' at its top; or use machinist builder register, which needs no SSH"),
    })
}

fn includes(config: &str) -> bool {
    config.lines().any(|line| {
        let mut words = line.split_whitespace();
        let is_include = words
            .next()
            .is_some_and(|word| word.eq_ignore_ascii_case("include"));
        is_include && words.any(|word| word.contains("ssh_config.d"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chips() {
        assert_eq!(generation("Apple M3 Pro\n"), Some(3));
        assert_eq!(generation("Apple M1"), Some(1));
        assert_eq!(generation("Intel(R) Core(TM) i7-9750H CPU @ 2.60GHz"), None);
        assert_eq!(major("15.1.1\n"), Some(15));
    }

    #[test]
    fn disks() {
        let text = "   Device Identifier:         disk3s7\n   Mount Point:               /nix\n   File System Personality:   APFS\n   Name (User Visible):       APFS\n";
        assert_eq!(disk_info(text)["File System Personality"], "APFS");
    }

    #[test]
    fn inclusions() {
        assert!(includes("# x\nInclude /etc/ssh/ssh_config.d/*\nHost *\n"));
        assert!(!includes(
            "#Include /etc/ssh/ssh_config.d/*\nHost *\n  SendEnv LANG\n"
        ));
    }
}
