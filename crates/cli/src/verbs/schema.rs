//! `machinist schema`

use clap::Args;

use crate::exit::Exit;
use crate::{Outcome, ui};

/// Print the JSON schema of the lab file
///
/// Editors use it to complete and to check. A lab file names it in its first line:
/// `#:schema lab.schema.json`.
#[derive(Debug, Args)]
pub struct Schema {}

impl Schema {
    /// Prints it.
    pub fn run(self) -> Outcome {
        ui::json(&machinist_lab::json_schema());
        Ok(Exit::Passed)
    }
}
