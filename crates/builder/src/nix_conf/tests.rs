use std::fs;

use super::*;

/// A configuration of these files, in `/etc/nix` of a host of their own.
fn read(files: &[(&str, &str)]) -> Result<NixConf, NixConfError> {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("etc/nix");
    fs::create_dir_all(&directory).unwrap();
    for (name, text) in files {
        fs::write(directory.join(name), text).unwrap();
    }
    NixConf::read(Path::new(DIRECTORY), &HostFiles::below(root.path()))
}

fn place(file: &str, line: usize) -> Place {
    Place {
        origin: format!("/etc/nix/{file}"),
        line,
    }
}

#[test]
fn the_last_assignment_counts() {
    let conf = read(&[("nix.conf", "a = 1\n a   =  2   3 # 4\nb =\n")]).unwrap();
    let a = conf.get("a").unwrap();
    assert_eq!(
        (a.value.as_str(), a.by),
        ("2 3", vec![place("nix.conf", 2)])
    );
    assert_eq!(conf.get("b").unwrap().value, "");
    assert_eq!(conf.get("c"), None);
    assert_eq!(read(&[]).unwrap(), NixConf::default());
}

/// Determinate's: what it includes at its end replaces what it has.
#[test]
fn where_a_file_is_included_decides() {
    let custom = ("nix.custom.conf", "builders = \n");
    let before = read(&[
        ("nix.conf", "!include nix.custom.conf\nbuilders = x\n"),
        custom,
    ])
    .unwrap();
    let after = read(&[
        ("nix.conf", "builders = x\n!include nix.custom.conf\n"),
        custom,
    ])
    .unwrap();
    let directory = Path::new(DIRECTORY);
    assert_eq!(
        before.builders(directory),
        ("x".into(), Some(place("nix.conf", 2)))
    );
    assert_eq!(
        after.builders(directory),
        (String::new(), Some(place("nix.custom.conf", 1)))
    );
    let none = read(&[("nix.conf", "extra-builders = @/x\n")]).unwrap();
    assert_eq!(
        none.builders(directory),
        ("@/etc/nix/machines".into(), None)
    );
}

#[test]
fn what_is_added_before_it_is_set_is_lost() {
    let conf = read(&[(
        "nix.conf",
        "extra-system-features = a\nsystem-features = b\nextra-system-features = c d\n",
    )])
    .unwrap();
    let features = conf.get("system-features").unwrap();
    assert_eq!(features.value, "b c d");
    assert_eq!(features.by, [place("nix.conf", 2), place("nix.conf", 3)]);
    let lost = conf.lost("system-features");
    assert_eq!(lost.len(), 1);
    assert_eq!(lost[0].place, place("nix.conf", 1));
    let added = read(&[("nix.conf", "extra-system-features = a\n")]).unwrap();
    assert_eq!(added.words("system-features", &["kvm"]), ["kvm", "a"]);
    assert_eq!(conf.words("system-features", &["kvm"]), ["b", "c", "d"]);
    assert!(added.lost("system-features").is_empty());
}

#[test]
fn flags() {
    let conf = read(&[("nix.conf", "a = yes\nb = 0\nc = relaxed\n")]).unwrap();
    let flag = |name| conf.flag(name);
    assert_eq!(
        [flag("a"), flag("b"), flag("c"), flag("d")],
        [Some(true), Some(false), None, None]
    );
}

#[test]
fn what_keeps_nix_from_starting() {
    let error = |text| read(&[("nix.conf", text)]).unwrap_err().to_string();
    assert_eq!(
        error("\nsandbox=true\n"),
        "/etc/nix/nix.conf:2: this sets nothing, for want of ' = ': sandbox=true"
    );
    assert_eq!(
        error("include missing.conf\n"),
        "/etc/nix/nix.conf:1: /etc/nix/missing.conf, which is included, is not there"
    );
    assert!(error("!include nix.conf").contains("includes itself"));
    assert!(error("include a b").contains("sets nothing"));
    assert!(error("include = x y").contains("sets nothing"));
}
