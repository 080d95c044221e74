//! `machinist external-builder serve`: the service that builds' users may ask. systemd and launchd run
//! it with the listening socket as its standard input.

use std::path::{Path, PathBuf};

use clap::Args;
use machinist_builder::external::{self, Access, Broker};

use crate::Outcome;
use crate::environment::Environment;
use crate::error::CliError;
use crate::exit::Exit;
use crate::interrupt::Signals;
use crate::ui;
use crate::verbs::{block_on, builder};

/// The group of builds' users, as Nix's installers make it.
pub const GROUP: &str = "nixbld";

/// Run a builder's service of external builds
#[derive(Debug, Args)]
pub struct Serve {
    /// The builder, or its directory
    name: String,
    /// Where it listens, where that is not the usual place
    #[arg(long, value_name = "SOCKET")]
    socket: Option<PathBuf>,
    /// Who may ask it for builds: the group of builds' users, or its number
    #[arg(long, value_name = "GROUP", default_value = GROUP)]
    group: String,
}

impl Serve {
    /// Runs it until SIGTERM.
    pub fn run(self, environment: &Environment) -> Outcome {
        let state = builder::find(&self.name)?;
        builder::ours(&state, "an external builder")?;
        let socket = self
            .socket
            .clone()
            .unwrap_or_else(|| external::socket(&state.name()));
        block_on(async {
            let mut signals = Signals::listen()?;
            let inherited = builder::inherited()?;
            let access = match inherited {
                Some(_) => Access::Own,
                None => Access::Group(group_id(&self.group)?),
            };
            let launch = builder::launch(environment, &state);
            let search = environment.search.clone();
            let broker = Broker::listen(state, launch, search, (&socket, access), inherited);
            let broker = broker.map_err(CliError::machinery)?;
            ui::status(format_args!("listening at {}", socket.display()));
            let ended = broker.run(async {
                signals.next().await;
            });
            ended.await.map_err(CliError::machinery)?;
            Ok(Exit::Passed)
        })
    }
}

/// The number of a group.
pub fn group_id(group: &str) -> Result<u32, CliError> {
    if let Ok(number) = group.parse() {
        return Ok(number);
    }
    let groups = std::fs::read_to_string(Path::new("/etc/group")).unwrap_or_default();
    let number = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(group)).then(|| fields.nth(1)?.parse().ok())?
    });
    number.ok_or_else(|| {
        CliError::usage(format!("there is no group {group:?} in /etc/group"))
            .hint("give its number with --group; Nix's `build-users-group` names it")
    })
}
