//! `machinist run`

use clap::Args;

use super::one_machine::{Job, MachineArgs};
use crate::Outcome;
use crate::environment::Environment;

/// Run one command in a fresh machine
///
/// The machine is made for the command and is gone after it. Standard input, output and error
/// pass through, and so does the exit status; 125 says that the command could not be run. The
/// first use of an image builds it; every later start takes it from the cache.
#[derive(Debug, Args)]
pub struct Run {
    #[command(flatten)]
    machine: MachineArgs,
    /// The directory of the machine in which the command runs
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Run {
    /// Runs it.
    pub fn run(self, environment: &Environment) -> Outcome {
        let job = Job {
            words: Some(self.command),
            workdir: self.workdir,
        };
        self.machine.run(environment, job)
    }
}
