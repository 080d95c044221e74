//! A client of a session's socket: how other processes use a running session.

use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use crate::protocol::{self, Command, Fault, Hello, Part, Pty, Reply, Request, Verb};
use crate::stream::{self, Frame};

/// A connection to a session. It has one request open at a time; who wants more at once connects
/// more than once.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    hello: Hello,
    next: u64,
}

/// A request over a socket failed.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody listens there, or the connection broke.
    #[error("cannot talk to the session at {}", socket.display())]
    Connection {
        /// The socket.
        socket: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// What came is not the protocol.
    #[error("the session at {} said something that is not its protocol", socket.display())]
    Nonsense {
        /// The socket.
        socket: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The session is of another version.
    #[error(
        "the session at {} speaks version {theirs} of the session protocol, not {}: use the machinist that started it",
        socket.display(), protocol::VERSION
    )]
    Version {
        /// The socket.
        socket: PathBuf,
        /// Their version.
        theirs: u32,
    },
    /// The session says no.
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl Client {
    /// Connects to the session whose socket is at `socket`.
    ///
    /// # Errors
    /// Nobody listens there, or it is not a session of our version.
    pub async fn connect(socket: &Path) -> Result<Self, ClientError> {
        let broken = |source| ClientError::Connection {
            socket: socket.to_owned(),
            source,
        };
        let stream = connect(socket).await.map_err(broken)?;
        let (reader, writer) = stream.into_split();
        let mut reader = BufReader::new(reader);
        let line = read_line(&mut reader).await.map_err(broken)?;
        let hello: Hello = protocol::decode(&line).map_err(|source| ClientError::Nonsense {
            socket: socket.to_owned(),
            source,
        })?;
        if hello.protocol != protocol::VERSION {
            return Err(ClientError::Version {
                socket: socket.to_owned(),
                theirs: hello.protocol,
            });
        }
        Ok(Self {
            socket: socket.to_owned(),
            reader,
            writer,
            hello,
            next: 1,
        })
    }

    /// What the session said first.
    #[must_use]
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Asks for something and waits for its end. `part` gets what comes before.
    ///
    /// # Errors
    /// The session says no, or the connection breaks.
    pub async fn call<T: DeserializeOwned>(
        &mut self,
        verb: Verb,
        mut part: impl FnMut(Part),
    ) -> Result<T, ClientError> {
        let id = self.send(verb).await?;
        loop {
            let reply = self.reply().await?;
            if reply.id != id {
                continue;
            }
            if let Some(fault) = reply.error {
                return Err(fault.into());
            }
            if let Some(value) = reply.ok {
                return serde_json::from_value(value).map_err(|source| self.nonsense(source));
            }
            if let Some(piece) = reply.part {
                part(piece);
            }
        }
    }

    /// As [`Client::call`], for what has neither parts nor an answer.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn ask(&mut self, verb: Verb) -> Result<(), ClientError> {
        self.call::<serde_json::Value>(verb, |_| {}).await.map(drop)
    }

    /// Runs a command in a machine, with its streams over this connection. With no `command`, a
    /// login shell.
    ///
    /// # Errors
    /// The session says no, or the connection breaks.
    pub async fn shell(
        mut self,
        machine: &str,
        command: Option<Command>,
        pty: Option<Pty>,
    ) -> Result<Shell, ClientError> {
        let verb = Verb::Shell {
            machine: machine.to_owned(),
            command,
            pty,
        };
        self.call::<serde_json::Value>(verb, |_| {}).await?;
        Ok(Shell {
            reader: ShellReader(self.reader),
            writer: ShellWriter(self.writer),
        })
    }

    /// Connects to a socket in a machine, by a [`Verb::Dial`]: what comes from it, and what goes to
    /// it.
    ///
    /// # Errors
    /// The session says no, nobody listens there, or the connection breaks.
    pub async fn dial(
        mut self,
        dial: Verb,
    ) -> Result<(BufReader<OwnedReadHalf>, OwnedWriteHalf), ClientError> {
        self.call::<serde_json::Value>(dial, |_| {}).await?;
        Ok((self.reader, self.writer))
    }

    async fn send(&mut self, verb: Verb) -> Result<u64, ClientError> {
        let id = self.next;
        self.next += 1;
        let line =
            protocol::encode(&Request { id, verb }).map_err(|source| self.nonsense(source))?;
        let sent = self.writer.write_all(&line).await;
        sent.map_err(|source| self.broken(source))?;
        Ok(id)
    }

    async fn reply(&mut self) -> Result<Reply, ClientError> {
        let line = read_line(&mut self.reader).await;
        let line = line.map_err(|source| self.broken(source))?;
        protocol::decode(&line).map_err(|source| self.nonsense(source))
    }

    fn broken(&self, source: io::Error) -> ClientError {
        ClientError::Connection {
            socket: self.socket.clone(),
            source,
        }
    }

    fn nonsense(&self, source: serde_json::Error) -> ClientError {
        ClientError::Nonsense {
            socket: self.socket.clone(),
            source,
        }
    }
}

