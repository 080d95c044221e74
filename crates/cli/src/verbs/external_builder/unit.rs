//! `machinist external-builder unit`

use clap::Args;
use machinist_builder::external;

use super::serve::{GROUP, group_id};
use crate::Outcome;
use crate::environment::Environment;
use crate::exit::Exit;
use crate::ui;
use crate::verbs::builder::{self, Init};

/// Show what an init system and Nix have to be told, so that builds go to a builder
#[derive(Debug, Args)]
pub struct Unit {
    /// The builder
    name: String,
    /// The init system
    #[arg(long, value_enum, default_value_t)]
    init: Init,
    /// The group of builds' users; for launchd its number
    #[arg(long, value_name = "GROUP", default_value = GROUP)]
    group: String,
}

impl Unit {
    /// Shows it.
    pub fn run(self, environment: &Environment) -> Outcome {
        let state = builder::find(&self.name)?;
        let config = builder::ours(&state, "an external builder")?;
        let socket = external::socket(&state.name());
        let exe = &environment.exe;
        let files = match self.init {
            Init::Systemd => external::systemd(&state, exe, &socket, &self.group).to_vec(),
            Init::Launchd => {
                let group = group_id(&self.group)?;
                vec![external::launchd(&state, exe, &socket, group)]
            }
        };
        for file in &files {
            ui::data(format_args!("# {}\n{}", file.path.display(), file.text));
        }
        let settings = external::settings(&state.name(), exe, &config.systems());
        ui::data(format_args!("# /etc/nix/nix.conf\n{settings}"));
        Ok(Exit::Passed)
    }
}
