//! The corpus: what was tried with the build hook of Nix 2.34.8, and what it made of it. `tests/nix`
//! gives the same texts to a real one (`corpus.txt` is read by both).

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io;
use std::path::Path;

use proptest::prelude::*;

use super::*;

/// Texts, each after a line `== NAME`, and what becomes of them, each line after `-> `.
const CORPUS: &str = include_str!("corpus.txt");

/// The files that the corpus includes.
#[derive(Debug)]
struct CorpusFiles;

impl Files for CorpusFiles {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        // The build hook is in the root directory.
        match Path::new("/").join(path).to_str() {
            Some("/corpus/two") => Ok(b"ssh://one\nssh://two\n".into()),
            Some("/corpus/nested") => Ok(b"@/corpus/two\nssh://three".into()),
            Some("/corpus/with blank") => Ok(b"ssh://blank".into()),
            Some("/etc") => Err(io::ErrorKind::IsADirectory.into()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

/// What becomes of a text, as the corpus has it.
fn outcome(text: &str) -> String {
    let machines = match parse(text, "corpus", "x86_64-linux", &CorpusFiles) {
        Ok(machines) => machines,
        Err(_) => return "-> FATAL\n".to_owned(),
    };
    let join = |set: &BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>().join(", ");
    let mut said = String::new();
    for Listed { machine, .. } in machines {
        _ = writeln!(
            said,
            "-> {} ([{}], {}, [{}], [{}])",
            machine.uri,
            join(&machine.systems),
            machine.max_jobs,
            join(&machine.features),
            join(&machine.mandatory),
        );
    }
    if said.is_empty() {
        said.push_str("-> none\n");
    }
    said
}

/// The cases: name, text, outcome. `␍` and `␉` stand for what an editor would not keep.
fn cases() -> Vec<(String, String, String)> {
    let mut cases: Vec<(String, String, String)> = Vec::new();
    for line in CORPUS.lines() {
        if let Some(name) = line.strip_prefix("== ") {
            cases.push((name.to_owned(), String::new(), String::new()));
        } else if let Some((_, text, expected)) = cases.last_mut() {
            if line.starts_with("-> ") {
                _ = writeln!(expected, "{line}");
            } else {
                _ = writeln!(text, "{line}");
            }
        }
    }
    for (_, text, _) in &mut cases {
        *text = text.replace('␍', "\r").replace('␉', "\t");
    }
    cases
}

#[test]
fn the_corpus() {
    assert!(cases().len() > 60);
    let mut wrong = String::new();
    for (name, text, expected) in cases() {
        let said = outcome(&text);
        if said != expected {
            _ = writeln!(wrong, "{name}:\n{text}expected\n{expected}but\n{said}");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn fields_that_nix_does_not_show() {
    let machine = |entry| Machine::parse(entry, "x86_64-linux").unwrap();
    let odd = machine("h x86_64-linux, aarch64-linux - 4");
    assert_eq!(odd.ssh_key.as_deref(), Some("aarch64-linux"));
    assert_eq!((odd.max_jobs, odd.speed), (1, 4.0));
    assert_eq!(machine("h - - 4 0").speed, 1.0);
    assert_eq!(
        machine("h - - - - - - c3No MjU1").host_key.as_deref(),
        Some("c3No")
    );
}

fn lints(text: &str) -> Vec<LintKind> {
    let expanded = expand(text, "m", &CorpusFiles).unwrap();
    let machines = parse(text, "m", "x86_64-linux", &CorpusFiles).unwrap();
    let lints = lint(&expanded, &machines);
    lints.into_iter().map(|lint| lint.kind).collect()
}

/// Base64 of `ssh-ed25519 AAAA... root@nixos`, as nix-darwin writes it.
const KEY: &str = "c3NoLWVkMjU1MTkgQUFBQUMzTnphQzFsWkRJMU5URTVBQUFBSUpCV2N4Yi9CbGFxdDFhdU90RStGOFFVV3JVb3RpQzVxQkorVXVFV2RWQ2Igcm9vdEBuaXhvcwo=";

#[test]
fn nothing_is_said_of_what_is_meant() {
    let long = format!("ssh-ng://builder@linux-builder aarch64-linux /etc/nix/key 4 1 kvm - {KEY}");
    assert_eq!(lints(&long), []);
    assert_eq!(
        lints(
            "ssh-ng://localhost?remote-program=/usr/bin/machinist%20connect%20b x86_64-linux - 4 1 kvm - -"
        ),
        []
    );
}

#[test]
fn what_nobody_meant_is_found() {
    use LintKind::*;
    let place = |line| Place {
        origin: "m".into(),
        line,
    };
    for (text, expected) in [
        ("@/missing", vec![MissingFile("/missing".into())]),
        (
            "h x86_64-linux, aarch64-linux - 4",
            vec![KeyIsSystem("aarch64-linux".into())],
        ),
        ("h - key", vec![RelativeKey("key".into())]),
        ("h - - 0", vec![NoSlots]),
        ("h - - 1 nan", vec![Speed]),
        ("h - - 1 inf", vec![Speed]),
        (
            "h - '/key' 1",
            vec![RelativeKey("'/key'".into()), Quotes("'/key'".into())],
        ),
        ("h\nssh://h", vec![Duplicate(place(1))]),
        (
            "ssh://builder@linux-builder x /k\nssh://b@other x /k\nssh://b@localhost:31022 x,y /k",
            vec![UserAtLocalhost, TwoOfThisHost(place(1))],
        ),
        (
            "ssh://b@linux-builder x /k\nssh://b@rosetta-builder y /k",
            vec![],
        ),
        ("localhost", vec![BareLocalhost]),
        ("ssh-ng://builder@localhost:31022", vec![UserAtLocalhost]),
        ("unix:///s.sock", vec![UnixSocket]),
        ("ssh://ssh://builder@host", vec![TwoSchemes]),
        ("h - - 1 1 - - c3NoLWVk", vec![HostKey]),
        (
            "h - - 1 1 - - AAAAC3NzaC1lZDI1NTE5AAAAIJBWcxbBlaqt1auOtEF8QUWrUotiC5qBJUuEWdVCb",
            vec![HostKey],
        ),
        ("c3NoLWVkMjU1MTkgQUFBQUMzTnphQzFsWk==", vec![WrappedKey]),
    ] {
        assert_eq!(lints(text), expected, "{text}");
    }
    let cut = &KEY[..100];
    assert_eq!(lints(&format!("h - - 1 1 - - {cut}")), [HostKey]);
    let long = format!("ssh-ng://localhost?remote-program=/{}", "x".repeat(240));
    assert_eq!(lints(&long), [TooLong(277)]);
}

#[test]
fn who_takes_a_build() {
    let machine = Machine::parse("h x86_64-linux - 4 1 kvm nixos-test", "s").unwrap();
    let features = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(
        machine.refuses("x86_64-linux", &features(&["nixos-test"])),
        None
    );
    assert_eq!(
        machine.refuses("x86_64-linux", &features(&["kvm"])),
        Some(Refusal::Mandatory(vec!["nixos-test".into()]))
    );
    assert_eq!(
        machine.refuses("x86_64-linux", &features(&["nixos-test", "uid-range"])),
        Some(Refusal::Lacks(vec!["uid-range".into()]))
    );
    assert_eq!(
        machine.refuses("aarch64-linux", &features(&[])),
        Some(Refusal::System)
    );
}

proptest! {
    /// Whatever is written there, it is read or refused.
    #[test]
    fn nothing_panics(text in "[ -~\t\r\n\u{feff}ä]{0,200}") {
        drop(parse(&text, "t", "s", &CorpusFiles));
    }

    #[test]
    fn nothing_panics_near_the_grammar(
        text in r"(ssh|ssh-ng|auto|unix|file|x\+file|)(://|:|)([a-z@:/\[\]%0-9.?=&#;-]{0,40})( [a-z0-9_,-]{1,12}){0,8}"
    ) {
        drop(parse(&text, "t", "s", &CorpusFiles));
    }

    /// The entry of a machine is that machine again.
    #[test]
    fn entries_are_read_back(
        host in "[a-z][a-z0-9.-]{0,20}",
        program in "/[ -~ä]{1,60}",
        systems in prop::collection::btree_set("[a-z0-9_]{1,8}-linux", 1..4),
        jobs in any::<u32>(),
        speed in 0.001f32..1e6,
        features in prop::collection::btree_set("[a-z][a-z-]{0,11}", 0..4),
    ) {
        let machine = Machine {
            uri: StoreUri::new("ssh-ng", &host, &[("remote-program", &program)]),
            systems,
            ssh_key: None,
            max_jobs: jobs,
            speed,
            features: features.clone(),
            mandatory: features,
            host_key: None,
        };
        let entry = machine.entry();
        // What has a meaning outside of words is not to be seen in it.
        prop_assert!(!entry.contains(['#', ';', '\n']));
        let listed = parse(&entry, "t", "s", &CorpusFiles).unwrap();
        prop_assert_eq!(listed.len(), 1);
        prop_assert_eq!(&listed[0].machine, &machine);
    }
}
