//! What a machine gets that was restored: a name, addresses and keys of its own, and the time.
//!
//! A snapshot is restored many times; the agent is told once after each restore, in one request,
//! what is to differ. What has to be computed for that is begun before there is a QEMU to restore.

mod host_keys;
mod time;

use std::io;
use std::time::SystemTime;

use machinist_guest::{Change, Command, GuestError, Renewal, Renewed, Settled};

pub(crate) use self::host_keys::HostKeys;
use crate::agent::{Agent, identity};
use crate::error::chain;
use crate::spec::MachineSpec;

/// A file cannot have another in it.
const NO_PROGRAM: &str = "/dev/null/none";

/// What a restored machine is told beside who it is.
pub(crate) struct Fresh {
    /// SSH host keys that nobody had before.
    pub keys: HostKeys,
    /// A line for the journal, where that has none of the save.
    pub mark: String,
}

/// What the journal of a machine says last before it is saved for all its restores.
pub(crate) fn mark() -> String {
    let now = time::utc(SystemTime::now());
    format!("saved at {now}; what follows is of a machine that was restored from this snapshot")
}

/// What the journal says of a machine that was made of another at this moment.
pub(crate) fn mark_of(saved: SystemTime) -> String {
    let saved = time::utc(saved);
    format!("restored from a snapshot that was made at {saved}")
}

/// Makes a machine right that was restored: it was `golden` when it was saved, and is `spec` now.
/// What could not be done is in the answer, and is for the user to know.
///
/// # Errors
/// The machine is of no use.
pub(crate) async fn renew(
    agent: &Agent,
    golden: &MachineSpec,
    spec: &MachineSpec,
    settled: &Settled,
    fresh: Fresh,
) -> Result<Renewed, String> {
    let made = fresh.keys.made().await;
    let renewal = Renewal {
        change: Some(Change {
            from: identity(golden),
            to: identity(spec),
        }),
        host_keys: made.keys,
        settled: settled.clone(),
        mark: fresh.mark,
        ..Renewal::again().map_err(no_entropy)?
    };
    let mut renewed = agent.renew(&renewal).await.map_err(not_right)?;
    // What was known when it was saved is so after every restore.
    let known = settled.agent.lacks.iter().cloned();
    renewed.lacks.extend(known.chain(made.lacks));
    Ok(renewed)
}

/// Makes a machine right that goes on from an earlier moment of its own.
///
/// # Errors
/// The machine is of no use.
pub(crate) async fn go_on(agent: &Agent) -> Result<Renewed, String> {
    let renewal = Renewal::again().map_err(no_entropy)?;
    agent.renew(&renewal).await.map_err(not_right)
}

/// As [`go_on`], of a machine that stands still after this: all of it is done once more when it goes
/// on for good. What is done twice is faster then: an emulated machine's code has been translated.
///
/// # Errors
/// The machine is of no use.
pub(crate) async fn rehearse(agent: &Agent) -> Result<(), String> {
    let renewal = Renewal {
        passing: true,
        ..Renewal::again().map_err(no_entropy)?
    };
    agent.renew(&renewal).await.map_err(not_right)?;
    // The way to a command, up to where one would begin: there is no such program.
    let nothing = Command::argv([NO_PROGRAM]);
    match agent.output(&nothing).await {
        Err(error @ GuestError::Channel(_)) => Err(not_right(error)),
        _ => Ok(()),
    }
}

fn no_entropy(error: io::Error) -> String {
    format!("the host gives no random numbers: {error}")
}

fn not_right(error: GuestError) -> String {
    format!("it cannot be made right: {}", chain(&error))
}
