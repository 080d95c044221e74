//! What a lab needs of the host, looked at before anything is built or booted, so that a missing
//! program is one clear line and not a failure in the middle.

use std::collections::BTreeSet;

use machinist_image::{AddedFile, ImageSpec, Store};
use machinist_lab::{Body, Image, Machine, RunsAs, Source, Test};
use machinist_machine::devices::{self, Places};
use machinist_session::devices_asked;

use crate::environment::Environment;
use crate::error::CliError;

/// Something that a lab needs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// A cache of our own, which cannot be had for this reason; and what helps.
    Cache(String, Vec<String>),
    /// That containers can run, which they cannot, for this reason.
    Containers(String),
    /// The VMM.
    Qemu,
    /// What runs containers.
    Nspawn,
    /// A machine's devices, which cannot be had for this reason.
    Devices(String),
    /// What runs scripts.
    Python,
    /// The Debian image of this name, or what builds it.
    Debian(String),
    /// The disk of this name, or what builds it.
    Disk(String),
}

/// A program that meets a need.
struct Program {
    name: &'static str,
    purpose: &'static str,
    package: &'static str,
}

impl Need {
    /// What is missing and what helps, if the host lacks it.
    fn missing(&self, environment: &Environment) -> Option<(String, Vec<String>)> {
        if let Self::Cache(why, hints) = self {
            return Some((why.clone(), hints.clone()));
        }
        if let Self::Containers(why) = self {
            let remedies = environment.known_containers().remedies.clone();
            return Some((why.clone(), remedies));
        }
        if let Self::Devices(why) = self {
            let hint = "name devices that this host has: /dev/..., or those of its CDI files";
            return Some((why.clone(), vec![hint.to_owned()]));
        }
        let program = self.program()?;
        if environment.find_program(program.name).is_some() || self.is_cached(environment) {
            return None;
        }
        let Program {
            name,
            purpose,
            package,
        } = program;
        let message = format!("{name}, which {purpose}, is not in PATH");
        Some((message, vec![format!("install the package {package}")]))
    }

    fn program(&self) -> Option<Program> {
        let (name, purpose, package) = match self {
            Self::Cache(..) | Self::Containers(_) | Self::Devices(_) => return None,
            Self::Qemu => (
                "qemu-system-x86_64",
                "runs VMs",
                "qemu-system-x86 (on Debian 12 from bookworm-backports)",
            ),
            Self::Nspawn => ("systemd-nspawn", "runs containers", "systemd-container"),
            Self::Python => ("python3", "runs test scripts", "python3"),
            Self::Debian(_) => ("mmdebstrap", "builds Debian images", "mmdebstrap"),
            Self::Disk(_) => ("mkfs.erofs", "builds the disks of VMs", "erofs-utils"),
        };
        Some(Program {
            name,
            purpose,
            package,
        })
    }

    /// Whether nothing has to be built, as far as names can tell.
    fn is_cached(&self, environment: &Environment) -> bool {
        let (Self::Debian(wanted) | Self::Disk(wanted)) = self else {
            return false;
        };
        if !environment.images.is_dir() {
            return false;
        }
        // Looking needs no agent.
        let entries = Store::open(&environment.images, &[]).and_then(|store| store.list());
        entries.is_ok_and(|entries| entries.iter().any(|entry| entry.name == *wanted))
    }
}

/// What a test needs.
pub fn of_test<'a>(
    machines: impl Iterator<Item = &'a Machine>,
    test: &Test,
    environment: &Environment,
) -> BTreeSet<Need> {
    let mut needs = of_machines(machines, environment);
    if matches!(test.body, Body::Script(_)) {
        needs.insert(Need::Python);
    }
    needs
}

/// What machines need here. The first call has to come before this process makes threads: see
/// [`crate::containers`].
pub fn of_machines<'a>(
    machines: impl Iterator<Item = &'a Machine>,
    environment: &Environment,
) -> BTreeSet<Need> {
    let machines: Vec<&Machine> = machines.collect();
    let limits = &environment.containers(machines.iter().copied()).limits;
    let mut needs = BTreeSet::new();
    if let Err(error) = environment.cache.look() {
        needs.insert(Need::Cache(error.to_string(), error.hints()));
    }
    for machine in machines {
        let image = image_name(&machine.image);
        if let Some(name) = &image {
            needs.insert(Need::Debian(name.clone()));
        }
        match machine.resolve_here(limits).0 {
            RunsAs::Vm => {
                needs.insert(Need::Qemu);
                needs.extend(image.map(|name| Need::Disk(format!("disk of {name}"))));
            }
            RunsAs::Container => {
                needs.insert(Need::Nspawn);
                needs.extend(
                    limits
                        .against(machine)
                        .map(|why| Need::Containers(why.into())),
                );
                needs.extend(lacking_devices(machine, environment));
            }
        }
    }
    needs
}

