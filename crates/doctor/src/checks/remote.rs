//! Machines, asked: whether they can be reached as the daemon reaches them, and whether they can do what
//! they are said to do. For both one has to be trusted by the daemon.

use machinist_builder::machines_file::{Listed, Machine};
use machinist_builder::nix_conf::NixConf;
use machinist_builder::registration::{self, Way};

use super::ssh::explain;
use super::{is_root, listed};
use crate::finding::Finding;
use crate::host::{BUILD, Host};
use crate::trial::{Trial, broken_promises, probe_system};

pub(crate) fn check(host: &Host, conf: &NixConf) -> Vec<Finding> {
    let machines = listed(host, conf);
    let mut findings = Vec::new();
    if !is_root() && !machines.is_empty() {
        findings.push(Finding::unknown(
            "machines.connect",
            "all machines",
            "only root can connect as the daemon does: run it again with sudo",
        ));
        return findings;
    }
    for machine in &machines {
        let connected = connect(host, machine);
        let reached = connected.level == crate::Level::Fine;
        findings.push(connected);
        if reached {
            findings.extend(features(host, machine));
            findings.extend(super::guest::check(host, machine));
        }
    }
    findings
}

/// The URI as Nix's build hook opens it: with the keys of the entry.
fn opened(machine: &Machine) -> String {
    let mut uri = machine.uri.to_string();
    if machine.uri.is_ssh() {
        let keys = [
            ("ssh-key", &machine.ssh_key),
            ("base64-ssh-public-host-key", &machine.host_key),
        ];
        for (name, value) in keys {
            if let Some(value) = value {
                let before = if uri.contains('?') { '&' } else { '?' };
                let value = value.replace('+', "%2B").replace('=', "%3D");
                uri += &format!("{before}{name}={value}");
            }
        }
    }
    uri
}

fn connect(host: &Host, listed: &Listed) -> Finding {
    const ID: &str = "machines.connect";
    let looked = format!("nix store info --store {}", listed.machine.uri);
    let uri = opened(&listed.machine);
    let arguments = [
        "--extra-experimental-features",
        "nix-command",
        "store",
        "info",
        "--json",
        "--store",
        &uri,
    ];
    let said = match host.ask("nix", arguments, BUILD) {
        Ok(said) => said,
        Err(error) => {
            return Finding::failure(ID, &looked, error.to_string())
                .why("Nix itself waits for ever")
                .mend("look whether the machine runs; machinist builder logs, if it is one of machinist's");
        }
    };
    if !said.success {
        let finding = Finding::failure(ID, &looked, words(&said.stderr));
        return match explain(&said.stderr) {
            Some((why, mend)) => finding.why(why).mend(mend),
            None => finding
                .why("builds that only this machine can do fail; the others go past it after each try")
                .mend(format!("mend the machine, or remove the line {}", listed.entry.place)),
        };
    }
    let info: serde_json::Value = serde_json::from_str(&said.stdout).unwrap_or_default();
    let version = info["version"].as_str().unwrap_or("unknown");
    if info["trusted"] == 0 || info["trusted"] == false {
        return Finding::warning(
            ID,
            &looked,
            format!("Nix {version}, which does not trust us"),
        )
        .why("what was built here, and is signed by nobody, cannot be copied there")
        .mend("write the user to trusted-users in the machine's nix.conf");
    }
    Finding::fine(ID, &looked, format!("Nix {version}"))
}

