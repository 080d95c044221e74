//! How machines start: from snapshots or by booting, and how many at once.

use std::ffi::OsString;
use std::num::NonZero;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use machinist_lab::Bytes;
use machinist_session::{Settings, Snapshots};

use crate::environment::Environment;
use crate::error::CliError;
use crate::parse;

/// How much snapshots may take where nobody says.
const LIMIT: u64 = 20 << 30;

/// What the environment says of it.
#[derive(Debug, Clone)]
pub struct Starts {
    /// Nothing is restored.
    pub cold: bool,
    /// How many bytes of memory machines may need at once, if somebody has said so.
    pub memory_budget: Option<u64>,
    /// Where the snapshots are.
    pub snapshots: Snapshots,
}

impl Starts {
    /// Reads it. `cache` is absolute.
    pub fn read(
        set: impl Fn(&str) -> Option<OsString>,
        cache: &Path,
        here: &Path,
    ) -> Result<Self, CliError> {
        let size = |name: &str| -> Result<Option<u64>, CliError> {
            let Some(text) = set(name) else {
                return Ok(None);
            };
            let text = text.to_string_lossy();
            let size = parse::lab_value::<Bytes>(&text);
            size.map(|size| Some(size.0))
                .map_err(|error| CliError::usage(format!("{name}: {error}")))
        };
        let sources = set("MACHINIST_SNAPSHOTS").unwrap_or_default();
        let sources = std::env::split_paths(&sources).filter(|path| !path.as_os_str().is_empty());
        Ok(Self {
            cold: set("MACHINIST_COLD").is_some_and(|value| value != "0"),
            memory_budget: size("MACHINIST_MEMORY_BUDGET")?,
            snapshots: Snapshots {
                directory: cache.join("snapshots"),
                sources: sources
                    .map(|path| here.join(path))
                    .collect::<Vec<PathBuf>>(),
                limit: size("MACHINIST_SNAPSHOT_LIMIT")?.unwrap_or(LIMIT),
            },
        })
    }

    /// How many bytes of memory machines may need at once.
    pub fn budget(&self) -> u64 {
        self.memory_budget.unwrap_or_else(|| {
            let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
            // Where the kernel does not tell, nothing is held back.
            available(&memory).map_or(u64::MAX, |bytes| bytes / 5 * 4)
        })
    }

    /// How many machines start at once.
    pub fn at_once() -> NonZero<usize> {
        std::thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN)
    }
}

/// The memory that is available, of the text of /proc/meminfo, in bytes.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}

/// What runs the processors of VMs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Accel {
    /// KVM where it is proved to work, else emulation
    #[default]
    Auto,
    /// KVM, or an error
    Kvm,
    /// Emulation
    Tcg,
}

impl From<Accel> for machinist_session::Accel {
    fn from(accel: Accel) -> Self {
        match accel {
            Accel::Auto => Self::Auto,
            Accel::Kvm => Self::Kvm,
            Accel::Tcg => Self::Tcg,
        }
    }
}

/// The options of every verb that starts machines.
#[derive(Debug, Args)]
pub struct StartArgs {
    /// What runs the processors of VMs
    #[arg(long, value_enum, default_value_t)]
    accel: Accel,
    /// Boot all VMs, and restore none from its snapshot; also by MACHINIST_COLD=1
    #[arg(long)]
    cold: bool,
    /// How much memory machines may need at once, such as `12G`; default: four fifths of what is
    /// available. Also by MACHINIST_MEMORY_BUDGET
    #[arg(long, value_name = "SIZE", value_parser = parse::lab_value::<Bytes>)]
    memory_budget: Option<Bytes>,
}

impl StartArgs {
    /// What an engine is told.
    pub fn settings(&self, environment: &Environment) -> Settings {
        let mut settings = environment.settings(self.accel.into());
        settings.warm &= !self.cold;
        if let Some(Bytes(budget)) = self.memory_budget {
            settings.memory_budget = budget;
        }
        settings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(set: &[(&str, &str)]) -> Result<Starts, CliError> {
        let find = |name: &str| {
            let found = set.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).into())
        };
        Starts::read(find, Path::new("/cache"), Path::new("/here"))
    }

    #[test]
    fn without_a_word_vms_are_restored() {
        let starts = read(&[]).unwrap();
        assert!(!starts.cold);
        assert_eq!(starts.snapshots.directory, Path::new("/cache/snapshots"));
        assert_eq!(starts.snapshots.limit, LIMIT);
        assert!(starts.snapshots.sources.is_empty());
        assert!(starts.budget() > 1 << 20);
    }

    #[test]
    fn the_environment_may_say_otherwise() {
        let starts = read(&[
            ("MACHINIST_COLD", "1"),
            ("MACHINIST_MEMORY_BUDGET", "3G"),
            ("MACHINIST_SNAPSHOT_LIMIT", "512M"),
            ("MACHINIST_SNAPSHOTS", "/nix/store/x:made"),
        ])
        .unwrap();
        assert!(starts.cold);
        assert_eq!(starts.budget(), 3 << 30);
        assert_eq!(starts.snapshots.limit, 512 << 20);
        let sources = [Path::new("/nix/store/x"), Path::new("/here/made")];
        assert_eq!(starts.snapshots.sources, sources);
        assert!(!read(&[("MACHINIST_COLD", "0")]).unwrap().cold);
        let error = read(&[("MACHINIST_MEMORY_BUDGET", "lots")]).unwrap_err();
        assert!(
            error.chain()[0].starts_with("MACHINIST_MEMORY_BUDGET: `lots` is not a size"),
            "{error:?}"
        );
    }

    #[test]
    fn available_memory_is_read() {
        let text = "MemTotal:       24000000 kB\nMemAvailable:   20000 kB\n";
        assert_eq!(available(text), Some(20_000 << 10));
        assert_eq!(available("MemTotal: 1 kB"), None);
    }
}
