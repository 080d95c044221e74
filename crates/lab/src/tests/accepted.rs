use std::time::Duration;

use proptest::prelude::*;

use super::EVERYTHING;
use crate::{Action, Body, Bytes, Checkpoint, ContainerLimits, Lab, RunsAs};

#[test]
fn everything_is_understood() {
    let lab = Lab::parse_toml(EVERYTHING, "lab.toml").unwrap_or_else(|e| panic!("{}", e.plain()));
    let names: Vec<_> = lab
        .machines
        .iter()
        .map(|m| (m.name.as_str(), m.number))
        .collect();
    assert_eq!(names, [("app-1", 1), ("app-2", 2), ("db", 3)]);
    let app = lab.machine("app-1").unwrap();
    assert_eq!(app.image.packages, ["curl", "jq", "nginx"]);
    assert_eq!(app.image.files.len(), 3);
    assert_eq!((app.memory, app.cpus), (Bytes::mebibytes(512), 2));
    assert_eq!(app.env["A"], "own");
    assert_eq!(app.env["LANG"], "C.UTF-8");
    assert_eq!(app.resolve().0, RunsAs::Container);
    let db = lab.machine("db").unwrap();
    assert_eq!((db.memory, db.cpus), (Bytes::mebibytes(1024), 1));
    assert_eq!(db.resolve().0, RunsAs::Vm);
    assert_eq!((app.snapshot, db.snapshot), (true, false));
    assert_eq!(app.checkpoint, Checkpoint::Restart);
    assert_eq!(db.checkpoint, Checkpoint::Refuse);
    assert_eq!(lab.vlans.len(), 2);
    assert_eq!(lab.images["app"].packages, ["curl", "nginx"]);
    let [steps, script] = &lab.tests[..] else {
        panic!()
    };
    assert_eq!(steps.timeout, Duration::from_secs(5400));
    assert_eq!(script.timeout, Duration::from_secs(90));
    assert_eq!(script.body, Body::Script("tests/failover.py".into()));
    let Body::Steps(steps) = &steps.body else {
        panic!()
    };
    assert_eq!(steps.len(), 5);
    assert_eq!(steps[0].line, 53);
    assert!(matches!(&steps[1].action, Action::Run { status: 3, .. }));
}

#[test]
fn json_is_the_same_lab() {
    let toml: toml::Value = toml::from_str(EVERYTHING).unwrap();
    let json = serde_json::to_string_pretty(&toml).unwrap();
    let mut from_json = Lab::parse_json(&json, "lab.json").unwrap();
    let mut from_toml = Lab::parse_toml(EVERYTHING, "lab.toml").unwrap();
    for lab in [&mut from_json, &mut from_toml] {
        for test in &mut lab.tests {
            if let Body::Steps(steps) = &mut test.body {
                steps.iter_mut().for_each(|step| step.line = 0);
            }
        }
    }
    assert_eq!(from_json, from_toml);
}

#[test]
fn one_machine_is_a_lab() {
    let lab = Lab::parse_toml("machine.web.image = 'host'", "lab.toml").unwrap();
    assert_eq!(lab.machines[0].vlans, [crate::VlanId::DEFAULT]);
    assert!(lab.tests.is_empty());
}

#[test]
fn what_speaks_against_a_snapshot_is_told() {
    let cold = |more: &str| {
        let text = format!("[machine.a]\nkind = 'vm'\nimage = 'dir:x'\n{more}");
        let text = text.replace("'dir:x'\nhost", "'host'");
        Lab::parse_toml(&text, "lab.toml").unwrap().machines[0].cold()
    };
    assert_eq!(cold("host").unwrap(), "its image is this host's own root");
    let sees = cold("volumes = ['x:/x']").unwrap();
    assert_eq!(sees, "it sees a directory of the host");
    assert_eq!(cold(""), None);
    assert_eq!(cold("disks = [{ size = '1G' }]"), None);
    assert_eq!(cold("disks = [{ path = 'x', read_only = true }]"), None);
    let no = cold("snapshot = false").unwrap();
    assert_eq!(no, "the lab file says `snapshot = false`");
    let written = cold("disks = [{ size = '1G' }, { path = 'data.img' }]").unwrap();
    assert_eq!(written, "its disk data.img keeps what is written");
}

#[test]
fn auto_becomes_a_vm_for_disks() {
    let text = "[machine.a]\nimage = 'host'\ndisks = [{ size = '1G' }]";
    let lab = Lab::parse_toml(text, "lab.toml").unwrap();
    let (kind, reason) = lab.machines[0].resolve();
    assert_eq!(
        (kind, reason.as_str()),
        (RunsAs::Vm, "it has disks, which only a VM has")
    );
}

