//! What systemd-nspawn, and the container's init through it, say on the notification socket.

use std::io;
use std::path::Path;

use tokio::net::UnixDatagram;

use crate::path_error::{PathContext, PathError};

/// Something that was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Notice {
    /// The container's init exists, and this is its process id on the host.
    Leader(u32),
    /// The container's init has finished the start.
    Ready,
}

/// The socket `notify` in a machine's directory.
#[derive(Debug)]
pub(crate) struct Notifications {
    socket: UnixDatagram,
}

impl Notifications {
    pub(crate) fn bind(dir: &Path) -> Result<Self, PathError> {
        let path = dir.join("notify");
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).path(&path),
            _ => {}
        }
        // The directory's descriptor shortens the path: a socket's may have 107 bytes.
        let short = crate::unique::ShortPath::new(dir).path(dir)?;
        let socket = UnixDatagram::bind(short.join("notify")).path(&path)?;
        Ok(Self { socket })
    }

    /// The next message's notices; never any, once the socket has failed.
    pub(crate) async fn next(&self) -> Vec<Notice> {
        let mut buffer = [0; 4096];
        match self.socket.recv(&mut buffer).await {
            Ok(count) => parse(&buffer[..count]),
            // Asked again it would fail again, without end. A container that is not heard of is
            // found by the time limit of its start.
            Err(error) => {
                tracing::warn!("the notification socket of a container fails: {error}");
                std::future::pending().await
            }
        }
    }
}

fn parse(message: &[u8]) -> Vec<Notice> {
    String::from_utf8_lossy(message)
        .lines()
        .filter_map(|line| match line.split_once('=')? {
            ("X_NSPAWN_LEADER_PID", pid) => pid.parse().ok().map(Notice::Leader),
            ("READY", "1") => Some(Notice::Ready),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_nspawn_252() {
        assert_eq!(
            parse(b"STATUS=Container running.\nX_NSPAWN_LEADER_PID=23105"),
            [Notice::Leader(23105)]
        );
        assert_eq!(parse(b"READY=1\n"), [Notice::Ready]);
        assert_eq!(parse(b"STOPPING=1\nSTATUS=Terminating..."), []);
        assert_eq!(parse(b"\xff\xfe"), []);
    }
}
