//! Files and trees between host and guest.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use machinist_tree::{Options, Packer, TreeError, Unpacker};
use machinist_wire::message::{Put, Request};
use machinist_wire::{Blob, Lane};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime;
use tokio::task::spawn_blocking;

use crate::agent::Agent;
use crate::error::{ChannelError, GuestError};
use crate::link::Handle;
use crate::stream::{Reader, Writer};

/// What a copy to the host did.
#[derive(Debug)]
pub struct Copied {
    /// Where the file or tree is now.
    pub target: PathBuf,
    /// Sockets, pipes and devices, which cannot be copied: path below the source, and what it is.
    pub skipped: Vec<(PathBuf, String)>,
}

/// Ends the transfer, and with it the thread that does it, when the caller loses interest.
struct CloseOnDrop(Arc<Handle>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Agent {
    /// Copies a file or tree of the host into the guest, as `cp -a` would: modes, times, links,
    /// hard links and holes are kept, and owners where this process is root. Where `guest` is a
    /// directory, the copy goes into it under the source's own name. A link given as `host` is
    /// followed. Sockets, pipes and devices are left out.
    ///
    /// # Errors
    /// The source cannot be read, the guest cannot write, or the channel ended.
    pub async fn copy_in(&self, host: &Path, guest: &Path) -> Result<(), GuestError> {
        let mut packer = Packer::new(host)?;
        let put = Put {
            path: guest.into(),
            name: Blob::from(name_of(host)?.as_os_str()),
            owners: rustix::process::geteuid().is_root(),
        };
        let handle = Arc::new(self.link.open(&Request::Put(put))?);
        let _close = CloseOnDrop(Arc::clone(&handle));
        let mut writer = Writer::new(&handle);
        let runtime = runtime::Handle::current();
        let send = spawn_blocking(move || {
            let mut records = Vec::new();
            loop {
                records.clear();
                if !packer.pack(&mut records)? {
                    return runtime.block_on(writer.shutdown()).map_err(|_| Stop::Guest);
                }
                runtime
                    .block_on(writer.write_all(&records))
                    .map_err(|_| Stop::Guest)?;
            }
        });
        // The guest speaks at the end, or earlier where it cannot go on.
        let mut done = std::pin::pin!(handle.done());
        tokio::select! {
            result = &mut done => result,
            sent = send => match sent {
                Ok(Err(Stop::Host(error))) => Err(error.into()),
                // Its reason comes as a reply.
                Ok(Ok(()) | Err(Stop::Guest)) => done.await,
                Err(_) => Err(ChannelError::Unexpected("the copy was given up").into()),
            },
        }
    }

    /// Copies a file or tree of the guest to the host, as `cp -a` would. Nothing that the guest
    /// sends can reach out of the target: no link of it is followed, no existing file is written
    /// through, and set-user-id bits are not taken over. Owners are kept where this process is root.
    ///
    /// # Errors
    /// The guest cannot read the source or lies about it, the host cannot write, or the channel
    /// ended.
    pub async fn copy_out(&self, guest: &Path, host: &Path) -> Result<Copied, GuestError> {
        let options = Options {
            owners: rustix::process::geteuid().is_root(),
            privileged_modes: false,
        };
        let name = guest.file_name().unwrap_or(OsStr::new("root"));
        let mut unpacker = Unpacker::new(host, name, options)?;
        let path = guest.into();
        let handle = Arc::new(self.link.open(&Request::Get { path })?);
        let _close = CloseOnDrop(Arc::clone(&handle));
        let mut reader = Reader::new(&handle, Lane::Main);
        let runtime = runtime::Handle::current();
        let receive = spawn_blocking(move || {
            let mut buffer = vec![0; 128 * 1024];
            loop {
                let count = runtime
                    .block_on(reader.read(&mut buffer))
                    .map_err(|_| Stop::Guest)?;
                if count == 0 {
                    unpacker.finish()?;
                    return Ok(unpacker);
                }
                unpacker.push(&buffer[..count])?;
            }
        });
        match receive.await {
            Ok(Ok(unpacker)) => Ok(Copied {
                target: unpacker.target().to_owned(),
                skipped: skipped(&unpacker),
            }),
            Ok(Err(Stop::Host(error))) => Err(error.into()),
            // The stream broke off: the agent says why in a reply, or the channel does.
            Ok(Err(Stop::Guest)) => Err(match handle.reply().await {
                Err(error) => error,
                Ok(_) => ChannelError::Unexpected("a reply to get").into(),
            }),
            Err(_) => Err(ChannelError::Unexpected("the copy was given up").into()),
        }
    }
}

/// Which end stopped a transfer.
enum Stop {
    Host(TreeError),
    Guest,
}

impl From<TreeError> for Stop {
    fn from(error: TreeError) -> Self {
        Self::Host(error)
    }
}

/// The last component of a path, also of one like `.` or `dir/..`.
fn name_of(path: &Path) -> Result<PathBuf, GuestError> {
    if let Some(name) = path.file_name() {
        return Ok(name.into());
    }
    let full = path.canonicalize().map_err(|source| TreeError::Io {
        action: "read",
        path: path.to_owned(),
        source,
    })?;
    Ok(full.file_name().unwrap_or(OsStr::new("root")).into())
}

fn skipped(unpacker: &Unpacker) -> Vec<(PathBuf, String)> {
    unpacker
        .skipped()
        .iter()
        .map(|(path, kind)| (path.as_path().to_owned(), kind.clone()))
        .collect()
}
