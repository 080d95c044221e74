//! `machinist completions`

use clap::Args;
use clap_complete::Shell;

use crate::exit::Exit;
use crate::{Outcome, ui};

/// Print completions for a shell
///
/// For bash: `machinist completions bash > /etc/bash_completion.d/machinist`.
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    /// Prints them.
    pub fn run(self) -> Outcome {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut super::command(), "machinist", &mut text);
        ui::raw_data(&text);
        Ok(Exit::Passed)
    }
}
