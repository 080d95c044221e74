//! What a lab needs of the host, looked at before anything is built or booted, so that a missing
//! program is one clear line and not a failure in the middle.

use std::collections::BTreeSet;

use machinist_lab::{Body, Machine, RunsAs, Test};

use crate::environment::Environment;
use crate::error::CliError;

/// Something that a lab needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// The rights to make namespaces and mounts.
    Root,
    /// The VMM.
    Qemu,
    /// What runs containers.
    Nspawn,
    /// What runs scripts.
    Python,
}

impl Need {
    /// What is missing and what helps, if the host lacks it.
    fn missing(self, environment: &Environment) -> Option<(String, String)> {
        let program = match self {
            Self::Root => {
                let root = rustix::process::geteuid().is_root();
                return (!root).then(|| {
                    let message = "containers need root".to_owned();
                    (message, "run it again with sudo".to_owned())
                });
            }
            Self::Qemu => QEMU,
            Self::Nspawn => "systemd-nspawn",
            Self::Python => "python3",
        };
        let package = match self {
            Self::Root => "",
            Self::Qemu => "qemu-system-x86 (on Debian 12 from bookworm-backports)",
            Self::Nspawn => "systemd-container",
            Self::Python => "python3",
        };
        environment.find_program(program).is_none().then(|| {
            let why = match self {
                Self::Qemu => "which runs VMs",
                Self::Nspawn => "which runs containers",
                Self::Root | Self::Python => "which runs test scripts",
            };
            let message = format!("{program}, {why}, is not in PATH");
            (message, format!("install the package {package}"))
        })
    }
}

const QEMU: &str = "qemu-system-x86_64";

/// What a test needs.
pub fn of_test<'a>(machines: impl Iterator<Item = &'a Machine>, test: &Test) -> BTreeSet<Need> {
    let mut needs = of_machines(machines);
    if matches!(test.body, Body::Script(_)) {
        needs.insert(Need::Python);
    }
    needs
}

/// What machines need.
pub fn of_machines<'a>(machines: impl Iterator<Item = &'a Machine>) -> BTreeSet<Need> {
    let mut needs = BTreeSet::new();
    for machine in machines {
        match machine.resolve().0 {
            RunsAs::Vm => needs.extend([Need::Qemu]),
            RunsAs::Container => needs.extend([Need::Nspawn, Need::Root]),
        }
    }
    needs
}

/// Why the needs cannot be met, each reason as one sentence; empty if all can.
pub fn reasons(needs: &BTreeSet<Need>, environment: &Environment) -> Vec<String> {
    let missing = needs.iter().filter_map(|need| need.missing(environment));
    missing
        .map(|(message, hint)| format!("{message}: {hint}"))
        .collect()
}

/// An error that names everything the host lacks, if it lacks anything.
pub fn check(needs: &BTreeSet<Need>, environment: &Environment) -> Result<(), CliError> {
    let missing: Vec<_> = needs
        .iter()
        .filter_map(|need| need.missing(environment))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let messages: Vec<_> = missing
        .iter()
        .map(|(message, _)| message.as_str())
        .collect();
    let error = CliError::host(messages.join("; "));
    Err(missing
        .into_iter()
        .fold(error, |error, (_, hint)| error.hint(hint)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_containers_need_root() {
        let text = "[machine.c]\nimage = 'host'\n[machine.v]\nkind = 'vm'\nimage = 'host'\n";
        let lab = machinist_lab::Lab::parse_toml(text, "lab.toml").unwrap();
        let needs = |name: &str| {
            let named = |machine: &&Machine| machine.name.to_string() == name;
            of_machines(lab.machines.iter().filter(named))
        };
        assert_eq!(needs("c"), BTreeSet::from([Need::Root, Need::Nspawn]));
        assert_eq!(needs("v"), BTreeSet::from([Need::Qemu]));
    }
}
