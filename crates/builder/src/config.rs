//! What a builder is: the options that it was created with, checked.

use std::fmt;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::time::Duration;

use machinist_lab::MachineName;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::definition;
use crate::idle::IdleTimeout;
use crate::system::{self, System};

/// The format of [`Config`] that this machinist writes. It reads no other.
pub const FORMAT: u32 = 1;

const GIB: u64 = 1 << 30;
/// Processors of a builder, where nobody says; at most the host's.
const CORES: u16 = 4;
/// Memory of a builder, where nobody says; at most half of the host's.
const MEMORY: u64 = 8 * GIB;
/// Its disk, where nobody says. What is not written takes no room.
const DISK: u64 = 100 * GIB;
/// What the snapshots may take, where nobody says.
const SNAPSHOTS: u64 = 20 * GIB;
/// With less memory no Nix builds anything.
const LEAST_MEMORY: u64 = 256 << 20;
/// A smaller disk holds no closure worth a builder.
const LEAST_DISK: u64 = GIB;
const MOST_DISK: u64 = 1 << 46;
const MOST_JOBS: u32 = 1024;
/// The longest name. It is part of a machine line, whose length Nix limits.
const LONGEST_NAME: usize = 32;

/// What runs a builder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A virtual machine.
    Vm,
    /// A container of systemd-nspawn.
    Container,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vm => "vm",
            Self::Container => "container",
        })
    }
}

/// What runs the processors of a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accel {
    /// What the host has.
    #[default]
    Auto,
    /// KVM or an error.
    Kvm,
    /// Emulation.
    Tcg,
}

/// Where a builder finds what it needs. Kept, because whoever starts it later (Nix's daemon, an init
/// system) has another environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Places {
    /// The image cache.
    pub images: PathBuf,
    /// The directory of live sessions.
    pub runtime: PathBuf,
    /// Where programs are looked for, as in `PATH`.
    pub search: PathBuf,
    /// The snapshots of VMs; beside the images, where nobody says.
    #[serde(default)]
    pub snapshots: Option<Snapshots>,
}

/// The snapshots of VMs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshots {
    /// Their directory.
    pub directory: PathBuf,
    /// How many bytes it may hold.
    pub limit: u64,
}

impl Places {
    /// Where the snapshots are.
    pub(crate) fn snapshots(&self) -> Snapshots {
        self.snapshots.clone().unwrap_or_else(|| Snapshots {
            directory: self.images.with_file_name("snapshots"),
            limit: SNAPSHOTS,
        })
    }
}

/// A builder, as `builder.json` has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// [`FORMAT`].
    pub format: u32,
    /// Its name, also its machine's host name.
    pub name: String,
    /// What runs it.
    pub kind: Kind,
    /// Processors.
    pub cores: u16,
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes of its disk. A container has a directory, and no limit.
    pub disk: u64,
    /// Builds at once.
    pub max_jobs: u32,
    /// How long it runs with nothing to do.
    pub idle_timeout: IdleTimeout,
    /// What runs the processors of a VM.
    pub accel: Accel,
    /// Whether fixed-output derivations reach what the host reaches.
    pub network: bool,
    /// Whether a VM boots at each start, where it could be restored from a snapshot.
    #[serde(default)]
    pub cold: bool,
    /// The directory of the host's Nix, whose store the machine is to see.
    #[serde(default)]
    pub host_store: Option<PathBuf>,
    /// The NixOS system that its machine runs; else our Debian.
    #[serde(default)]
    pub system: Option<System>,
    /// Where it finds what it needs.
    pub places: Places,
}

/// What somebody asks of a new builder. `None` is the default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    /// What runs it; else a container where one can run, else a VM.
    pub kind: Option<Kind>,
    /// Processors.
    pub cores: Option<u16>,
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Bytes of its disk.
    pub disk: Option<u64>,
    /// Builds at once; else one for each processor.
    pub max_jobs: Option<u32>,
    /// How long it runs with nothing to do; else 180 minutes.
    pub idle_timeout: Option<IdleTimeout>,
    /// What runs the processors of a VM.
    pub accel: Accel,
    /// Whether it has no network at all.
    pub no_network: bool,
    /// The directory of the host's Nix, whose store the machine is to see.
    pub host_store: Option<PathBuf>,
    /// Whether a VM boots at each start.
    pub cold: bool,
    /// The NixOS system that its machine runs, which has been looked at.
    pub system: Option<System>,
}

