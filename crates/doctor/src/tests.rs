//! Failures made on purpose, on hosts that are directories. Those that need a real Nix are in
//! `tests/tests/nix/doctor.rs`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use machinist_builder::nix_conf::Process;
use machinist_builder::registration::NixHost;
use tempfile::TempDir;

use super::*;

mod mac;

/// A host with these files, and with no program at all.
struct Fixture {
    root: TempDir,
}

impl Fixture {
    fn new(files: &[(&str, &str)]) -> Self {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path.trim_start_matches('/'));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Self { root }
    }

    fn host(&self) -> Host {
        let mut nix = NixHost::below(self.root.path().to_str().unwrap());
        nix.system = "x86_64-linux".into();
        Host {
            nix,
            search: "/no/programs".into(),
            scratch: self.root.path().to_owned(),
            known: Known::default(),
        }
    }

    fn examine(&self) -> Vec<Finding> {
        let host = self.host();
        let conf = host.nix.conf();
        let mut found = checks::nix::check(&host, conf.as_ref());
        if let Ok(conf) = &conf {
            found.extend(checks::machines::check(&host, conf));
            found.extend(checks::external::check(&host, conf));
            found.extend(checks::takers::check(&host, conf));
            found.extend(checks::linux::check(&host, conf));
        }
        found
    }

    /// What a check has found that is not fine.
    fn bad(&self, id: &str) -> Vec<Finding> {
        let mut found = self.examine();
        found.retain(|it| it.id == id && it.level >= Level::Warning);
        for it in &found {
            // Whatever is wrong, why it matters and what helps are said.
            assert!(!it.why.is_empty() && !it.mend.is_empty(), "{it:?}");
        }
        found
    }
}

const KEY: &str = "c3NoLWVkMjU1MTkgQUFBQUMzTnphQzFsWkRJMU5URTVBQUFBSUpCV2N4Yi9CbGFxdDFhdU90RStGOFFVV3JVb3RpQzVxQkorVXVFV2RWQ2Igcm9vdEBuaXhvcwo=";

#[test]
fn builders_that_somebody_has_emptied() {
    let host = Fixture::new(&[
        ("/etc/nix/nix.conf", "!include nix.custom.conf\n"),
        ("/etc/nix/nix.custom.conf", "builders =\n"),
        (
            "/etc/nix/machines",
            "ssh-ng://localhost?remote-program=/x\n",
        ),
    ]);
    let found = host.bad("builders.effective");
    assert_eq!(found[0].level, Level::Failure);
    assert!(found[0].looked_at.contains("/etc/nix/nix.custom.conf:1"));
    assert!(found[0].mend[0].contains("builders = @/etc/nix/machines"));
    let elsewhere = Fixture::new(&[
        ("/etc/nix/nix.conf", "builders = @/etc/other\n"),
        ("/etc/nix/machines", ""),
    ]);
    assert_eq!(elsewhere.bad("builders.effective")[0].level, Level::Warning);
}

#[test]
fn a_line_that_ends_all_builds() {
    let host = Fixture::new(&[("/etc/nix/machines", "ssh://a\nssh://b - - many\n")]);
    let found = host.bad("machines.parse");
    assert_eq!(found.len(), 1);
    assert!(
        found[0].found.contains("/etc/nix/machines:2: column 3"),
        "{found:?}"
    );
}

/// The machines of seed 003, as its author had them.
#[test]
fn two_machines_for_one_builder() {
    let text = format!(
        "ssh://builder@linux-builder aarch64-linux,x86_64-linux /etc/nix/builder_ed25519 1 1 kvm,benchmark,big-parallel - {KEY}\n\
         ssh://builder@localhost aarch64-linux,x86_64-linux /etc/nix/builder_ed25519 1 1 benchmark,big-parallel,kvm - -\n"
    );
    let host = Fixture::new(&[
        ("/etc/nix/machines", &text),
        ("/etc/nix/builder_ed25519", "key"),
    ]);
    let lints = host.bad("machines.lint");
    assert_eq!(lints.len(), 2);
    assert!(lints[0].found.contains("USER@localhost"));
    assert!(lints[1].found.contains("nix.buildMachines adds"));
    // And a test finds no machine, nor would one with user ids.
    assert_eq!(host.bad("tests.takers").len(), 0, "this host itself");
}

/// A Mac without machines, in seed 003's words: "a 'x86_64-linux' with features {} is required".
#[test]
fn nobody_builds_for_linux() {
    let fixture = Fixture::new(&[]);
    let mut host = fixture.host();
    host.nix.system = "aarch64-darwin".into();
    let found = checks::takers::check(&host, &host.nix.conf().unwrap());
    assert_eq!(found.len(), 3);
    assert!(found.iter().all(|it| it.level == Level::Warning));
    assert!(found[0].why.contains("with features {} is required"));
}

