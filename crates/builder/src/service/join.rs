//! Two ends joined: a client's connection, and the one to Nix's daemon in the machine.

use std::net::Shutdown;
use std::os::fd::OwnedFd;

use machinist_guest::Stream;
use rustix::event::{PollFd, PollFlags};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

/// Bytes that are carried at once.
const CHUNK: usize = 256 * 1024;

/// Carries bytes both ways until the machine has closed its end or the client has gone. An end of one
/// direction is passed on and ends no other.
pub(super) async fn join(client: UnixStream, guest: Stream) {
    let Ok(hung_up) = hung_up(&client) else {
        return;
    };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_guest, mut to_guest) = guest.into_split();
    let up = async {
        if carry_up(&mut from_client, &mut to_guest).await {
            drop(to_guest.shutdown().await);
            // It says no more, but may listen; only when it is gone, too, is this over.
            hung_up.await;
        }
    };
    let down = async {
        carry_down(&mut from_guest, &mut to_client).await;
        drop(to_client.shutdown().await);
    };
    tokio::select! {
        () = up => {}
        () = down => {}
    }
    // The daemon sees the end of both directions when its halves are dropped, and kills the build. Whoever waits for
    // the client's end, above, is woken as well.
    if let Ok(client) = from_client.reunite(to_client)
        && let Ok(client) = client.into_std()
    {
        drop(client.shutdown(Shutdown::Both));
    }
}

/// Whether the client ended its direction; otherwise the machine does not take any more.
async fn carry_up(from: &mut OwnedReadHalf, to: &mut (impl AsyncWriteExt + Unpin)) -> bool {
    let mut bytes = vec![0; CHUNK];
    loop {
        match from.read(&mut bytes).await {
            Ok(0) => return true,
            Ok(length) => {
                if to.write_all(&bytes[..length]).await.is_err() {
                    return false;
                }
            }
            Err(_) => return false,
        }
    }
}

async fn carry_down(from: &mut (impl AsyncReadExt + Unpin), to: &mut OwnedWriteHalf) {
    let mut bytes = vec![0; CHUNK];
    while let Ok(length) = from.read(&mut bytes).await {
        if length == 0 || to.write_all(&bytes[..length]).await.is_err() {
            return;
        }
    }
}

/// Ends when the other end of `stream` is closed both ways. tokio does not tell that from the end of
/// one, so a thread asks the kernel; it begins when this is first polled.
fn hung_up(stream: &UnixStream) -> std::io::Result<impl Future<Output = ()> + use<>> {
    use std::os::fd::AsFd;
    let own: OwnedFd = stream.as_fd().try_clone_to_owned()?;
    Ok(async move {
        let waited = tokio::task::spawn_blocking(move || {
            let mut polled = [PollFd::new(&own, PollFlags::empty())];
            while matches!(
                rustix::event::poll(&mut polled, None),
                Err(rustix::io::Errno::INTR)
            ) {}
        });
        drop(waited.await);
    })
}