/// The longest path that fits into a socket's address, in bytes.
pub(crate) const LONGEST_SOCKET_PATH: usize = 107;

/// Connects to a Unix socket, however long its path is.
///
/// # Errors
/// Nobody listens there.
pub async fn connect(socket: &Path) -> io::Result<UnixStream> {
    if socket.as_os_str().len() <= LONGEST_SOCKET_PATH {
        return UnixStream::connect(socket).await;
    }
    // A short path to the same place, for as long as its directory is open here.
    let parent = socket.parent().unwrap_or(Path::new("/"));
    let name = socket.file_name().unwrap_or_default();
    let directory = std::fs::File::open(parent)?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name);
    UnixStream::connect(short).await
}

/// Reads a line without its end. A connection that ends instead is an error.
async fn read_line(reader: &mut BufReader<OwnedReadHalf>) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let most = protocol::LONGEST_LINE as u64;
    reader.take(most).read_until(b'\n', &mut line).await?;
    if line.pop() == Some(b'\n') {
        Ok(line)
    } else {
        Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the session has ended",
        ))
    }
}

/// The two ends of a command's stream. They may be used side by side.
#[derive(Debug)]
pub struct Shell {
    /// What comes out of the command.
    pub reader: ShellReader,
    /// What goes into it.
    pub writer: ShellWriter,
}

/// What comes out of a command.
#[derive(Debug)]
pub struct ShellReader(BufReader<OwnedReadHalf>);

impl ShellReader {
    /// The next frame; the last is [`Frame::Exit`] or [`Frame::Failed`]. `None`: the session ended.
    ///
    /// # Errors
    /// The connection breaks.
    pub async fn next(&mut self) -> io::Result<Option<Frame>> {
        stream::read(&mut self.0).await
    }
}

/// What goes into a command.
#[derive(Debug)]
pub struct ShellWriter(OwnedWriteHalf);

impl ShellWriter {
    /// Gives input. No bytes end it.
    ///
    /// # Errors
    /// The connection breaks.
    pub async fn input(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return stream::write(&mut self.0, &Frame::Input(Vec::new())).await;
        }
        for piece in bytes.chunks(stream::LARGEST) {
            stream::write(&mut self.0, &Frame::Input(piece.to_vec())).await?;
        }
        Ok(())
    }

    /// Tells the terminal's new size.
    ///
    /// # Errors
    /// The connection breaks.
    pub async fn resize(&mut self, rows: u16, cols: u16) -> io::Result<()> {
        stream::write(&mut self.0, &Frame::Resize { rows, cols }).await
    }

    /// Sends a signal to the command's process group.
    ///
    /// # Errors
    /// The connection breaks.
    pub async fn signal(&mut self, number: u8) -> io::Result<()> {
        stream::write(&mut self.0, &Frame::Signal(number)).await
    }
}
