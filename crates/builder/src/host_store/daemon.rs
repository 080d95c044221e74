//! The host's Nix daemon, asked which paths are valid, and made to keep them.
//!
//! A temporary root lasts as long as the connection that asked for it: whatever happens to us, the host
//! keeps nothing for longer than we live.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::Shutdown;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::talk::CLIENT_MAGIC;
use super::words::Words;

/// How a daemon answers.
const DAEMON_MAGIC: u64 = 0x6478_696f;
/// The version that we speak; daemons speak any that is not newer than their own.
const VERSION: u64 = 1 << 8 | 35;
/// More than any string or list of an answer has.
const LONGEST: u64 = 1 << 24;
/// Questions that are asked before their answers are read.
const AT_ONCE: usize = 64;

/// `AddTempRoot`
const ADD_TEMP_ROOT: u64 = 11;
/// `QueryPathInfo`
const QUERY_PATH_INFO: u64 = 26;

/// What a daemon says before its answer.
mod before {
    pub(super) const NEXT: u64 = 0x6f6c_6d67;
    pub(super) const LAST: u64 = 0x616c_7473;
    pub(super) const ERROR: u64 = 0x6378_7470;
    pub(super) const START_ACTIVITY: u64 = 0x5354_5254;
    pub(super) const STOP_ACTIVITY: u64 = 0x5354_4f50;
    pub(super) const RESULT: u64 = 0x5253_4c54;
}

/// What Nix knows of a valid path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Info {
    /// Empty where it is not known.
    pub(super) deriver: String,
    /// SHA-256 of its archive, in hexadecimal digits.
    pub(super) hash: String,
    pub(super) references: Vec<String>,
    /// Bytes of its archive.
    pub(super) size: u64,
}

/// A connection to the daemon.
#[derive(Debug)]
pub(super) struct Daemon(BufReader<UnixStream>);

impl Daemon {
    /// Connects to the one that listens at `socket`.
    pub(super) async fn connect(socket: &Path) -> io::Result<Self> {
        let mut daemon = Self(BufReader::new(UnixStream::connect(socket).await?));
        let hello = Words::new().number(CLIENT_MAGIC).number(VERSION);
        daemon.send(hello.number(0).number(0)).await?;
        if daemon.number().await? != DAEMON_MAGIC {
            return Err(nonsense("it is no Nix daemon"));
        }
        let version = daemon.number().await?;
        if version < VERSION || version >> 8 != VERSION >> 8 {
            return Err(nonsense("it is older than Nix 2.15"));
        }
        let _its_own_version = daemon.text().await?;
        let _whether_we_are_trusted = daemon.number().await?;
        daemon.before().await?;
        Ok(daemon)
    }

    /// Makes the host keep what is at these paths as long as this connection lasts; then says what
    /// each of them is, in this order. `None`: it is not valid.
    pub(super) async fn keep(&mut self, paths: &[String]) -> io::Result<Vec<Option<Info>>> {
        let mut found = Vec::new();
        for some in paths.chunks(AT_ONCE) {
            let asked = some.iter().fold(Words::new(), |words, path| {
                let root = words.number(ADD_TEMP_ROOT).text(path);
                root.number(QUERY_PATH_INFO).text(path)
            });
            self.send(asked).await?;
            for _ in some {
                self.before().await?;
                self.number().await?;
                self.before().await?;
                found.push(match self.number().await? {
                    0 => None,
                    _ => Some(self.info().await?),
                });
            }
        }
        Ok(found)
    }

    /// Ends when the daemon has gone, or this has.
    pub(super) fn end(&self) -> io::Result<impl Future<Output = ()> + use<>> {
        let socket = self.0.get_ref().as_fd().try_clone_to_owned()?;
        Ok(async move {
            // tokio does not tell this from an answer that can be read, so a thread asks the kernel.
            let waited = tokio::task::spawn_blocking(move || hung_up(&socket, None));
            drop(waited.await);
        })
    }

    /// Whether the daemon has gone.
    pub(super) fn has_ended(&self) -> bool {
        hung_up(&self.0.get_ref().as_fd(), Some(&Timespec::default()))
    }

    async fn info(&mut self) -> io::Result<Info> {
        let deriver = self.text().await?;
        let hash = self.text().await?;
        let references = self.texts().await?;
        let _registered_at = self.number().await?;
        let size = self.number().await?;
        let _built_here = self.number().await?;
        let _signatures = self.texts().await?;
        let _address_of_contents = self.text().await?;
        Ok(Info {
            deriver,
            hash,
            references,
            size,
        })
    }

    /// What comes before an answer, to its end.
    async fn before(&mut self) -> io::Result<()> {
        loop {
            match self.number().await? {
                before::LAST => return Ok(()),
                before::NEXT => drop(self.text().await?),
                before::ERROR => return Err(self.error().await?),
                before::START_ACTIVITY => {
                    for _ in 0..3 {
                        self.number().await?;
                    }
                    self.text().await?;
                    self.mixed().await?;
                    self.number().await?;
                }
                before::STOP_ACTIVITY => drop(self.number().await?),
                before::RESULT => {
                    self.number().await?;
                    self.number().await?;
                    self.mixed().await?;
                }
                _ => return Err(nonsense("it does not keep to the protocol")),
            }
        }
    }

    /// Numbers and strings, each with its kind.
    async fn mixed(&mut self) -> io::Result<()> {
        for _ in 0..self.count().await? {
            match self.number().await? {
                0 => drop(self.number().await?),
                _ => drop(self.text().await?),
            }
        }
        Ok(())
    }

    async fn error(&mut self) -> io::Result<io::Error> {
        let _kind = self.text().await?;
        let _level = self.number().await?;
        let _name = self.text().await?;
        Ok(io::Error::other(self.text().await?))
    }

    async fn texts(&mut self) -> io::Result<Vec<String>> {
        let mut texts = Vec::new();
        for _ in 0..self.count().await? {
            texts.push(self.text().await?);
        }
        Ok(texts)
    }

    async fn text(&mut self) -> io::Result<String> {
        let length = self.count().await?;
        let mut bytes = vec![0; length.next_multiple_of(8)];
        self.0.read_exact(&mut bytes).await?;
        bytes.truncate(length);
        String::from_utf8(bytes).map_err(|_| nonsense("it says what is no text"))
    }

    async fn count(&mut self) -> io::Result<usize> {
        let count = self.number().await?;
        let count = usize::try_from(count).ok();
        count
            .filter(|count| *count as u64 <= LONGEST)
            .ok_or_else(|| nonsense("it says too much"))
    }

    async fn number(&mut self) -> io::Result<u64> {
        self.0.read_u64_le().await
    }

    async fn send(&mut self, words: Words) -> io::Result<()> {
        self.0.write_all(&words.done()).await
    }
}

/// Whoever waits for the end holds a descriptor of the connection, which is to end all the same.
impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended.
        _ = rustix::net::shutdown(self.0.get_ref(), Shutdown::Both);
    }
}

/// Whether nobody has the other end any more; waits for that, for so long.
fn hung_up(socket: &impl AsFd, within: Option<&Timespec>) -> bool {
    let mut polled = [PollFd::new(socket, PollFlags::empty())];
    loop {
        match rustix::event::poll(&mut polled, within) {
            Err(Errno::INTR) => {}
            ready => return ready.is_ok_and(|count| count > 0),
        }
    }
}

fn nonsense(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}