/// What of the host decides what a builder can be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Its processors.
    pub cores: u16,
    /// Bytes of its memory.
    pub memory: u64,
    /// Why no container can be a builder here, where none can.
    pub no_containers: Option<String>,
}

impl Host {
    /// This one.
    #[must_use]
    pub fn this() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let root = rustix::process::geteuid().is_root();
        Self {
            cores: u16::try_from(cores).unwrap_or(u16::MAX),
            memory: machinist_sys::memory::total(),
            no_containers: if root {
                None
            } else {
                Some("only root can give builds a range of user ids".to_owned())
            },
        }
    }
}

/// A wish that cannot be met. Nothing has been made.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum OptionError {
    /// The name.
    #[error("{name:?} cannot be a builder's name: {why}")]
    Name {
        /// What was asked for.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// A number is out of its range.
    #[error("{option} cannot be {value}: {why}")]
    Range {
        /// The option, as on the command line.
        option: &'static str,
        /// What was asked for.
        value: String,
        /// What it may be.
        why: String,
    },
    /// No container can be a builder here.
    #[error("a builder cannot be a container here: {0}")]
    NoContainer(String),
    /// The host's store is none that a machine could see.
    #[error("--host-store cannot be {}: {why}", path.display())]
    HostStore {
        /// What was asked for.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
}

impl Options {
    /// A builder called `name` on this `host`. Everything that is wrong is told at once.
    ///
    /// # Errors
    /// What cannot be, in the order of the options.
    pub fn check(
        &self,
        name: &str,
        host: &Host,
        places: Places,
    ) -> Result<Config, Vec<OptionError>> {
        let mut wrong = Vec::new();
        if let Err(error) = check_name(name) {
            wrong.push(error);
        }
        let of_system = self.system.as_ref().map(System::kind);
        let kind = match (of_system.or(self.kind), &host.no_containers) {
            (Some(Kind::Container), Some(why)) => {
                wrong.push(OptionError::NoContainer(why.clone()));
                Kind::Container
            }
            (Some(kind), _) => kind,
            (None, Some(_)) => Kind::Vm,
            (None, None) => Kind::Container,
        };
        if let Some(path) = &self.host_store
            && let Some(why) = no_host_store(path, kind)
        {
            let path = path.clone();
            wrong.push(OptionError::HostStore { path, why });
        }
        if self.system.is_some()
            && let Some(path) = &self.host_store
        {
            let why = "the machine of a --system is told of nothing in the host's store";
            let path = path.clone();
            wrong.push(OptionError::HostStore { path, why });
        }
        let mut within = Within(&mut wrong);
        let cores = within.check("--cores", self.cores, CORES.min(host.cores), 1..=host.cores);
        // In whole MiB, for people.
        let half = (host.memory / 2) >> 20 << 20;
        let memory = within.bytes(
            "--memory",
            self.memory,
            MEMORY.min(half),
            LEAST_MEMORY,
            half,
        );
        let disk = within.bytes("--disk", self.disk, DISK, LEAST_DISK, MOST_DISK);
        let jobs = within.check("--max-jobs", self.max_jobs, cores.into(), 1..=MOST_JOBS);
        if !wrong.is_empty() {
            return Err(wrong);
        }
        Ok(Config {
            format: FORMAT,
            name: name.to_owned(),
            kind,
            cores,
            memory,
            disk,
            max_jobs: jobs,
            idle_timeout: self.idle_timeout.unwrap_or_default(),
            accel: self.accel,
            network: !self.no_network,
            // Nobody knows what of its system could be saved without its store.
            cold: self.cold || self.system.is_some(),
            host_store: self.host_store.clone(),
            system: self.system.clone(),
            places,
        })
    }
}

/// Why a machine of this kind cannot see the store of the Nix in the directory `nix`.
fn no_host_store(nix: &Path, kind: Kind) -> Option<&'static str> {
    if !nix.is_absolute() {
        return Some("it has to be an absolute path");
    }
    // What is in a store of macOS may have other names than a Linux would find.
    if kind == Kind::Vm && cfg!(target_os = "macos") {
        return Some("the host is no Linux");
    }
    None
}

/// Checks a builder's name.
///
/// # Errors
/// It cannot be one.
pub fn check_name(name: &str) -> Result<(), OptionError> {
    let wrong = |why: String| {
        Err(OptionError::Name {
            name: name.to_owned(),
            why,
        })
    };
    if name.len() > LONGEST_NAME {
        return wrong(format!("it is longer than {LONGEST_NAME} letters"));
    }
    match name.parse::<MachineName>() {
        Ok(_) => Ok(()),
        Err(error) => wrong(error.to_string()),
    }
}

