//! `machinist snapshot make`

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use machinist_machine::{SnapshotKey, SnapshotStore};
use machinist_session::{Brief, Cancel, Engine, IMAGES, Session, Snapshots};

use crate::Outcome;
use crate::environment::Environment;
use crate::error::{CliError, Kind};
use crate::exit::Exit;
use crate::interrupt::Signals;
use crate::lab_file::{LabArgs, LabFile};
use crate::progress::Boot;
use crate::starts::Accel;
use crate::ui;
use crate::verbs::block_on;

/// Who looked at a snapshot's files here says nothing elsewhere.
const OF_A_SNAPSHOT: &str = "verified.json";

/// Boot a VM of the lab file, and save it in a directory, for others to restore
///
/// The directory also gets the disks that the VM boots from. Named in MACHINIST_SNAPSHOTS, it serves
/// whoever starts the same machine on a host that is like this one, with the same machinist and the
/// same QEMU; elsewhere the machine boots. Whoever can read it can read the VM's memory.
#[derive(Debug, Args)]
pub struct Make {
    #[command(flatten)]
    lab: LabArgs,
    /// The machine
    machine: String,
    /// The directory, made if it is not there
    #[arg(short, long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    output: PathBuf,
    /// What runs its processors
    #[arg(long, value_enum, default_value_t)]
    accel: Accel,
}

impl Make {
    /// Makes it.
    pub fn run(self, environment: &Environment) -> Outcome {
        let file = self.lab.load(environment)?;
        let known = file.lab.machines.iter();
        if !known
            .clone()
            .any(|machine| machine.name.as_str() == self.machine)
        {
            let names: Vec<_> = known.map(|machine| machine.name.as_str()).collect();
            let error = CliError::usage(format!("the lab has no machine {:?}", self.machine));
            return Err(error.hint(format!("its machines are: {}", names.join(", "))));
        }
        environment.cache.check()?;
        let output = environment.here.join(&self.output);
        fs::create_dir_all(&output).map_err(|error| cannot(&output, error))?;
        block_on(self.save(environment, file, &output))
    }

    async fn save(&self, environment: &Environment, file: LabFile, output: &Path) -> Outcome {
        let mut signals = Signals::listen()?;
        let boot = Boot::begin();
        let mut settings = environment.settings(self.accel.into());
        settings.warm = true;
        settings.snapshots = Snapshots {
            directory: output.to_owned(),
            sources: Vec::new(),
            // It is what was asked for, however large.
            limit: u64::MAX,
        };
        let engine = Engine::open(settings, boot.sink()).await?;
        let brief = Brief::new(file.lab, file.file, file.base);
        let session = Session::open(&engine, brief).await?;
        let made = tokio::select! {
            made = self.make(&session, output) => made.map(|()| Exit::Passed),
            _ = signals.next() => Ok(Exit::Interrupted),
        };
        boot.finish();
        let kill = Cancel::new();
        // Nobody wants the machine itself.
        kill.cancel();
        let closed = session.close(&kill).await;
        if matches!(made, Ok(Exit::Passed)) {
            closed.map_err(CliError::machinery)?;
            tidy(output).map_err(|error| cannot(output, error))?;
            ui::status(format_args!("saved in {}", self.output.display()));
        }
        made
    }

    async fn make(&self, session: &Session, output: &Path) -> Result<(), CliError> {
        session.start(std::slice::from_ref(&self.machine)).await?;
        let store = SnapshotStore::open(output, u64::MAX).map_err(super::failed)?;
        let made = store.list().map_err(super::failed)?;
        if !made
            .iter()
            .any(|info| info.manifest.machine == self.machine)
        {
            let error = format!("{} cannot be saved: see above", self.machine);
            return Err(CliError::new(Kind::Machinery, error));
        }
        let images = output.join(IMAGES);
        session.take_along(&self.machine, &images).await?;
        Ok(())
    }
}

/// Removes what a store needs, and a snapshot that is given away does not.
fn tidy(output: &Path) -> io::Result<()> {
    for entry in fs::read_dir(output)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_str().unwrap_or_default();
        if name.parse::<SnapshotKey>().is_ok() {
            remove(&entry.path().join(OF_A_SNAPSHOT))?;
        } else if name != IMAGES {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = if path.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn cannot(output: &Path, error: io::Error) -> CliError {
    CliError::machinery(error).context(format!("cannot write to {}", output.display()))
}
