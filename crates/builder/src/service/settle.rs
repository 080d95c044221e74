//! What a machine is told when it has booted, before anything speaks to its Nix; and what is found in
//! it then.

use std::time::Duration;

use machinist_guest::{Agent, Command, GuestError};

use super::seen;
use crate::config::{Config, Kind};
use crate::definition;
use crate::path_error::PathError;
use crate::ssh::Keys;
use crate::state::Proven;

/// How long one step may take. Emulated machines are slow.
const STEP: Duration = Duration::from_secs(300);
/// Where the host's resolver is described.
pub(super) const RESOLVER: &str = "/etc/resolv.conf";

/// In a store that has been used: how large its disk is.
const MARK: &str = "/nix/var/nix/machinist";
/// Where a machine that is prepared says what it has.
const PROVEN: &str = "/run/machinist-proven";

/// Reads a file's contents, and puts them in the place of the file.
const PUT: &str = r#"umask 077; cat > "$1.new"; chmod "$2" "$1.new"; mv "$1.new" "$1""#;

/// A machine could not be told.
#[derive(Debug, thiserror::Error)]
pub(super) enum SettleError {
    /// Its agent does not answer.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// A command in it has failed.
    #[error("{what} failed in the machine: {said}")]
    Failed {
        /// The command.
        what: String,
        /// What it said.
        said: String,
    },
    /// Its keys.
    #[error(transparent)]
    Keys(#[from] PathError),
}

/// Tells a machine what its builder is to be, and brings its store, which is `new` where it has never
/// been used.
pub(super) async fn settle(
    agent: &Agent,
    config: &Config,
    new: bool,
) -> Result<Proven, SettleError> {
    if config.system.is_some() {
        return seen::see(agent, config).await;
    }
    // A container has the host's network, so it asks whom the host asks.
    let resolver = match config.kind {
        Kind::Container if config.network => std::fs::read(RESOLVER).unwrap_or_default(),
        _ => Vec::new(),
    };
    let quickly = match config.kind {
        Kind::Vm => quickly(agent).await?,
        Kind::Container => None,
    };
    let said = match quickly {
        Some(said) => said,
        None => {
            let arguments = definition::arguments(config);
            let store = if new { "new" } else { "used" };
            let words = ["/usr/lib/machinist/store", store].into_iter();
            let words: Vec<&str> = words.chain(arguments.iter().map(String::as_str)).collect();
            run(agent, "what brings its store", &words, &resolver).await?
        }
    };
    let mut lines = said.lines();
    let features = lines.next().unwrap_or_default().split_whitespace();
    let mut features: Vec<String> = features.map(str::to_owned).collect();
    features.sort();
    Ok(Proven {
        features,
        nix: lines.next().unwrap_or_default().to_owned(),
    })
}

/// Brings the store of a machine that was restored, where nothing is to be done about it; says what the
/// script of the same purpose would.
async fn quickly(agent: &Agent) -> Result<Option<String>, SettleError> {
    // The agent knows how, and is in memory.
    let words = ["/proc/self/exe", "store", "disk0", "/nix", MARK, PROVEN];
    let command = Command::argv(words).clear_env().timeout(STEP);
    let output = agent.output(&command).await?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(output.success().then_some(said))
}

/// Gives a machine the keys of its sshd.
pub(super) async fn give_keys(agent: &Agent, keys: &Keys) -> Result<(), SettleError> {
    for (path, contents) in keys.of_the_guest()? {
        put(agent, path, "0600", contents.as_bytes()).await?;
    }
    Ok(())
}

async fn put(agent: &Agent, path: &str, mode: &str, contents: &[u8]) -> Result<(), SettleError> {
    let words = ["sh", "-ec", PUT, "put", path, mode];
    run(agent, path, &words, contents).await?;
    Ok(())
}

pub(super) async fn run(
    agent: &Agent,
    what: &str,
    words: &[&str],
    input: &[u8],
) -> Result<String, SettleError> {
    // The environment of a login would be made by running its profile first.
    let command = Command::argv(words.iter().copied())
        .clear_env()
        .env("PATH", definition::PATH)
        .stdin()
        .timeout(STEP);
    let output = agent.output_with(&command, input).await?;
    if !output.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(SettleError::Failed {
            what: what.to_owned(),
            said: said.trim().to_owned(),
        });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