impl Config {
    /// The systems that it builds for, as Nix calls them.
    #[must_use]
    pub fn systems(&self) -> Vec<String> {
        vec![format!("{}-linux", std::env::consts::ARCH)]
    }

    /// Where Nix's daemon listens in the machine.
    pub(crate) fn daemon(&self) -> &'static str {
        match self.system {
            Some(_) => system::DAEMON,
            None => definition::DAEMON,
        }
    }

    /// Its idle timeout as a duration; `None`: it never stops of itself.
    #[must_use]
    pub fn idle(&self) -> Option<Duration> {
        self.idle_timeout.duration()
    }
}

/// Collects what is out of its range.
struct Within<'a>(&'a mut Vec<OptionError>);

impl Within<'_> {
    fn check<T: PartialOrd + fmt::Display + Copy>(
        &mut self,
        option: &'static str,
        asked: Option<T>,
        default: T,
        range: std::ops::RangeInclusive<T>,
    ) -> T {
        match asked {
            Some(value) if !range.contains(&value) => {
                self.0.push(OptionError::Range {
                    option,
                    value: value.to_string(),
                    why: format!("it may be {} to {} here", range.start(), range.end()),
                });
                value
            }
            Some(value) => value,
            None => default,
        }
    }

    fn bytes(
        &mut self,
        option: &'static str,
        asked: Option<u64>,
        default: u64,
        least: u64,
        most: u64,
    ) -> u64 {
        let text = |bytes: u64| machinist_lab::Bytes(bytes).to_string();
        match asked {
            Some(value) if !(least..=most).contains(&value) => {
                self.0.push(OptionError::Range {
                    option,
                    value: text(value),
                    why: format!("it may be {} to {} here", text(least), text(most)),
                });
                value
            }
            Some(value) => value,
            None => default,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn places() -> Places {
        Places {
            images: "/cache".into(),
            runtime: "/run/machinist".into(),
            search: "/usr/bin".into(),
            snapshots: None,
        }
    }

    fn host() -> Host {
        Host {
            cores: 2,
            memory: 8 * GIB,
            no_containers: None,
        }
    }

    /// What these options come to on a host of two cores.
    pub(crate) fn config(name: &str, options: &Options) -> Config {
        options.check(name, &host(), places()).unwrap()
    }

    #[test]
    fn defaults_are_cut_to_the_host() {
        let small = Options::default()
            .check("linux", &host(), places())
            .unwrap();
        assert_eq!((small.cores, small.memory, small.max_jobs), (2, 4 * GIB, 2));
        assert_eq!((small.kind, small.disk), (Kind::Container, 100 * GIB));
        assert_eq!(small.idle(), Some(Duration::from_secs(180 * 60)));
        let large = Host {
            cores: 64,
            memory: 256 * GIB,
            no_containers: Some("no".into()),
        };
        let large = Options::default().check("linux", &large, places()).unwrap();
        assert_eq!((large.cores, large.memory, large.max_jobs), (4, 8 * GIB, 4));
        assert_eq!(large.kind, Kind::Vm);
    }

    #[test]
    fn everything_wrong_is_told_at_once() {
        let options = Options {
            kind: Some(Kind::Container),
            cores: Some(3),
            memory: Some(5 * GIB),
            disk: Some(1),
            max_jobs: Some(0),
            ..Options::default()
        };
        let host = Host {
            no_containers: Some("no ids".into()),
            ..host()
        };
        let wrong = options.check("No_Name", &host, places()).unwrap_err();
        let texts: Vec<String> = wrong.iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), 6, "{texts:?}");
        assert!(texts[1].contains("no ids"), "{texts:?}");
        assert!(
            texts[2].contains("--cores cannot be 3: it may be 1 to 2 here"),
            "{texts:?}"
        );
        assert!(texts[3].contains("--memory cannot be 5G"), "{texts:?}");
    }

    #[test]
    fn a_config_survives_its_file() {
        let config = Options::default()
            .check("linux", &host(), places())
            .unwrap();
        let text = serde_json::to_string_pretty(&config).unwrap();
        assert_eq!(serde_json::from_str::<Config>(&text).unwrap(), config);
    }
}
