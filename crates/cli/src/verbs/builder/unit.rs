//! `machinist builder unit`

use clap::{Args, ValueEnum};
use machinist_builder::{UnitFile, launchd, systemd};

use super::find;
use crate::Outcome;
use crate::environment::Environment;
use crate::error::CliError;
use crate::exit::Exit;
use crate::ui;

/// Show the files by which an init system runs a builder's service, or write them
///
/// The service then starts with the first build after the host did, and its log is the init system's.
#[derive(Debug, Args)]
pub struct Unit {
    /// The builder
    name: String,
    /// The init system
    #[arg(long, value_enum, default_value_t)]
    init: Init,
    /// Write them where they belong, and say what to do next
    #[arg(long)]
    write: bool,
}

/// `--init`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Init {
    /// Linux
    #[cfg_attr(not(target_os = "macos"), default)]
    Systemd,
    /// macOS
    #[cfg_attr(target_os = "macos", default)]
    Launchd,
}

impl Unit {
    /// Shows them.
    pub fn run(self, environment: &Environment) -> Outcome {
        let state = find(&self.name)?;
        let files = match self.init {
            Init::Systemd => systemd(&state, &environment.exe).to_vec(),
            Init::Launchd => vec![launchd(&state, &environment.exe)],
        };
        for file in &files {
            if self.write {
                write(file)?;
                ui::data(file.path.display());
            } else {
                ui::data(format_args!("# {}\n{}", file.path.display(), file.text));
            }
        }
        if self.write {
            ui::status(match self.init {
                Init::Systemd => format!(
                    "next: systemctl daemon-reload && systemctl enable --now machinist-builder-{}.socket",
                    state.name()
                ),
                Init::Launchd => format!(
                    "next: launchctl bootstrap system {}",
                    files[0].path.display()
                ),
            });
        }
        Ok(Exit::Passed)
    }
}

fn write(file: &UnitFile) -> Result<(), CliError> {
    std::fs::write(&file.path, &file.text).map_err(|error| {
        CliError::host(error).context(format!("cannot write {}", file.path.display()))
    })
}