/// An activation script that writes over what a module makes.
#[test]
fn a_file_in_the_place_of_a_modules() {
    let host = Fixture::new(&[
        ("/etc/nix/machines", "ssh://a\n"),
        ("/etc/static/nix/machines", "ssh://b\n"),
    ]);
    let found = host.bad("machines.owner");
    assert!(found[0].why.contains("next activation"), "{found:?}");
}

fn client(name: &str, value: &str) -> Process {
    Process {
        name: "your environment".into(),
        environment: [(name.to_owned(), value.to_owned())].into(),
        ..Process::default()
    }
}

/// Options of ssh that only the user's shell has.
#[test]
fn options_that_the_daemon_does_not_see() {
    let fixture = Fixture::new(&[("/etc/nix/machines", "ssh://u@h\n")]);
    let mut host = fixture.host();
    let conf = host.nix.conf().unwrap();
    let found = |host: &Host| {
        let mut found = checks::ssh::check(host, &conf);
        found.retain(|it| it.looked_at.contains("NIX_SSHOPTS"));
        found.pop()
    };
    assert_eq!(found(&host), None);
    host.nix.client = Some(client("NIX_SSHOPTS", "-o StrictHostKeyChecking=no"));
    let warned = found(&host).unwrap();
    assert_eq!(warned.level, Level::Warning);
    assert!(warned.mend[1].contains("Environment="), "{warned:?}");
    host.nix.builds = client("NIX_SSHOPTS", "-v");
    assert_eq!(found(&host).unwrap().level, Level::Fine);
}

#[test]
fn builders_that_no_file_sets() {
    let fixture = Fixture::new(&[("/etc/nix/machines", "ssh://a\n")]);
    let mut host = fixture.host();
    host.nix.builds = client("NIX_CONFIG", "builders =");
    "the daemon".clone_into(&mut host.nix.builds.name);
    let check = |host: &Host| checks::machines::check(host, &host.nix.conf().unwrap());
    let found = check(&host);
    assert_eq!(found[0].level, Level::Failure);
    assert!(
        found[0].looked_at.contains("NIX_CONFIG of the daemon"),
        "{found:?}"
    );
    assert!(found[0].mend[0].contains("systemctl edit nix-daemon"));
    host.nix.builds = client("NIX_REMOTE_SYSTEMS", "/etc/other");
    assert_eq!(
        check(&host)[0].found,
        "@/etc/other, without @/etc/nix/machines"
    );
    // What a user asks for, anybody may.
    host.nix.builds = Process::default();
    host.nix.client = Some(client("NIX_CONFIG", "builders ="));
    let found = check(&host);
    assert_eq!(
        (found[0].level, found[1].level),
        (Level::Fine, Level::Failure)
    );
    assert_eq!(found[1].id, "builders.asked");
}

#[test]
fn an_external_builder_takes_tests_and_no_containers() {
    let host = Fixture::new(&[(
        "/etc/nix/nix.conf",
        "experimental-features = external-builders\nexternal-builders = [{\"systems\":[\"x86_64-linux\",\"aarch64-linux\"],\"program\":\"/x\",\"args\":[]}]\n",
    )]);
    let found = host.bad("tests.takers");
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].found.contains("/x cannot have uid-range"));
}

#[test]
fn a_store_that_everybody_may_write_to() {
    let host = Fixture::new(&[("/nix/var/nix/builds/x", "")]);
    let nix = host.root.path().join("nix");
    fs::set_permissions(&nix, fs::Permissions::from_mode(0o1777)).unwrap();
    let found = host.bad("linux.builddir");
    let repair = found[0].repair.as_ref().unwrap();
    assert!(repair.apply().unwrap().starts_with("chmod 1775 "));
    assert!(host.bad("linux.builddir").is_empty());
}

#[test]
fn directories_that_nix_refuses_to_build_in() {
    let host = Fixture::new(&[
        ("/etc/nix/nix.conf", "build-dir = /big/builds\n"),
        ("/big/builds/x", ""),
    ]);
    assert!(host.bad("linux.builddir").is_empty());
    let big = host.root.path().join("big");
    fs::set_permissions(&big, fs::Permissions::from_mode(0o777)).unwrap();
    let found = host.bad("linux.builddir");
    assert_eq!(
        (found[0].looked_at.as_str(), &found[0].repair),
        ("/big", &None)
    );
    fs::set_permissions(&big, fs::Permissions::from_mode(0o755)).unwrap();
    fs::remove_dir_all(big.join("builds")).unwrap();
    std::os::unix::fs::symlink("/elsewhere", big.join("builds")).unwrap();
    assert_eq!(host.bad("linux.builddir")[0].found, "it is a link");
}

#[test]
fn a_key_that_others_can_read() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let host = Fixture::new(&[
        (
            "/etc/nix/machines",
            "ssh://b@h x86_64-linux /etc/nix/key 1\n",
        ),
        ("/etc/nix/key", "key"),
    ]);
    let key = host.root.path().join("etc/nix/key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    let found = host.bad("machines.key");
    assert_eq!(found[0].found, "its rights are 640");
    let repair = found[0].repair.as_ref().unwrap();
    assert!(repair.apply().unwrap().starts_with("chmod 600 "));
    assert!(host.bad("machines.key").is_empty());
    fs::remove_file(key).unwrap();
    assert_eq!(host.bad("machines.key")[0].found, "it is not there");
}

