use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use tempfile::TempDir;

use super::*;
use crate::machines_file::StoreUri;

/// A host with these files in `/etc/nix`.
struct Fixture {
    root: TempDir,
    host: NixHost,
}

impl Fixture {
    fn new(files: &[(&str, &str)]) -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("etc/nix")).unwrap();
        let mut host = NixHost::below(root.path().to_str().unwrap());
        host.system = "x86_64-linux".into();
        let fixture = Self { root, host };
        for (name, text) in files {
            fs::write(fixture.path(name), text).unwrap();
        }
        fixture
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join("etc/nix").join(name)
    }

    fn machines(&self) -> String {
        fs::read_to_string(self.path("machines")).unwrap_or_default()
    }

    fn register(&self, name: &str) -> Result<Registered, RegisterError> {
        register(&self.host, &request(name))
    }

    fn refused(&self, name: &str) -> String {
        let before = self.machines();
        let error = self.register(name).unwrap_err();
        assert_eq!(self.machines(), before);
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(error) = source {
            text += &format!(": {error}");
            source = error.source();
        }
        format!("{text}\n{}", error.mend().join("\n"))
    }
}

fn request(name: &str) -> Request {
    let program = format!("/usr/bin/machinist connect {name}");
    Request {
        name: name.to_owned(),
        machine: Machine {
            uri: StoreUri::new("ssh-ng", "localhost", &[("remote-program", &program)]),
            systems: ["x86_64-linux".to_owned()].into(),
            ssh_key: None,
            max_jobs: 4,
            speed: 1.0,
            features: ["uid-range".to_owned()].into(),
            mandatory: ["nixos-test".to_owned()].into(),
            host_key: None,
        },
        file: None,
    }
}

const LINE: &str = "ssh-ng://localhost?remote-program=/usr/bin/machinist%20connect%20b x86_64-linux - 4 1 uid-range nixos-test -";

#[test]
fn one_block_and_every_other_byte() {
    let foreign = "# mine\r\nssh://other aarch64-linux\nssh://third aarch64-darwin ; # x";
    let fixture = Fixture::new(&[("machines", foreign)]);
    let machines = fixture.path("machines");
    fs::set_permissions(&machines, fs::Permissions::from_mode(0o640)).unwrap();
    let done = fixture.register("b").unwrap();
    assert_eq!((done.change, done.entry.as_str()), (Change::Added, LINE));
    let text = fixture.machines();
    assert!(text.starts_with(foreign) && text.contains(&format!("\n{LINE}\n")));
    assert_eq!(fixture.register("b").unwrap().change, Change::Same);
    assert_eq!(fixture.machines(), text);
    assert_eq!(fixture.register("c").unwrap().change, Change::Added);
    assert_eq!(registered(&fixture.host, None).unwrap(), ["b", "c"]);
    assert!(unregister(&fixture.host, "c", None).unwrap());
    assert!(unregister(&fixture.host, "b", None).unwrap());
    assert!(!unregister(&fixture.host, "b", None).unwrap());
    assert_eq!(fixture.machines(), foreign);
    let mode = fs::metadata(&machines).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    // Nothing is left beside it.
    assert_eq!(fs::read_dir(fixture.path("")).unwrap().count(), 1);
}

#[test]
fn a_nix_without_any_settings() {
    let fixture = Fixture::new(&[]);
    fs::remove_dir(fixture.path("")).unwrap();
    assert!(!unregister(&fixture.host, "b", None).unwrap());
    assert!(!fixture.path("").exists());
    assert_eq!(fixture.register("b").unwrap().change, Change::Added);
    assert!(fixture.machines().contains(LINE));
}

#[test]
fn a_changed_builder_keeps_its_place() {
    let fixture = Fixture::new(&[]);
    fixture.register("b").unwrap();
    fixture.register("c").unwrap();
    let mut other = request("b");
    other.machine.max_jobs = 9;
    let done = register(&fixture.host, &other).unwrap();
    assert_eq!(done.change, Change::Changed);
    assert_eq!(registered(&fixture.host, None).unwrap(), ["b", "c"]);
    assert!(fixture.machines().contains(" 9 1 "));
    // Two that offer the same are shared, and that is said.
    assert!(
        done.remarks[0].contains("connect%20c"),
        "{:?}",
        done.remarks
    );
}

#[test]
fn who_set_builders_is_named() {
    let fixture = Fixture::new(&[
        (
            "nix.conf",
            "builders = @/etc/nix/machines\n!include nix.custom.conf\n",
        ),
        ("nix.custom.conf", "# mine\nbuilders =\n"),
    ]);
    let said = fixture.refused("b");
    assert!(
        said.contains("builders is '' (set by /etc/nix/nix.custom.conf:2)"),
        "{said}"
    );
    assert!(said.contains("builders = @/etc/nix/machines"), "{said}");
}

