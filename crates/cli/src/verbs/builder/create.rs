//! `machinist builder create`

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use machinist_builder::{
    Accel, ChangeError, Config, Host, IdleTimeout, Kind, Options, Places, Snapshots, State,
    StateError, System, SystemOptions,
};
use machinist_lab::Bytes;

use super::failed;
use crate::Outcome;
use crate::environment::{self, Environment};
use crate::error::CliError;
use crate::exit::Exit;
use crate::{parse, ui};

/// Create a builder
///
/// Nothing runs yet, and Nix knows nothing of it.
#[derive(Debug, Args)]
pub struct Create {
    /// Its name, also its host name
    name: String,
    /// What runs it: a container, where one can run, else a VM
    #[arg(short, long, value_enum)]
    kind: Option<KindArg>,
    /// How many processors it has: 4, or as many as the host
    #[arg(long, value_name = "N")]
    cores: Option<u16>,
    /// How much memory: 8G, or half of the host's
    #[arg(short, long, value_name = "SIZE", value_parser = parse::lab_value::<Bytes>)]
    memory: Option<Bytes>,
    /// How large a VM's disk can become: 100G. A container's store has no limit of its own
    #[arg(long, value_name = "SIZE", value_parser = parse::lab_value::<Bytes>)]
    disk: Option<Bytes>,
    /// How many builds run at once: one for each processor
    #[arg(long, value_name = "N")]
    max_jobs: Option<u32>,
    /// How long it runs with nothing to do: minutes, or a duration such as `30s`; `0` or `never` is
    /// for ever, `0s` stops it after each build
    #[arg(long, value_name = "TIME", default_value = "180")]
    idle_timeout: IdleTimeout,
    /// What runs the processors of a VM
    #[arg(long, value_enum, default_value_t)]
    accel: AccelArg,
    /// Without a network: what downloads something (a fixed-output derivation) cannot be built there
    #[arg(long)]
    no_network: bool,
    /// Let builds read what the host's Nix (in DIR) has in its store, read-only, instead of copying it
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true, default_missing_value = "/nix")]
    host_store: Option<PathBuf>,
    /// Boot a VM at each start, instead of restoring its snapshot
    #[arg(long)]
    cold: bool,
    /// Run this NixOS system, in the place of machinist's own: its toplevel, or a link to it
    #[arg(long, value_name = "TOPLEVEL")]
    system: Option<PathBuf>,
    /// The kernel of a VM with --system, where it is not the system's own
    #[arg(long, value_name = "FILE", requires = "system")]
    kernel: Option<PathBuf>,
    /// The initrd that belongs to it: it is looked at, and machinist's own runs in its place
    #[arg(long, value_name = "FILE", requires = "system")]
    initrd: Option<PathBuf>,
    /// Where there is one of this name already, give it these options; what it has built stays
    #[arg(long)]
    keep: bool,
}

/// `--kind`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum KindArg {
    /// Starts in a second. Its kernel is the host's; needs root
    Container,
    /// Has a kernel of its own
    Vm,
}

/// `--accel`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum AccelArg {
    /// KVM where it works
    #[default]
    Auto,
    /// KVM, or an error
    Kvm,
    /// Emulation
    Tcg,
}

impl Create {
    /// The system that is asked for, once it has been looked at.
    fn system(&self, kind: Option<Kind>, places: &Places) -> Result<Option<System>, CliError> {
        let Some(toplevel) = &self.system else {
            return Ok(None);
        };
        let asked = SystemOptions {
            toplevel: toplevel.clone(),
            kernel: self.kernel.clone(),
            initrd: self.initrd.clone(),
            kind,
        };
        let looked = asked.look(&places.search);
        looked.map(Some).map_err(|wrong| all(&wrong))
    }

    /// Creates it.
    pub fn run(self, environment: &Environment) -> Outcome {
        environment.cache.check()?;
        let places = places(environment);
        let kind = self.kind.map(|kind| match kind {
            KindArg::Container => Kind::Container,
            KindArg::Vm => Kind::Vm,
        });
        let options = Options {
            kind,
            system: self.system(kind, &places)?,
            cores: self.cores,
            memory: self.memory.map(|bytes| bytes.0),
            disk: self.disk.map(|bytes| bytes.0),
            max_jobs: self.max_jobs,
            idle_timeout: Some(self.idle_timeout),
            accel: match self.accel {
                AccelArg::Auto => Accel::Auto,
                AccelArg::Kvm => Accel::Kvm,
                AccelArg::Tcg => Accel::Tcg,
            },
            no_network: self.no_network,
            host_store: self.host_store,
            cold: self.cold,
        };
        let checked = options.check(&self.name, &Host::this(), places);
        let config = checked.map_err(|wrong| all(&wrong))?;
        let builders = environment::builders()?;
        let state = match State::find(&builders, &self.name) {
            Ok(state) if self.keep => {
                state.change(&config).map_err(unchanged)?;
                lay(&state, &config)?;
                state
            }
            _ => {
                let state = State::create(&builders, &config).map_err(not_created)?;
                if let Err(error) = lay(&state, &config) {
                    // The first error is the one to tell.
                    drop(state.destroy());
                    return Err(error);
                }
                state
            }
        };
        ui::data(state.path().display());
        ui::status(format_args!(
            "{}: a {} with {}, {} of memory, {}",
            config.name,
            config.kind,
            ui::count(config.cores.into(), "processor"),
            Bytes(config.memory),
            format_args!("{} at once", ui::count(config.max_jobs as usize, "build")),
        ));
        Ok(Exit::Passed)
    }
}

fn not_created(error: StateError) -> CliError {
    let hint = match &error {
        StateError::Exists { name } => Some(format!(
            "--keep gives it these options; `machinist builder destroy {name}` removes it"
        )),
        _ => None,
    };
    let error = failed(error);
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// Makes what a system boots.
fn lay(state: &State, config: &Config) -> Result<(), CliError> {
    let Some(system) = &config.system else {
        return Ok(());
    };
    ui::status(format_args!("its system: NixOS {}", system.version));
    system.lay(state, config).map_err(CliError::machinery)
}

/// All that is wrong, one line each.
fn all(wrong: &[impl ToString]) -> CliError {
    let lines: Vec<String> = wrong.iter().map(ToString::to_string).collect();
    CliError::usage(lines.join("\n"))
}

fn places(environment: &Environment) -> Places {
    Places {
        images: environment.images.clone(),
        runtime: environment.runtime.clone(),
        search: environment.search.clone().into(),
        snapshots: Some(Snapshots {
            directory: environment.starts.snapshots.directory.clone(),
            limit: environment.starts.snapshots.limit,
        }),
    }
}

fn unchanged(error: ChangeError) -> CliError {
    match error {
        ChangeError::State(error) => failed(error),
        ChangeError::Path(error) => CliError::machinery(error),
        error => CliError::usage(error).hint(
            "`machinist builder destroy` removes it with its store, and then it can be made anew",
        ),
    }
}
