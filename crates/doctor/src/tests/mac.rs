//! A Mac, as its programs describe it: what they are known to print, printed by scripts.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::*;

/// What each program prints, for the words that it is called with.
const PROGRAMS: [(&str, &str); 8] = [
    ("sw_vers", "*) echo 15.1.1;;"),
    (
        "sysctl",
        "*hv_support) echo 1;; *hv_vmm_present) echo 0;; *brand_string) echo 'Apple M3 Pro';;",
    ),
    (
        "diskutil",
        "*) echo '   File System Personality:   Case-sensitive APFS';;",
    ),
    (
        "launchctl",
        "*nix-daemon|*machinist.builder.linux) printf '\tstate = running\\n';; *) echo 'Could not find service' >&2; exit 113;;",
    ),
    (
        "codesign",
        "*) printf '[Dict]\\n\\t[Key] com.apple.security.hypervisor\\n\\t[Value]\\n\\t\\t[Bool] true\\n';;",
    ),
    (
        "dscl",
        "*) printf 'GroupMembership: _nixbld1 _nixbld2\\nPrimaryGroupID: @GROUP@\\n';;",
    ),
    (
        "socketfilterfw",
        "*state) echo 'Firewall is disabled. (State = 0)';;",
    ),
    (
        "ifconfig",
        "*) printf 'en0: flags\\n\\tinet 10.0.0.5 netmask 0xffffff00 broadcast 10.0.0.255\\n';;",
    ),
];

/// By a process of its own: what this one has open for writing, another thread's child has, too, and the
/// kernel runs no program that somebody may write to.
fn write_program(path: &Path, text: &str) {
    let write = "printf %s \"$1\" > \"$0\" && chmod 755 \"$0\"";
    let mut sh = std::process::Command::new("sh");
    let status = sh.args(["-c", write]).arg(path).arg(text).status();
    assert!(status.unwrap().success());
}

/// A Mac where all is well, but for what these programs say, or these files have.
fn examine(programs: &[(&str, &str)], files: &[(&str, &str)]) -> Vec<Finding> {
    let rosetta = ("/Library/Apple/usr/libexec/oah/RosettaLinux/rosetta", "");
    let fixture = Fixture::new(&[&[rosetta, ("/nix/store/x", "")], files].concat());
    let store = fixture.root.path().join("nix/store");
    fs::set_permissions(&store, fs::Permissions::from_mode(0o1775)).unwrap();
    let group = fs::metadata(&store).unwrap().gid().to_string();
    let directory = fixture.root.path().join("programs");
    fs::create_dir(&directory).unwrap();
    let qemu = format!("qemu-system-{}", std::env::consts::ARCH);
    let qemu = [(qemu.as_str(), "")];
    for (name, cases) in PROGRAMS.iter().chain(programs).chain(&qemu) {
        let cases = cases.replace("@GROUP@", &group);
        let script = format!("#!/bin/sh\ncase \"$*\" in\n{cases}\nesac\n");
        write_program(&directory.join(name), &script);
    }
    let mut host = fixture.host();
    host.search = directory.into();
    host.known.builders = vec!["/var/lib/machinist/builders/linux".into()];
    if files
        .iter()
        .any(|(path, _)| *path == "/tmp/b/linux/builder.json")
    {
        host.known.builders.push("/tmp/b/linux".into());
    }
    checks::macos::check(&host)
}

fn bad(programs: &[(&str, &str)], files: &[(&str, &str)]) -> Vec<(&'static str, Level)> {
    let mut found = examine(programs, files);
    found.retain(|it| it.level >= Level::Warning);
    for it in &found {
        assert!(!it.why.is_empty() && !it.mend.is_empty(), "{it:?}");
    }
    found.into_iter().map(|it| (it.id, it.level)).collect()
}

#[test]
fn all_is_well() {
    let found = examine(&[], &[]);
    let fine: Vec<&str> = found.iter().map(|it| it.id).collect();
    assert!(found.iter().all(|it| it.level == Level::Fine), "{found:#?}");
    assert_eq!(
        fine,
        [
            "mac.version",
            "mac.virtualization",
            "mac.nested",
            "mac.rosetta",
            "mac.store",
            "mac.launchd",
            "mac.launchd",
            "mac.launchd",
            "mac.entitlement",
            "mac.nixbld",
        ]
    );
}

