//! `machinist shell`

use clap::Args;

use super::one_machine::{Job, MachineArgs};
use crate::Outcome;
use crate::environment::Environment;

/// Open a shell in a fresh machine
///
/// The machine is made for the shell and is gone after it.
#[derive(Debug, Args)]
pub struct Shell {
    #[command(flatten)]
    machine: MachineArgs,
}

impl Shell {
    /// Opens it.
    pub fn run(self, environment: &Environment) -> Outcome {
        let job = Job {
            words: None,
            workdir: None,
        };
        self.machine.run(environment, job)
    }
}