#[test]
fn nobody_takes_a_test() {
    let host = Fixture::new(&[
        ("/etc/nix/nix.conf", "system-features = benchmark\n"),
        (
            "/etc/nix/machines",
            "ssh://a aarch64-linux - 1 1 nixos-test\nssh://b x86_64-linux - 1 1 kvm\nssh://c x86_64-linux - 1 1 nixos-test special\n",
        ),
    ]);
    let found = host.bad("tests.takers");
    assert_eq!(
        found.len(),
        2,
        "for any other build there is this host itself"
    );
    for part in [
        "ssh://a builds for other systems",
        "ssh://b lacks nixos-test",
        "ssh://c takes only builds that ask for special",
        "this host does not offer nixos-test",
    ] {
        assert!(found[0].found.contains(part), "{}", found[0].found);
    }
}

#[test]
fn settings_that_are_lost() {
    let host = Fixture::new(&[(
        "/etc/nix/nix.conf",
        "extra-system-features = uid-range\nsystem-features = kvm\nextra-builders = @/x\n",
    )]);
    let found = host.bad("nix.conf");
    assert!(
        found[0].found.contains("extra-builders is no setting"),
        "{found:?}"
    );
    assert!(
        found[0]
            .found
            .contains("nix.conf:1: extra-system-features is lost")
    );
    let broken = Fixture::new(&[("/etc/nix/nix.conf", "include gone.conf\n")]);
    assert_eq!(broken.bad("nix.conf")[0].level, Level::Failure);
}

#[test]
fn sandbox_paths_that_break_builds_or_files() {
    let host = Fixture::new(&[
        (
            "/etc/nix/nix.conf",
            "sandbox-paths = /gone /perhaps? /bin=/usr/bin /bin/sh=/usr/bin/dash\n",
        ),
        ("/usr/bin/dash", "program"),
    ]);
    let found = host.bad("linux.sandbox-paths");
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        found
            .iter()
            .any(|it| it.looked_at == "/bin/sh" && it.why.contains("ON THIS HOST"))
    );
    assert!(found.iter().any(|it| it.looked_at == "/gone"));
}

#[test]
fn ids_that_are_somebodys() {
    let host = Fixture::new(&[
        ("/etc/nix/nix.conf", "auto-allocate-uids = true\n"),
        (
            "/etc/passwd",
            "root:x:0:0::/:/bin/sh\nodd:x:872415300:1::/:/bin/sh\n",
        ),
    ]);
    assert_eq!(host.bad("linux.uid-clash")[0].found, "odd has 872415300");
}

#[test]
fn a_host_without_what_sandboxes_need() {
    let host = Fixture::new(&[
        ("/proc/sys/user/max_user_namespaces", "0\n"),
        (
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            "1\n",
        ),
    ]);
    for (id, number) in [
        ("nix.version", 1),
        ("linux.userns", 2),
        ("linux.cgroup2", 1),
        ("linux.devpts", 1),
    ] {
        assert_eq!(host.bad(id).len(), number, "{id}");
    }
    let full = Fixture::new(&[
        ("/dev/pts/ptmx", ""),
        ("/proc/sys/kernel/pty/nr", "16\n"),
        ("/proc/sys/kernel/pty/max", "16\n"),
    ]);
    assert!(full.bad("linux.devpts")[0].found.contains("all 16"));
}

#[test]
fn external_builders_that_nix_cannot_read() {
    let host = Fixture::new(&[(
        "/etc/nix/nix.conf",
        "external-builders = [{\"systems\":[\"aarch64-linux\"],\"program\":\"/x\"}]\n",
    )]);
    assert!(host.bad("external.config")[0].found.contains("args"));
}

#[test]
fn a_home_for_builds_goes_if_it_is_empty() {
    let host = Fixture::new(&[("/homeless-shelter/.cache", "")]);
    let found = host.bad("nix.homeless");
    let repair = found[0].repair.as_ref().unwrap();
    assert!(repair.apply().is_err());
    fs::remove_file(host.root.path().join("homeless-shelter/.cache")).unwrap();
    assert!(repair.apply().is_ok());
    assert!(host.bad("nix.homeless").is_empty());
}

#[test]
fn the_worst_counts() {
    let fine = Finding::fine("a.b", "", "");
    let unknown = Finding::unknown("a.b", "", "");
    let warning = Finding::warning("a.b", "", "");
    let failure = Finding::failure("a.b", "", "");
    assert_eq!(worst(&[]), Level::Fine);
    assert_eq!(worst(&[fine.clone(), unknown.clone()]), Level::Fine);
    assert_eq!(worst(&[unknown, warning.clone(), fine]), Level::Warning);
    assert_eq!(worst(&[failure, warning]), Level::Failure);
}
