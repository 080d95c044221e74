//! `machinist nixos-test-driver`

use std::ffi::OsString;

use clap::Args;

use crate::exit::Exit;
use crate::{Outcome, driver};

/// Run a NixOS test, as this program does under the name `nixos-test-driver`
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub struct NixosTestDriver {
    /// The arguments of NixOS's program of this name; `--help` tells them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

impl NixosTestDriver {
    /// Runs it; its exit codes are those of NixOS's.
    pub fn run(self) -> Outcome {
        let exit: Exit = driver::run(self.arguments);
        Ok(exit)
    }
}