#[test]
fn what_each_program_can_say() {
    use Level::{Failure, Warning};
    for (program, cases, expected) in [
        (
            "sw_vers",
            "*) echo 12.7;;",
            vec![("mac.version", Failure), ("mac.nested", Warning)],
        ),
        (
            "sysctl",
            "*hv_*) echo 1;; *) echo 'Apple M3';;",
            vec![("mac.virtualization", Failure)],
        ),
        (
            "sysctl",
            "*hv_support) echo 1;; *hv_*) echo 0;; *) echo 'Apple M1 Max';;",
            vec![("mac.nested", Warning)],
        ),
        (
            "codesign",
            "*) echo 'Executable=/q' >&2;;",
            vec![("mac.entitlement", Failure)],
        ),
        (
            "dscl",
            "*) echo '<dscl_cmd> DS Error: -14136 (eDSRecordNotFound)' >&2; exit 56;;",
            vec![("mac.nixbld", Failure)],
        ),
        (
            "dscl",
            "*) echo 'PrimaryGroupID: @GROUP@';;",
            vec![("mac.nixbld", Failure)],
        ),
        (
            "dscl",
            "*) echo 'GroupMembership: a'; echo 'PrimaryGroupID: 4711';;",
            vec![("mac.nixbld", Failure)],
        ),
        (
            "launchctl",
            "*machinist.builder.linux) printf '\\tstate = running\\n\\tproperties = keepalive\\n';; *) exit 113;;",
            vec![("mac.launchd", Failure)],
        ),
        (
            "launchctl",
            "*linux-builder) printf '\\tstate = spawn scheduled\\n\\tlast exit code = 78: EX_CONFIG\\n';; *) exit 113;;",
            vec![("mac.conflict", Failure)],
        ),
        (
            "launchctl",
            "*darwin-vz-nix) printf '\\tstate = running\\n\\tproperties = keepalive\\n';; *bootpd) printf '\\tstate = not running\\n\\tlast terminating signal = Killed: 9\\n';; *) exit 113;;",
            vec![("mac.conflict", Warning), ("mac.net", Warning)],
        ),
    ] {
        assert_eq!(
            bad(&[(program, cases)], &[]),
            expected,
            "{program}: {cases}"
        );
    }
}

/// Seed 003's company: an ssh_config without the line that its builder needs.
#[test]
fn what_files_can_say() {
    let conf = "/etc/ssh/ssh_config.d/100-linux-builder.conf";
    let found = bad(
        &[],
        &[
            (conf, ""),
            ("/etc/ssh/ssh_config", "Host *\n  SendEnv LANG\n"),
        ],
    );
    assert_eq!(found, [("mac.sshinclude", Level::Failure)]);
    let moved = "/etc/nix/nix.custom.conf.before-nix-darwin";
    assert_eq!(bad(&[], &[(moved, "")]), [("mac.flavour", Level::Warning)]);
    let purged = bad(&[], &[("/tmp/b/linux/builder.json", "{}")]);
    assert_eq!(purged, [("mac.tmp", Level::Failure)]);
}

/// A firewall in the way of the DHCP server, which only some builders of others need.
#[test]
fn a_firewall_that_a_company_manages() {
    let programs = [
        (
            "launchctl",
            "*darwin-vz-nix) printf '\\tstate = running\\n';; *) exit 113;;",
        ),
        (
            "socketfilterfw",
            "*state) echo 'Firewall is enabled. (State = 1)';; *) echo 'Incoming connection to the application is blocked';;",
        ),
        (
            "profiles",
            "*) echo 'Enrolled via DEP: No'; echo 'MDM enrollment: Yes (User Approved)';;",
        ),
    ];
    let found = examine(&programs, &[]);
    let net: Vec<_> = found.iter().filter(|it| it.id == "mac.net").collect();
    assert!(net[0].mend[0].contains("managed"), "{net:?}");
    assert!(Path::new(&net[0].looked_at).is_relative());
    assert_eq!(
        bad(&programs[1..], &[]),
        [],
        "who needs no NAT is not told of it"
    );
}
