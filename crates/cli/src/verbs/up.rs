//! `machinist up`

pub mod background;

use clap::Args;
use machinist_session::{Brief, Engine, Session};

use super::block_on;
use crate::Outcome;
use crate::environment::Environment;
use crate::error::CliError;
use crate::exit::Exit;
use crate::interrupt::Interrupt;
use crate::lab_file::{LabArgs, LabFile};
use crate::progress::Boot;
use crate::starts::StartArgs;
use crate::{preflight, ui};

/// Start the lab and leave it running
///
/// Prints the session's id when all machines are ready. `machinist down` ends it.
#[derive(Debug, Args)]
pub struct Up {
    #[command(flatten)]
    lab: LabArgs,
    #[command(flatten)]
    start: StartArgs,
    /// Stay in the foreground until Ctrl-C or `machinist down`
    #[arg(long)]
    foreground: bool,
    /// Leave the terminal as soon as all machines are ready. How `up` runs itself.
    #[arg(long, hide = true, requires = "foreground")]
    then_detach: bool,
}

impl Up {
    /// Starts it.
    pub fn run(self, environment: &Environment) -> Outcome {
        // Mistakes are told here, not by the process in the background.
        let file = self.lab.load(environment)?;
        preflight::check(
            &preflight::of_machines(file.lab.machines.iter(), environment),
            environment,
        )?;
        if self.foreground {
            block_on(self.foreground(environment, file))
        } else {
            block_on(background::start(environment))
        }
    }

    async fn foreground(self, environment: &Environment, file: LabFile) -> Outcome {
        if self.then_detach {
            background::leave_session()?;
        }
        let interrupt = Interrupt::listen()?;
        let boot = Boot::begin();
        let engine = Engine::open(self.start.settings(environment), boot.sink()).await?;
        let brief = Brief::new(file.lab, file.file, file.base);
        let session = Session::open(&engine, brief).await?;
        let started = tokio::select! {
            started = start(&session) => started.map(|()| true),
            () = interrupt.cancel.cancelled() => Ok(false),
        };
        boot.finish();
        if matches!(started, Ok(true)) {
            ui::data(session.id());
            if self.then_detach {
                background::leave_terminal()?;
            }
            tokio::select! {
                () = session.down_asked() => {}
                () = interrupt.cancel.cancelled() => {}
            }
        }
        let closed = session.close(&interrupt.kill).await;
        // Ctrl-C in the foreground is how this ends: no failure, once the machines were ready.
        let started = started?;
        closed.map_err(CliError::machinery)?;
        Ok(if started {
            Exit::Passed
        } else {
            Exit::Interrupted
        })
    }
}

/// Starts all machines and waits until each is as ready as the lab file asks.
async fn start(session: &Session) -> Result<(), CliError> {
    session.prepare().await?;
    session.start(&[]).await?;
    session.ready(&[]).await?;
    Ok(())
}
