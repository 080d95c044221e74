//! `machinist builder status`

use std::path::PathBuf;

use clap::Args;
use machinist_builder::{
    Asked, Client, Config, HostStoreStatus, MachineState, Said, State, System,
};
use serde::Serialize;

use super::{failed, find};
use crate::Outcome;
use crate::environment::{self, Environment};
use crate::error::CliError;
use crate::exit::Exit;
use crate::verbs::{Format, FormatArgs};
use crate::{human, table, ui};

/// Show builders: what they are, and what they do
#[derive(Debug, Args)]
pub struct Status {
    /// The builder; all where it is left out
    name: Option<String>,
    #[command(flatten)]
    format: FormatArgs,
}

/// A builder, for programs.
#[derive(Serialize)]
struct Shown {
    name: String,
    kind: String,
    /// `off`, `starting`, `up`, `stopping`.
    machine: &'static str,
    /// Connections that use the machine, or wait for it.
    sessions: usize,
    /// Bytes that clients have sent to its Nix since its service runs, and that came back.
    sent: u64,
    received: u64,
    /// The directory of the host's Nix whose store it may see.
    host_store: Option<PathBuf>,
    /// What it sees of that now, while it runs.
    from_host: Option<HostStoreStatus>,
    /// Seconds until the machine stops, while nobody uses it.
    stops_in: Option<f64>,
    /// Why its last start failed, if it did.
    failure: Option<String>,
    /// The process id of its service, if that runs.
    service: Option<String>,
    /// The directory of its machine's session, while it runs.
    session: Option<PathBuf>,
    cores: u16,
    memory: u64,
    disk: u64,
    max_jobs: u32,
    idle_timeout: String,
    systems: Vec<String>,
    /// What its Nix offers; as far as its machine has been seen to have it.
    features: Vec<String>,
    /// The NixOS system that its machine runs, where that is not ours.
    system: Option<SystemShown>,
    /// The version of its Nix, if it has ever run.
    nix: Option<String>,
    directory: PathBuf,
    socket: PathBuf,
}

/// A NixOS system, for programs.
#[derive(Serialize)]
struct SystemShown {
    toplevel: PathBuf,
    /// As `nixos-version` says.
    version: String,
    /// A VM's kernel on the host, and as `uname -r` says.
    kernel: Option<PathBuf>,
    kernel_version: Option<String>,
}

impl From<System> for SystemShown {
    fn from(system: System) -> Self {
        let (kernel, kernel_version) = system
            .kernel
            .map_or((None, None), |it| (Some(it.image), Some(it.version)));
        Self {
            toplevel: system.toplevel,
            version: system.version,
            kernel,
            kernel_version,
        }
    }
}

impl Status {
    /// Shows it.
    pub fn run(self, _environment: &Environment) -> Outcome {
        let states = match &self.name {
            Some(name) => vec![find(name)?],
            None => State::all(&environment::builders()?).map_err(CliError::machinery)?,
        };
        let shown = states
            .iter()
            .map(look)
            .collect::<Result<Vec<Shown>, CliError>>()?;
        match self.format.format {
            Format::Json if self.name.is_some() => shown.iter().for_each(ui::json),
            Format::Json => ui::json(&shown),
            Format::Text => ui::data(text(&shown)),
        }
        Ok(Exit::Passed)
    }
}

fn look(state: &State) -> Result<Shown, CliError> {
    let config: Config = state.config().map_err(failed)?;
    let status = ask(state);
    let proven = state.proven();
    let machine = status
        .as_ref()
        .map_or(MachineState::Off, |status| status.machine);
    Ok(Shown {
        kind: config.kind.to_string(),
        machine: machine.word(),
        sessions: status.as_ref().map_or(0, |status| status.sessions),
        sent: status.as_ref().map_or(0, |status| status.sent),
        received: status.as_ref().map_or(0, |status| status.received),
        host_store: config.host_store.clone(),
        from_host: status.as_ref().and_then(|status| status.host_store),
        stops_in: status.as_ref().and_then(|status| status.stops_in),
        failure: status.as_ref().and_then(|status| status.failure.clone()),
        service: state.pid(),
        session: status.and_then(|status| status.session),
        cores: config.cores,
        memory: config.memory,
        disk: config.disk,
        max_jobs: config.max_jobs,
        idle_timeout: config.idle_timeout.to_string(),
        systems: config.systems(),
        features: features(state),
        system: config.system.map(SystemShown::from),
        nix: proven.map(|proven| proven.nix),
        directory: state.path().to_owned(),
        socket: state.socket(),
        name: config.name,
    })
}

/// What its Nix offers, as far as its machine has been seen to have it.
pub(super) fn features(state: &State) -> Vec<String> {
    let own = state.config().is_ok_and(|config| config.system.is_none());
    state.proven().map_or_else(
        || {
            // Of somebody's system nothing is known before it has run.
            if !own {
                return Vec::new();
            }
            machinist_builder::FEATURES
                .iter()
                .map(|&name| name.to_owned())
                .collect()
        },
        |proven| proven.features,
    )
}

/// What its service says; none where it has none. One that an init system would start by a
/// connection is left alone.
fn ask(state: &State) -> Option<machinist_builder::Status> {
    state.pid()?;
    let mut client = Client::connect(state).ok()?;
    match client.ask(&Asked::Status, &mut |_| {}).ok()? {
        Said::Status(status) => Some(status),
        _ => None,
    }
}

fn text(all: &[Shown]) -> String {
    let rows: Vec<[String; 7]> = all
        .iter()
        .map(|one| {
            [
                one.name.clone(),
                one.kind.clone(),
                one.machine.to_owned(),
                one.sessions.to_string(),
                host_store(one),
                one.systems.join(","),
                one.features.join(","),
            ]
        })
        .collect();
    table::table(
        [
            "BUILDER",
            "KIND",
            "MACHINE",
            "SESSIONS",
            "HOST STORE",
            "SYSTEMS",
            "FEATURES",
        ],
        &rows,
    )
}

/// What it sees of the host's store, in few words.
fn host_store(one: &Shown) -> String {
    match (&one.from_host, &one.host_store) {
        (Some(seen), _) => format!("{} paths, {}", seen.paths, human::size(seen.bytes)),
        (None, Some(_)) => "yes".to_owned(),
        (None, None) => "no".to_owned(),
    }
}