#[test]
fn auto_becomes_a_vm_for_a_kernel_of_its_own() {
    let text = "[machine.a]\nimage = 'debian:bookworm'\npackages = ['linux-image-amd64']";
    let lab = Lab::parse_toml(text, "lab.toml").unwrap();
    let (kind, reason) = lab.machines[0].resolve();
    assert_eq!(kind, RunsAs::Vm);
    assert!(reason.contains("linux-image-amd64"), "{reason}");
}

#[test]
fn what_may_be_either_is_a_vm_where_containers_cannot_run() {
    let text = "[machine.auto]\nimage = 'tar:x'\n[machine.host]\nimage = 'host'\n\
                [machine.fixed]\nkind = 'container'\nimage = 'host'\n\
                [machine.device]\ndevices = ['/dev/fuse']\nimage = 'host'\n";
    let lab = Lab::parse_toml(text, "lab.toml").unwrap();
    let kinds = |limits: &ContainerLimits| -> Vec<(String, RunsAs)> {
        lab.machines
            .iter()
            .map(|machine| (machine.name.to_string(), machine.resolve_here(limits).0))
            .filter(|(_, kind)| *kind == RunsAs::Vm)
            .collect()
    };
    assert_eq!(kinds(&ContainerLimits::default()), []);
    let none = ContainerLimits {
        any: Some("no ids".into()),
        host_image: None,
    };
    assert_eq!(
        kinds(&none),
        [("auto".into(), RunsAs::Vm), ("host".into(), RunsAs::Vm)]
    );
    assert_eq!(lab.machine("auto").unwrap().resolve_here(&none).1, "no ids");
    let no_host = ContainerLimits {
        any: None,
        host_image: Some("its root is root's".into()),
    };
    assert_eq!(kinds(&no_host), [("host".into(), RunsAs::Vm)]);
}

proptest! {
    #[test]
    fn no_text_panics(text in ".*|[\\[\\]{}\"'=,:\\n.a-z0-9]*") {
        for result in [Lab::parse_toml(&text, "x"), Lab::parse_json(&text, "x")] {
            if let Err(errors) = result {
                super::drawn(&errors);
                drop(errors.plain());
            }
        }
    }

    /// A good file with one piece replaced: reaches much deeper than noise does.
    #[test]
    fn no_damage_panics(at in 0..EVERYTHING.len(), length in 0_usize..40, with in "[\\[\\]{}\"'=,0-9a-zäöü:/ \\n-]{0,8}") {
        let text = format!("{}{with}{}", &EVERYTHING[..at], &EVERYTHING[(at + length).min(EVERYTHING.len())..]);
        if let Err(errors) = Lab::parse_toml(&text, "x") {
            prop_assert!(!errors.problems().is_empty());
            super::drawn(&errors);
        }
        let json = serde_json::to_string(&toml::from_str::<toml::Value>(EVERYTHING).unwrap()).unwrap();
        let at = at.min(json.len());
        let text = format!("{}{with}{}", &json[..at], &json[(at + length).min(json.len())..]);
        if let Err(errors) = Lab::parse_json(&text, "x") {
            super::drawn(&errors);
        }
    }
}

#[test]
fn deep_nesting_is_an_error() {
    let text = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(Lab::parse_json(&text, "x").is_err());
    let text = format!("a = {}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(Lab::parse_toml(&text, "x").is_err());
}

/// The first example of each language in the documentation is a whole lab file.
#[test]
fn the_documentation_says_what_works() {
    let docs = include_str!("../../../../docs/lab-file.md");
    let block = |language: &str| {
        let from = docs.find(language).unwrap() + language.len();
        &docs[from..from + docs[from..].find("```").unwrap()]
    };
    let lab = Lab::parse_toml(block("```toml\n"), "lab-file.md").unwrap();
    assert_eq!(lab.tests.len(), 1);
    let lab = Lab::parse_json(block("```json\n"), "lab-file.md").unwrap();
    assert_eq!(lab.tests.len(), 1);
}

#[test]
fn the_quickstart_is_a_lab() {
    let text = include_str!("../../../../examples/quickstart/lab.toml");
    let lab = Lab::parse_toml(text, "lab.toml").unwrap_or_else(|e| panic!("{}", e.plain()));
    assert!(lab.machines.len() > 1);
}
