//! Two ends joined: a client's connection, and the one to Nix's daemon in the machine.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use machinist_guest::Stream;
use rustix::event::{PollFd, PollFlags};
use rustix::net::Shutdown;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::host_store::Ear;

/// Bytes that are carried at once.
const CHUNK: usize = 256 * 1024;

/// How many bytes have been carried.
#[derive(Debug, Default)]
pub(super) struct Carried {
    /// To the machine.
    pub(super) up: AtomicU64,
    /// From it.
    pub(super) down: AtomicU64,
}

/// Carries bytes both ways until the machine has closed its end or the client has gone. An end of one
/// direction is passed on and ends no other. What the client says `ear` hears first.
pub(super) async fn join(
    client: impl AsyncRead + AsyncWrite + AsFd,
    guest: Stream,
    ear: Option<Ear>,
    carried: &Carried,
) {
    let own = || client.as_fd().try_clone_to_owned();
    let (Ok(waited), Ok(socket)) = (own(), own()) else {
        return;
    };
    let ends = Ends(socket);
    let hung_up = hung_up(waited);
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_guest, mut to_guest) = guest.into_split();
    let up = async {
        if carry_up(&mut from_client, &mut to_guest, ear, &carried.up).await {
            drop(to_guest.shutdown().await);
            // It says no more, but may listen; only when it is gone, too, is this over.
            hung_up.await;
        }
    };
    let down = async {
        carry_down(&mut from_guest, &mut to_client, &carried.down).await;
        drop(to_client.shutdown().await);
    };
    tokio::select! {
        () = up => {}
        () = down => {}
    }
    // The daemon sees the end of both directions when its halves are dropped, and kills the build.
    drop(ends);
}

/// Ends both directions of a connection when it is dropped, also where whoever held it is aborted: the thread
/// that waits for its end has a descriptor of its own.
struct Ends(OwnedFd);

impl Drop for Ends {
    fn drop(&mut self) {
        // It may be closed already.
        _ = rustix::net::shutdown(&self.0, Shutdown::Both);
    }
}

/// Whether the client ended its direction; otherwise the machine does not take any more.
async fn carry_up(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    mut ear: Option<Ear>,
    carried: &AtomicU64,
) -> bool {
    let mut bytes = vec![0; CHUNK];
    loop {
        match from.read(&mut bytes).await {
            Ok(0) => return true,
            Ok(length) => {
                if let Some(ear) = &mut ear {
                    ear.hear(&bytes[..length]).await;
                }
                carried.fetch_add(length as u64, Ordering::Relaxed);
                if to.write_all(&bytes[..length]).await.is_err() {
                    return false;
                }
            }
            Err(_) => return false,
        }
    }
}

async fn carry_down(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    carried: &AtomicU64,
) {
    let mut bytes = vec![0; CHUNK];
    while let Ok(length) = from.read(&mut bytes).await {
        carried.fetch_add(length as u64, Ordering::Relaxed);
        if length == 0 || to.write_all(&bytes[..length]).await.is_err() {
            return;
        }
    }
}

/// Ends when the other end of `stream` is closed both ways. tokio does not tell that from the end of
/// one, so a thread asks the kernel; it begins when this is first polled.
async fn hung_up(stream: OwnedFd) {
    let waited = tokio::task::spawn_blocking(move || {
        let mut polled = [PollFd::new(&stream, PollFlags::empty())];
        while matches!(
            rustix::event::poll(&mut polled, None),
            Err(rustix::io::Errno::INTR)
        ) {}
    });
    drop(waited.await);
}
