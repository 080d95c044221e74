//! The session's socket.

mod commands;
mod connection;
mod dial;
mod files;
mod forward;
mod life;
mod machine;
mod output;
mod parts;
mod shell;
mod telling;
mod verbs;
mod waits;

pub(crate) use commands::{Ran, execute};
pub(crate) use files::{copy_in, copy_out};
pub(crate) use waits::{failed_units, file, journal, missed_unit, port, socket, unit};

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use tokio::net::UnixListener;
use tokio::task::{JoinHandle, JoinSet};

use crate::hub::Hub;
use crate::path_error::{At, PathError};

/// Listens at `path`, and serves everybody who connects until the session is over. The task ends
/// when the last connection has.
pub(crate) fn listen(path: &Path, hub: Arc<Hub>) -> Result<JoinHandle<()>, PathError> {
    // Nobody else can connect before the permissions are set: the directory is 0700.
    let listener = UnixListener::bind(path).at("listen at", path)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o600)).at("set permissions of", path)?;
    Ok(tokio::spawn(serve(listener, hub)))
}

async fn serve(listener: UnixListener, hub: Arc<Hub>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = hub.over.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection::serve(stream, Arc::clone(&hub)));
                }
                // Out of file descriptors, say: those that end make room.
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}
