//! Who would take the builds of tests: by Nix's own rules, without building anything.

use std::collections::BTreeSet;

use machinist_builder::machines_file::{Listed, Refusal};
use machinist_builder::nix_conf::NixConf;

use super::listed;
use crate::finding::Finding;
use crate::host::Host;
use crate::trial::probe_system;

const ID: &str = "tests.takers";

/// What Nix advertises on Linux where nobody says otherwise. `kvm` comes where the device is there.
const USUAL: [&str; 4] = ["nixos-test", "benchmark", "big-parallel", "uid-range"];

/// What is asked for: by any build for Linux, by tests with VMs, by those with containers.
const WANTED: [&[&str]; 3] = [&[], &["nixos-test"], &["nixos-test", "uid-range"]];

pub(crate) fn check(host: &Host, conf: &NixConf) -> Vec<Finding> {
    let machines = listed(host, conf);
    let all = WANTED.iter();
    all.map(|wanted| takers(host, conf, &machines, wanted))
        .collect()
}

fn takers(host: &Host, conf: &NixConf, machines: &[Listed], wanted: &[&str]) -> Finding {
    let system = probe_system();
    let features: BTreeSet<String> = wanted.iter().map(|it| (*it).to_owned()).collect();
    let asks = match wanted {
        [] => "nothing else".to_owned(),
        words => words.join(", "),
    };
    let looked = format!("who takes a build for {system} that asks for {asks}");
    let mut refusals: Vec<String> = Vec::new();
    for listed in machines {
        let machine = &listed.machine;
        match machine.refuses(&system, &features) {
            None => {
                return Finding::fine(
                    ID,
                    &looked,
                    format!("{}, of {}", machine.uri, listed.entry.place),
                );
            }
            Some(refusal) => refusals.push(format!("{} {}", machine.uri, said(&refusal))),
        }
    }
    if let Some(external) = super::external::of_system(conf, &system) {
        if !features.contains("uid-range") {
            let found = format!(
                "the external builder {}, which is asked for no feature",
                external.program
            );
            return Finding::fine(ID, &looked, found);
        }
        refusals.push(format!(
            "the external builder {} cannot have uid-range",
            external.program
        ));
        return nobody(&looked, &refusals, wanted);
    }
    let own = conf.words("system-features", &USUAL);
    let lacks: Vec<&str> = wanted
        .iter()
        .copied()
        .filter(|it| !own.iter().any(|own| own == it))
        .collect();
    if host.nix.system == system && lacks.is_empty() {
        return Finding::fine(ID, &looked, "this host itself");
    }
    refusals.push(match host.nix.system == system {
        true => format!("this host does not offer {}", lacks.join(", ")),
        false => format!("this host builds for {}", host.nix.system),
    });
    nobody(&looked, &refusals, wanted)
}

fn nobody(looked: &str, refusals: &[String], wanted: &[&str]) -> Finding {
    let system = probe_system();
    Finding::warning(ID, looked, format!("nobody: {}", refusals.join("; ")))
        .why(format!(
            "Nix says 'a {system} with features {{{}}} is required'",
            wanted.join(", ")
        ))
        .mend("machinist builder create tests && machinist builder register tests")
}

fn said(refusal: &Refusal) -> String {
    match refusal {
        Refusal::System => "builds for other systems".to_owned(),
        Refusal::Lacks(features) => format!("lacks {}", features.join(", ")),
        Refusal::Mandatory(features) => {
            format!("takes only builds that ask for {}", features.join(", "))
        }
        Refusal::NoSlots => "has no slots".to_owned(),
    }
}
