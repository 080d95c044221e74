//! Our terminal as that of a Python prompt at a socket. The terminal edits lines by itself, so there
//! are no modes to put back.

use std::io::Write;
use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::signal::unix::{SignalKind, signal};

use crate::Outcome;
use crate::error::CliError;
use crate::exit::Exit;

/// Bytes that are carried at once.
const CHUNK: usize = 32 * 1024;
/// What Ctrl-C is to the prompt.
const INTERRUPT: u8 = 3;

/// Carries input and output until either side ends.
pub async fn join(socket: &Path) -> Outcome {
    let stream = machinist_session::connect(socket).await.map_err(|error| {
        let context = format!("cannot talk to the prompt at {}", socket.display());
        CliError::machinery(error).context(context)
    })?;
    let (reader, writer) = stream.into_split();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(say(writer));
    let shown = show(reader).await;
    tasks.abort_all();
    shown.map_err(|error| CliError::machinery(error).context("cannot read from the prompt"))?;
    Ok(Exit::Passed)
}

/// Our input, and Ctrl-C, which ends what runs there and not us.
async fn say(mut writer: OwnedWriteHalf) {
    let Ok(mut keys) = signal(SignalKind::interrupt()) else {
        return;
    };
    let mut stdin = tokio::io::stdin();
    let mut bytes = vec![0; CHUNK];
    loop {
        let said = tokio::select! {
            read = stdin.read(&mut bytes) => match read {
                Ok(length @ 1..) => writer.write_all(&bytes[..length]).await,
                // The prompt ends when it has done what it was given.
                _ => {
                    drop(writer.shutdown().await);
                    std::future::pending().await
                }
            },
            _ = keys.recv() => writer.write_all(&[INTERRUPT]).await,
        };
        if said.is_err() {
            return;
        }
    }
}

async fn show(mut reader: OwnedReadHalf) -> std::io::Result<()> {
    let mut bytes = vec![0; CHUNK];
    loop {
        let length = reader.read(&mut bytes).await?;
        if length == 0 {
            return Ok(());
        }
        let mut stdout = std::io::stdout();
        // Where nobody reads, nothing is to be shown.
        drop(
            stdout
                .write_all(&bytes[..length])
                .and_then(|()| stdout.flush()),
        );
    }
}
