//! The host's store in a VM: its kernel mounts what [`share`](super::share) shows, by the agent's channel,
//! at a place of root's, and single paths of that in its store.

use std::io;
use std::path::Path;
use std::time::Duration;

use machinist_guest::{Agent, Command};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::task::AbortHandle;

use super::ground::run;
use super::pieces::Put;
use super::share::Share;
use crate::service::Log;

/// How long the machine's kernel may take to mount it. Emulated machines are slow.
const MOUNT: Duration = Duration::from_secs(120);

/// Where it is mounted. Only root finds it there.
const PLACE: &str = "/run/machinist-host-store/all";
const PUT: &str = include_str!("put.sh");
const TAKE: &str = include_str!("take.sh");

/// Mounts `share` in the machine.
pub(super) async fn attach(agent: &Agent, share: Share, log: Log) -> io::Result<AbortHandle> {
    // Where it is built into the kernel, there is no module.
    drop(run(agent, &["modprobe", "fuse"], "").await);
    // The agent's own program, which carries what the kernel asks as long as it is mounted.
    let words = ["/proc/self/exe", "fuse", PLACE];
    let command = Command::argv(words).stdin();
    let process = agent.spawn(&command).await.map_err(io::Error::other)?;
    let (answers, asked, errors, running) = process.split();
    let serving = tokio::spawn(async move {
        // It ends with the machine, or when nobody holds it any more. Else builds find nothing of it.
        if let Err(error) = share.serve(asked, answers).await
            && error.kind() == io::ErrorKind::InvalidData
        {
            log.say("warning: the machine's kernel has asked for what nobody understands; it sees no more of the host's store");
        }
        drop(running);
    });
    let serving = serving.abort_handle();
    let mut errors = BufReader::new(errors);
    let mut said = String::new();
    let mounted = async {
        errors.read_line(&mut said).await?;
        if said == "mounted\n" {
            return Ok(());
        }
        errors.read_to_string(&mut said).await?;
        Err(io::Error::other(said.trim().to_owned()))
    };
    match tokio::time::timeout(MOUNT, mounted).await {
        Ok(Ok(())) => Ok(serving),
        Ok(Err(error)) => {
            serving.abort();
            Err(error)
        }
        Err(_) => {
            serving.abort();
            Err(io::Error::other("the machine does not mount it"))
        }
    }
}

/// Puts paths into the machine's store.
pub(super) async fn put(
    agent: &Agent,
    store: &Path,
    names: &[String],
    again: bool,
) -> io::Result<Vec<Put>> {
    let lost = |name: &String| {
        let found = std::fs::symlink_metadata(store.join(name));
        found.err().map(|error| error.to_string())
    };
    let lost: Vec<Option<String>> = names.iter().map(lost).collect();
    let there = names.iter().zip(&lost).filter(|(_, lost)| lost.is_none());
    let input: String = there.map(|(name, _)| format!("{name}\n")).collect();
    let again = if again { "again" } else { "first" };
    let said = run(agent, &["sh", "-c", PUT, "put", again], &input).await?;
    let mut said = said.lines();
    let put = lost.into_iter().map(|lost| match lost {
        Some(why) => Some(Put::Lost(why)),
        None => match said.next()? {
            "there" => Some(Put::There),
            "taken" => Some(Put::Taken),
            _ => None,
        },
    });
    let put: Option<Vec<Put>> = put.collect();
    put.ok_or_else(|| io::Error::other("the machine does not say what it has"))
}

/// Takes them out of it.
pub(super) async fn take(agent: &Agent, names: &[String], places: bool) -> io::Result<()> {
    let input: String = names.iter().map(|name| format!("{name}\n")).collect();
    let places = if places { "places" } else { "mounts" };
    run(agent, &["sh", "-c", TAKE, "take", places], &input).await?;
    Ok(())
}
