//! A machine that is described by options: what `run` and `shell` have in common.

use std::collections::BTreeMap;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use machinist_lab::{
    Bytes, Checkpoint, Image, Lab, Machine, MachineName, Publish, Ready, Source, Volume,
};
use machinist_session::protocol::{Command, Program};
use machinist_session::{Brief, Cancel, Client, Engine, Session};

use super::block_on;
use crate::Outcome;
use crate::environment::Environment;
use crate::error::{CliError, Kind};
use crate::exit::Exit;
use crate::interrupt::Signals;
use crate::parse::{self, EnvArg};
use crate::progress::Boot;
use crate::starts::StartArgs;
use crate::{preflight, terminal, ui};

/// A machine for one command or shell.
#[derive(Debug, Args)]
pub struct MachineArgs {
    /// What the machine boots: `debian:SUITE`, `host` (this host's own root, never written to),
    /// `dir:PATH` or `tar:PATH`
    #[arg(short, long, default_value = "debian:bookworm", value_parser = parse::lab_value::<Source>)]
    image: Source,
    /// A package to add to a debian image; may be given several times
    #[arg(short, long = "package", value_name = "NAME")]
    packages: Vec<String>,
    /// A virtual machine, with a kernel of its own, or a container
    #[arg(short, long, value_enum, default_value_t)]
    kind: KindArg,
    /// Show a directory or file of the host to the machine; may be given several times
    #[arg(long = "volume", value_name = "SRC:DST[:rw]", value_parser = parse::lab_value::<Volume>)]
    volumes: Vec<Volume>,
    /// Set a variable for the command, or pass ours; may be given several times
    #[arg(short, long = "env", value_name = "NAME[=VALUE]")]
    env: Vec<EnvArg>,
    /// Publish a TCP port of the machine on the host's 127.0.0.1; may be given several times
    #[arg(long = "publish", value_name = "[[ADDRESS:]HOST:]GUEST", value_parser = parse::lab_value::<Publish>)]
    publish: Vec<Publish>,
    /// How much memory the machine may use
    #[arg(short, long, value_name = "SIZE", default_value = "1G", value_parser = parse::lab_value::<Bytes>)]
    memory: Bytes,
    /// How many processors it may use
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=256))]
    cpus: u16,
    /// Boot the image's own systemd, and wait until it is up, instead of the command alone
    #[arg(long)]
    system: bool,
    /// Give the command a terminal, where we have one; a shell always gets it
    #[arg(short, long)]
    tty: bool,
    #[command(flatten)]
    start: StartArgs,
}

/// `--kind`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum KindArg {
    /// A container; a VM where containers cannot run
    #[default]
    Auto,
    /// Starts in a fraction of a second
    Container,
    /// Has a kernel of its own
    Vm,
}

/// The name of the machine.
const NAME: &str = "fresh";

/// What runs in the machine.
#[derive(Debug)]
pub struct Job {
    /// The words of a command; none: a login shell.
    pub words: Option<Vec<String>>,
    /// The directory in which it runs.
    pub workdir: Option<String>,
}

impl MachineArgs {
    /// Boots the machine, runs the job there, and leaves nothing behind.
    pub fn run(&self, environment: &Environment, job: Job) -> Outcome {
        let lab = self.lab()?;
        let needs = preflight::of_machines(lab.machines.iter(), environment);
        preflight::check(&needs, environment)?;
        block_on(self.run_lab(environment, lab, job))
    }

    async fn run_lab(&self, environment: &Environment, lab: Lab, job: Job) -> Outcome {
        let boot = Boot::begin();
        let engine = Engine::open(self.start.settings(environment), boot.sink()).await?;
        let brief = Brief {
            agent_only: !self.system,
            // Services may have something to write to a directory of the host's when they stop.
            throwaway: !self.system || self.volumes.is_empty(),
            ..Brief::new(
                Arc::new(lab),
                "(command line)".into(),
                environment.here.clone(),
            )
        };
        let session = Session::open(&engine, brief).await?;
        let kill = Cancel::new();
        let outcome = self.in_session(&session, job, &kill, boot).await;
        let closed = close(&session, &kill).await;
        // What the command came to is what was asked for; leftovers are told nevertheless.
        if let Err(error) = closed {
            ui::error(&error);
        }
        outcome.map_err(|error| match error.kind() {
            Kind::Machinery | Kind::Test => error.of_kind(Kind::NotRun),
            _ => error,
        })
    }

