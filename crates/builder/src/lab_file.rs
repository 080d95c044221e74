//! The lab that a builder's machine is of, as a lab file.

use machinist_lab::{Lab, LabErrors};
use serde_json::{Value, json};

use crate::config::{Config, Kind};
use crate::definition;
use crate::state::State;

/// The store, in the machine.
const STORE: &str = "/nix";

/// The host's network, in a container: a name of the namespace, which its Nix daemon joins. All else in
/// the container has its own, without a way out, as the sandboxes of builds have.
const NETWORK: &str = "/run/machinist-network";

/// The text of the lab file.
pub(crate) fn text(config: &Config, state: &State) -> String {
    let mut machine = json!({
        "kind": config.kind.to_string(),
        "image": "builder",
        "memory": format!("{}M", config.memory >> 20),
        "cpus": config.cores,
        "vlans": [],
    });
    match config.kind {
        Kind::Container => {
            let mut volumes = vec![format!("{}:{STORE}:rw", state.store().display())];
            if config.network {
                // Whoever makes the container has left this namespace by then, so it goes by our number.
                let own = std::process::id();
                volumes.push(format!("/proc/{own}/ns/net:{NETWORK}:ro"));
            }
            machine["volumes"] = json!(volumes);
        }
        Kind::Vm => machine["disks"] = json!([{ "path": state.disk() }]),
    }
    match (&config.system, config.kind) {
        (Some(system), Kind::Vm) => {
            // From there it copies its system into its own store, which then covers it.
            let store = system.store();
            machine["volumes"] = json!([format!("{}:{STORE}/store:ro", store.display())]);
        }
        (Some(_), Kind::Container) | (None, Kind::Container) => {}
        (None, Kind::Vm) => {
            // It is saved when it lacks nothing but its store.
            let words = definition::arguments(config).map(|word| format!("'{word}'"));
            let words = words.join(" ");
            machine["ready"] = json!(format!(
                "command:[ -e /run/machinist-warm ] || /usr/lib/machinist/warm {words} 2> /dev/console"
            ));
        }
    }
    let image = match &config.system {
        Some(system) => {
            let root = system.machine_root(state);
            json!({ "source": format!("dir:{}", root.display()) })
        }
        None => definition::image(),
    };
    let lab = json!({
        "image": { "builder": image },
        "machine": { config.name.clone(): machine },
    });
    pretty(&lab)
}

/// The lab.
///
/// # Errors
/// A path in it is none that a lab file can have.
pub(crate) fn lab(text: &str) -> Result<Lab, LabErrors> {
    Lab::parse_json(text, "lab.json")
}

fn pretty(value: &Value) -> String {
    // It has alternative form: many lines.
    format!("{value:#}\n")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use machinist_lab::RunsAs;

    use super::*;
    use crate::config::{self, Options};

    #[test]
    fn both_kinds_make_a_lab() {
        for (kind, runs_as) in [(Kind::Container, RunsAs::Container), (Kind::Vm, RunsAs::Vm)] {
            let options = Options {
                kind: Some(kind),
                ..Options::default()
            };
            let config = config::tests::config("linux", &options);
            let state = State::of(Path::new("/var/lib/machinist/builders"), "linux");
            let lab = lab(&text(&config, &state)).unwrap();
            let machine = lab.machine("linux").unwrap();
            assert_eq!(machine.resolve().0, runs_as);
            assert_eq!((machine.cpus, machine.memory.0), (2, 4 << 30));
            assert!(machine.vlans.is_empty());
            assert_eq!(machine.image.packages.len(), 4);
            let networks = machine
                .volumes
                .iter()
                .filter(|it| it.target.starts_with(NETWORK));
            assert_eq!(networks.count(), usize::from(kind == Kind::Container));
            let without = Config {
                network: false,
                ..config
            };
            let lab = super::lab(&text(&without, &state)).unwrap();
            let machine = lab.machine("linux").unwrap();
            let stores = machine.volumes.len() + machine.disks.len();
            assert_eq!(stores, 1);
        }
    }
}