/// A device of the host that the machine asks for in vain.
fn lacking_devices(machine: &Machine, environment: &Environment) -> Option<Need> {
    let places = Places {
        cdi: &environment.cdi,
        search: &environment.search,
    };
    let found = devices::find(&devices_asked(machine), places);
    let why = found.err()?;
    Some(Need::Devices(format!("{}: {why}", machine.name)))
}

/// What the cache calls a Debian image.
fn image_name(image: &Image) -> Option<String> {
    let Source::Debian { suite } = &image.source else {
        return None;
    };
    let packages: Vec<&str> = image.packages.iter().map(String::as_str).collect();
    let mut spec = ImageSpec::debian(suite, &packages);
    // The name tells how many files there are, not which.
    spec.files = image.files.keys().map(|path| empty(path)).collect();
    Some(spec.to_string())
}

fn empty(path: &str) -> AddedFile {
    AddedFile {
        path: path.into(),
        mode: 0,
        contents: Vec::new(),
    }
}

/// Why the needs cannot be met, each reason as one sentence; empty if all can.
pub fn reasons(needs: &BTreeSet<Need>, environment: &Environment) -> Vec<String> {
    let missing = needs.iter().filter_map(|need| need.missing(environment));
    missing
        .map(|(message, hints)| format!("{message}: {}", hints.join("; ")))
        .collect()
}

/// An error that names everything the host lacks, if it lacks anything; else there is a cache after
/// this.
pub fn check(needs: &BTreeSet<Need>, environment: &Environment) -> Result<(), CliError> {
    let missing: Vec<_> = needs
        .iter()
        .filter_map(|need| need.missing(environment))
        .collect();
    if missing.is_empty() {
        return Ok(environment.cache.check()?);
    }
    let messages: Vec<_> = missing
        .iter()
        .map(|(message, _)| message.as_str())
        .collect();
    let error = CliError::host(messages.join("; "));
    Err(missing
        .into_iter()
        .flat_map(|(_, hints)| hints)
        .fold(error, CliError::hint))
}

#[cfg(test)]
mod tests {
    use machinist_lab::ContainerLimits;

    use super::*;
    use crate::containers::Containers;

    #[test]
    fn what_may_be_either_needs_what_its_kind_here_needs() {
        let text = "[machine.c]\nkind = 'container'\nimage = 'host'\n\
                    [machine.a]\nimage = 'host'\n[machine.v]\nkind = 'vm'\nimage = 'host'\n";
        let lab = machinist_lab::Lab::parse_toml(text, "lab.toml").unwrap();
        let needs = |name: &str, any: Option<&str>| {
            let environment = Environment::read().unwrap();
            let found = Containers {
                limits: ContainerLimits {
                    any: any.map(str::to_owned),
                    host_image: None,
                },
                remedies: vec!["mend it".into()],
            };
            environment.containers.set(found).unwrap();
            let named = |machine: &&Machine| machine.name.to_string() == name;
            let needs = of_machines(lab.machines.iter().filter(named), &environment);
            let told = needs.iter().filter_map(|need| need.missing(&environment));
            let told: Vec<_> = told.filter(|(why, _)| Some(why.as_str()) == any).collect();
            (needs, told.len())
        };
        let (nspawn, qemu) = (Need::Nspawn, Need::Qemu);
        assert_eq!(needs("c", None), (BTreeSet::from([nspawn.clone()]), 0));
        assert_eq!(needs("a", None), (BTreeSet::from([nspawn.clone()]), 0));
        assert_eq!(needs("v", None), (BTreeSet::from([qemu.clone()]), 0));
        assert_eq!(needs("a", Some("no")), (BTreeSet::from([qemu.clone()]), 0));
        let both = BTreeSet::from([Need::Containers("no".into()), nspawn]);
        assert_eq!(needs("c", Some("no")), (both, 1));
        assert_eq!(needs("v", Some("no")), (BTreeSet::from([qemu]), 0));
    }
}