#[test]
fn a_second_file_that_nix_looks_into() {
    let fixture = Fixture::new(&[(
        "nix.conf",
        "builders = @/etc/nix/machines ; @/etc/machinist/machines\n",
    )]);
    let directory = fixture.root.path().join("etc/machinist");
    fs::create_dir(&directory).unwrap();
    let mut request = request("b");
    request.file = Some("/etc/machinist/machines".into());
    register(&fixture.host, &request).unwrap();
    assert!(
        fs::read_to_string(directory.join("machines"))
            .unwrap()
            .contains(LINE)
    );
    request.file = Some("/etc/other".into());
    let error = register(&fixture.host, &request).unwrap_err();
    assert!(
        matches!(error, RegisterError::NotIncluded { .. }),
        "{error}"
    );
    // What Nix looks into already is not lost by what helps.
    assert!(error.mend()[0].contains(
        "'builders = @/etc/nix/machines ; @/etc/machinist/machines ; @/etc/other' at /etc/nix/nix.conf:1"
    ));
}

#[test]
fn a_file_of_the_store_is_left_alone() {
    let fixture = Fixture::new(&[]);
    let store = fixture.root.path().join("nix/store/abc-etc");
    fs::create_dir_all(&store).unwrap();
    fs::write(store.join("machines"), "").unwrap();
    symlink(store.join("machines"), fixture.path("machines")).unwrap();
    let said = fixture.refused("b");
    assert!(said.contains("made by a module of Nix's"), "{said}");
    assert!(
        said.contains("nix.buildMachines = [ {\n  protocol = \"ssh-ng\";"),
        "{said}"
    );
    assert!(
        said.contains("hostName = \"localhost?remote-program=/usr/bin/machinist%20connect%20b\";")
    );
    let error = unregister(&fixture.host, "b", None).unwrap_err();
    assert!(matches!(error, RegisterError::InStore { .. }));
}

#[test]
fn a_link_elsewhere_stays_one() {
    let fixture = Fixture::new(&[("real", "ssh://a aarch64-linux\n")]);
    symlink("real", fixture.path("machines")).unwrap();
    fixture.register("b").unwrap();
    assert!(fixture.path("machines").is_symlink());
    assert!(
        fs::read_to_string(fixture.path("real"))
            .unwrap()
            .contains(LINE)
    );
    fs::remove_file(fixture.path("real")).unwrap();
    assert!(fixture.refused("b").contains("follow the link"));
}

#[test]
fn what_is_broken_already_is_named() {
    let fixture = Fixture::new(&[("machines", "ssh://fine\n\nssh://h - - four\n")]);
    let said = fixture.refused("b");
    assert!(said.contains("/etc/nix/machines:3: column 3"), "{said}");
    let fixture = Fixture::new(&[("nix.conf", "sandbox\n")]);
    assert!(fixture.refused("b").contains("/etc/nix/nix.conf:1"));
}

#[test]
fn never_twice() {
    let fixture = Fixture::new(&[("machines", LINE)]);
    assert!(
        fixture
            .refused("b")
            .contains("there already, at /etc/nix/machines:1")
    );
}

#[test]
fn words_that_would_be_something_else() {
    let fixture = Fixture::new(&[]);
    for name in ["", "a b", "a;b", "a#b", "-", "a/b"] {
        assert!(fixture.refused(name).contains("cannot stand"), "{name}");
    }
    let mut long = request("b");
    let program = format!("/{}/machinist connect b", "x".repeat(200));
    long.machine.uri = StoreUri::new("ssh-ng", "localhost", &[("remote-program", &program)]);
    let error = register(&fixture.host, &long).unwrap_err();
    assert!(error.to_string().contains("bytes too long"), "{error}");
}

#[test]
fn programs_that_stay() {
    let fixture = Fixture::new(&[]);
    let check = |path: &str| match program(Path::new(path), &fixture.host.files) {
        Err(RegisterError::Program { why, .. }) => why,
        other => format!("{other:?}"),
    };
    assert!(check("machinist").contains("not absolute"));
    assert!(check("/nix/store/x/bin/machinist").contains("garbage"));
    assert!(check("/opt/my tools/machinist").contains("blank"));
    assert!(check("/tmp/machinist").contains("temporary"));
    assert!(check("/etc/nix").contains("no program"));
    assert!(program(Path::new("/bin/sh"), &HostFiles::default()).is_ok());
}

/// Many at once: each block is there, whole, once.
#[test]
fn all_at_once() {
    let fixture = Fixture::new(&[("machines", "ssh://a aarch64-linux\n")]);
    let names: Vec<String> = (0..12).map(|number| format!("b{number}")).collect();
    std::thread::scope(|scope| {
        for name in &names {
            scope.spawn(|| fixture.register(name).unwrap());
        }
    });
    let mut found = registered(&fixture.host, None).unwrap();
    found.sort_unstable();
    let mut expected = names.clone();
    expected.sort_unstable();
    assert_eq!(found, expected);
    for name in &names {
        assert!(unregister(&fixture.host, name, None).unwrap());
    }
    assert_eq!(fixture.machines(), "ssh://a aarch64-linux\n");
}