/// A build there: what it could do, and whether all of it came back.
fn features(host: &Host, listed: &Listed) -> Vec<Finding> {
    const ID: &str = "machines.features";
    let machine = &listed.machine;
    if !machine.systems.contains(&probe_system()) {
        let systems: Vec<&str> = machine.systems.iter().map(String::as_str).collect();
        let why = format!(
            "it builds for {}, and our probe runs on {}",
            systems.join(", "),
            probe_system()
        );
        let unknown = Finding::unknown(ID, &machine.uri.to_string(), why);
        return vec![other_system(host, listed), unknown];
    }
    let features = machine.all_features();
    let claimed: Vec<&str> = features.iter().map(String::as_str).collect();
    let looked = format!("a build on {} with {{{}}}", machine.uri, claimed.join(", "));
    let trial = Trial {
        features: features.clone(),
        entry: Some(machine.entry()),
    };
    let abilities = match trial.run(host) {
        Err(why) => {
            let finding = Finding::failure(ROUND_TRIP, &looked, why).why(MATTERS);
            return vec![finding.mend(format!(
                "name only what the machine has in columns 6 and 7 of {}",
                listed.entry.place
            ))];
        }
        Ok(abilities) => abilities,
    };
    let broken = broken_promises(&features, &abilities);
    let kept = if broken.is_empty() {
        Finding::fine(ID, &looked, "all proven")
    } else {
        Finding::failure(ID, &looked, broken.join("; "))
            .why(MATTERS)
            .mend(format!(
                "take them out of columns 6 and 7 of {}, or mend the machine",
                listed.entry.place
            ))
    };
    let came_back = "its input went there, and both outputs came back";
    vec![Finding::fine(ROUND_TRIP, &looked, came_back), kept]
}

/// What was said of a connection that failed: first the words of whatever Nix runs, then Nix's.
fn words(stderr: &str) -> String {
    /// More than this is no reason but a story.
    const MOST: usize = 4;
    let lines = stderr.lines().map(|line| message(line.trim()));
    let told: Vec<String> = lines
        .filter(|line| !line.is_empty() && !line.starts_with("warning:"))
        .collect();
    match told.as_slice() {
        [] => "it said nothing".to_owned(),
        told => told[told.len().saturating_sub(MOST)..].join("; "),
    }
}

/// A line, or what it says, where it is one of Nix's messages for programs.
fn message(line: &str) -> String {
    let json = line.strip_prefix("@nix ");
    let json = json.and_then(|json| serde_json::from_str::<serde_json::Value>(json).ok());
    match json {
        Some(json) => json["msg"].as_str().unwrap_or_default().to_owned(),
        None => line.to_owned(),
    }
}

const ROUND_TRIP: &str = "machines.roundtrip";
const MATTERS: &str = "builds are sent there for what it is said to have, and fail there";

/// A build by what Nix itself knows how to build, for a machine that our probe does not run on.
fn other_system(host: &Host, listed: &Listed) -> Finding {
    let machine = &listed.machine;
    let system = machine.systems.first().map_or("", String::as_str);
    let looked = format!("a build on {} for {system}", machine.uri);
    let Some(nix_build) = host.program("nix-build") else {
        return Finding::unknown(ROUND_TRIP, &looked, "there is no nix-build");
    };
    let trial = registration::Trial {
        nix_build: &nix_build,
        machine,
        system,
    };
    match trial.run(Way::Entry) {
        Ok(()) => Finding::fine(
            ROUND_TRIP,
            &looked,
            "its input went there, its output came back",
        ),
        Err(error) => Finding::failure(ROUND_TRIP, &looked, error.to_string())
            .why(MATTERS)
            .mend(format!(
                "mend the machine, or remove the line {}",
                listed.entry.place
            )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_a_connection_failed() {
        let said = "warning: x\n@nix {\"action\":\"msg\",\"level\":0,\"msg\":\"there is no builder \\\"gone\\\"\"}\n\nerror: cannot open connection\n";
        assert_eq!(
            words(said),
            "there is no builder \"gone\"; error: cannot open connection"
        );
        assert_eq!(words("\n"), "it said nothing");
    }

    #[test]
    fn keys_are_part_of_what_is_opened() {
        let machine = Machine::parse("ssh-ng://u@h x - 1", "x").unwrap();
        assert_eq!(opened(&machine), "ssh-ng://u@h");
        let machine =
            Machine::parse("ssh-ng://u@h?compress=true x /k 1 1 - - QUE+QQ==", "x").unwrap();
        assert_eq!(
            opened(&machine),
            "ssh-ng://u@h?compress=true&ssh-key=/k&base64-ssh-public-host-key=QUE%2BQQ%3D%3D"
        );
    }
}
