//! `machinist builder unregister`

use std::path::{Path, PathBuf};

use clap::Args;
use machinist_builder::registration;

use super::register::refused;
use crate::Outcome;
use crate::environment;
use crate::error::CliError;
use crate::exit::Exit;
use crate::ui;

/// Let Nix forget a builder
///
/// Takes its block out of Nix's file of machines; everything else there stays as it is.
#[derive(Debug, Args)]
pub struct Unregister {
    /// The builder, which need not exist any more
    name: String,
    /// The file that has it, where it is not Nix's usual one
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

impl Unregister {
    /// Unregisters it.
    pub fn run(self) -> Outcome {
        let host = environment::nix_host();
        let file = self.file.as_deref();
        let usual = host.machines();
        let shown = file.unwrap_or(&usual).display();
        if registration::unregister(&host, &self.name, file).map_err(refused)? {
            ui::status(format_args!("{} is out of {shown}", self.name));
            // What ssh needed for it; most builders need none.
            drop(std::fs::remove_dir_all(
                Path::new(super::register::SSH).join(&self.name),
            ));
            return Ok(Exit::Passed);
        }
        let known = registration::registered(&host, file).map_err(refused)?;
        let known = match known.is_empty() {
            true => "there is none of machinist's".to_owned(),
            false => format!("there are {}", known.join(", ")),
        };
        Err(CliError::nothing_selected(format!(
            "{shown} has no builder {}: {known}",
            self.name
        )))
    }
}