    async fn in_session(&self, session: &Session, job: Job, kill: &Cancel, boot: Boot) -> Outcome {
        let mut signals = Signals::listen()?;
        let booted = tokio::select! {
            booted = self.boot(session) => booted,
            _ = signals.next() => return Ok(Exit::Interrupted),
        };
        boot.finish();
        let client = booted?;
        let pty = if job.words.is_none() || self.tty {
            terminal::pty()
        } else {
            None
        };
        let has_pty = pty.is_some();
        let command = self.command(job);
        let shell = client.shell(NAME, command, pty).await?;
        terminal::carry(shell, has_pty, kill).await
    }

    async fn boot(&self, session: &Session) -> Result<Client, CliError> {
        session.prepare().await?;
        session.start(&[]).await?;
        if self.system {
            session.ready(&[]).await?;
        }
        Ok(Client::connect(session.socket()).await?)
    }

    /// The command for the protocol; none for a login shell.
    fn command(&self, job: Job) -> Option<Command> {
        let mut command = Command::of(Program::Argv(job.words?));
        command.cwd = job.workdir;
        Some(command)
    }

    fn lab(&self) -> Result<Lab, CliError> {
        let mut lab = one_machine(self.image.clone(), self.packages.clone(), self.kind)?;
        for machine in &mut lab.machines {
            machine.memory = self.memory;
            machine.cpus = self.cpus;
            machine.volumes.clone_from(&self.volumes);
            machine.publish.clone_from(&self.publish);
            machine.env = self.variables();
        }
        Ok(lab)
    }

    /// The variables; one that is to be passed and that we do not have is left out.
    fn variables(&self) -> BTreeMap<String, String> {
        let value = |arg: &EnvArg| arg.value.clone().or_else(|| std::env::var(&arg.name).ok());
        let pairs = self.env.iter();
        pairs
            .filter_map(|arg| Some((arg.name.clone(), value(arg)?)))
            .collect()
    }
}

/// A lab of one machine, without a network.
pub fn one_machine(
    source: Source,
    mut packages: Vec<String>,
    kind: KindArg,
) -> Result<Lab, CliError> {
    packages.sort();
    packages.dedup();
    if !packages.is_empty() && !matches!(source, Source::Debian { .. }) {
        return Err(CliError::usage(
            "only debian images can have packages added",
        ));
    }
    let name: MachineName = NAME
        .parse()
        .map_err(|error: machinist_lab::SyntaxError| CliError::machinery(error.to_string()))?;
    let image = Image {
        name: source.to_string(),
        source,
        packages,
        files: BTreeMap::new(),
    };
    let machine = Machine {
        name,
        group: NAME.to_owned(),
        number: 1,
        kind: kind.into(),
        image,
        memory: machinist_lab::DEFAULT_MEMORY,
        cpus: 1,
        vlans: Vec::new(),
        disks: Vec::new(),
        volumes: Vec::new(),
        publish: Vec::new(),
        devices: Vec::new(),
        cdi: Vec::new(),
        gpu: None,
        env: BTreeMap::new(),
        ready: Ready::System,
        snapshot: true,
        checkpoint: Checkpoint::default(),
    };
    Ok(Lab {
        machines: vec![machine],
        vlans: BTreeMap::new(),
        images: BTreeMap::new(),
        tests: Vec::new(),
    })
}

impl From<KindArg> for machinist_lab::Kind {
    fn from(kind: KindArg) -> Self {
        match kind {
            KindArg::Auto => Self::Auto,
            KindArg::Container => Self::Container,
            KindArg::Vm => Self::Vm,
        }
    }
}

/// Closes the session; Ctrl-C from now on kills what does not obey.
async fn close(session: &Session, kill: &Cancel) -> Result<(), CliError> {
    let mut signals = Signals::listen()?;
    let impatient = kill.clone();
    let watch = tokio::spawn(async move {
        signals.next().await;
        impatient.cancel();
    });
    let closed = session.close(kill).await;
    watch.abort();
    closed.map_err(CliError::machinery)
}
