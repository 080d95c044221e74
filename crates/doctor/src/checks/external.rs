//! Builders that Nix runs as programs (`external-builders`).

use std::path::Path;

use machinist_builder::machines_file::Listed;
use machinist_builder::nix_conf::NixConf;
use serde::Deserialize;

use super::listed;
use crate::finding::Finding;
use crate::host::Host;
use crate::trial::{Trial, broken_promises, probe_system};

/// One of the setting's.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct External {
    pub(super) systems: Vec<String>,
    pub(super) program: String,
    /// Nix does without it as little as we do.
    args: Vec<String>,
}

/// Whether Nix looks at the setting.
fn is_enabled(conf: &NixConf) -> bool {
    let enabled = conf.words("experimental-features", &[]);
    enabled.iter().any(|feature| feature == "external-builders")
}

/// The one that gets builds for a system which no machine takes.
pub(super) fn of_system(conf: &NixConf, system: &str) -> Option<External> {
    let set = conf.get("external-builders").filter(|_| is_enabled(conf))?;
    let externals: Vec<External> = serde_json::from_str(&set.value).ok()?;
    externals
        .into_iter()
        .find(|it| it.systems.iter().any(|it| it == system))
}

pub(crate) fn check(host: &Host, conf: &NixConf) -> Vec<Finding> {
    let Some(set) = conf.get("external-builders") else {
        return Vec::new();
    };
    let places: Vec<String> = set.by.iter().map(ToString::to_string).collect();
    let looked = format!("external-builders, set by {}", places.join(", "));
    let externals: Vec<External> = match serde_json::from_str(&set.value) {
        Ok(externals) => externals,
        Err(error) => {
            return vec![
                Finding::failure("external.config", &looked, error.to_string())
                    .why("Nix and its daemon do not start")
                    .mend("write a JSON list of {\"systems\": [...], \"program\": \"...\", \"args\": []}"),
            ];
        }
    };
    let mut findings = vec![config(host, conf, &externals, &looked)];
    findings.extend(pty(host, conf, &externals, &looked));
    findings.extend(features(host, conf, &looked));
    findings
}

/// What such a builder cannot have, and whether somebody else has it.
fn features(host: &Host, conf: &NixConf, looked: &str) -> Option<Finding> {
    const ID: &str = "external.features";
    let system = probe_system();
    let own = of_system(conf, &system)?;
    let trial = Trial {
        features: ["uid-range".to_owned()].into(),
        entry: None,
    };
    let found = match trial.run(host) {
        Ok(abilities) => match broken_promises(&trial.features, &abilities) {
            broken if broken.is_empty() => {
                return Some(Finding::fine(
                    ID,
                    looked,
                    "a build there was root of 65536 ids",
                ));
            }
            broken => format!(
                "{} took a build that asks for uid-range, and gave it none: {}",
                own.program,
                broken.join("; ")
            ),
        },
        Err(why) => format!("a build that asks for uid-range is refused: {why}"),
    };
    let machines = listed(host, conf);
    let refuses = |it: &Listed| it.machine.refuses(&system, &trial.features).is_some();
    if let Some(taker) = machines.iter().find(|it| !refuses(it)) {
        let uri = &taker.machine.uri;
        return Some(Finding::fine(
            ID,
            looked,
            format!("{found}; {uri} takes such builds"),
        ));
    }
    Some(
        Finding::warning(ID, looked, found)
            .why("tests with containers cannot be built there, whatever the builder's machine can do")
            .mend("machinist builder create tests && machinist builder register tests --mandatory-features uid-range"),
    )
}

fn config(host: &Host, conf: &NixConf, externals: &[External], looked: &str) -> Finding {
    const ID: &str = "external.config";
    if !is_enabled(conf) {
        return Finding::warning(
            ID,
            looked,
            "the experimental feature external-builders is off",
        )
        .why("Nix passes over the setting")
        .mend("extra-experimental-features = external-builders");
    }
    for external in externals {
        if !Path::new(&external.program).is_absolute() || !host.at(&external.program).is_file() {
            return Finding::failure(ID, looked, format!("{} is no program", external.program))
                .why(format!(
                    "all builds for {} fail",
                    external.systems.join(", ")
                ))
                .mend("install it, or take it out of the setting");
        }
        if external.systems.contains(&host.nix.system) {
            return Finding::warning(ID, looked, format!("{} takes all builds for {}", external.program, host.nix.system))
                .why("that is this host's own system: no build runs in its sandbox any more, and features are not looked at")
                .mend(format!("take {} out of its systems", host.nix.system));
        }
    }
    Finding::fine(ID, looked, format!("{} program(s)", externals.len()))
}

/// Whether builds there have terminals, which every NixOS test needs.
fn pty(host: &Host, conf: &NixConf, externals: &[External], looked: &str) -> Option<Finding> {
    const ID: &str = "external.pty";
    let system = probe_system();
    let own = externals.iter().find(|it| it.systems.contains(&system))?;
    let found = match (Trial::default()).run(host) {
        Err(why) => why,
        Ok(abilities) => match abilities.get("pty") {
            Some(Ok(())) => {
                return Some(Finding::fine(ID, looked, "a build there opened a terminal"));
            }
            Some(Err(why)) => format!("a build of {} opens no terminal: {why}", own.program),
            None => return None,
        },
    };
    let wanted = ["nixos-test".to_owned()].into();
    let taken = listed(host, conf)
        .iter()
        .any(|it| it.machine.refuses(&system, &wanted).is_none());
    let finding = match taken {
        true => Finding::warning(ID, looked, found),
        false => Finding::failure(ID, looked, found),
    };
    Some(
        finding
            .why("the driver of NixOS tests fails there with 'out of pty devices'; a test that asks for nixos-test goes there whenever no machine takes it")
            .mend("machinist builder create tests && machinist builder register tests --mandatory-features nixos-test"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_mandatory() {
        let read = |text: &str| serde_json::from_str::<Vec<External>>(text);
        assert!(read(r#"[{"systems":["x"],"program":"/p","args":[]}]"#).is_ok());
        assert!(read(r#"[{"systems":["x"],"program":"/p"}]"#).is_err());
    }
}
