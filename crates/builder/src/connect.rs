//! The client of a service: `machinist connect`, and what the other verbs ask.
//!
//! `connect` is what Nix runs for every build, so it is plain and quick: no runtime, two threads, and
//! nothing that would be missed if it were killed at any moment.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use thiserror::Error;

use crate::protocol::{self, Asked, Said};
use crate::state::State;

/// How long a service may say nothing: it gives signs of life far more often.
const SILENCE: Duration = Duration::from_secs(30);
/// How long a service may take until it listens.
const LISTENS: Duration = Duration::from_secs(20);
/// Bytes that are carried at once.
const CHUNK: usize = 256 * 1024;

/// A service cannot be reached, or says no.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// Nobody listens.
    #[error("builder {name} has no service that listens at {}", socket.display())]
    Nobody {
        /// The builder.
        name: String,
        /// Its socket.
        socket: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The service could not be started.
    #[error("cannot start the service of builder {name}")]
    Service {
        /// The builder.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The service has gone, or says nothing.
    #[error("the service of builder {name} does not answer")]
    Silent {
        /// The builder.
        name: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The service says no.
    #[error("{0}")]
    Refused(String),
}

/// A connection to a builder's service.
#[derive(Debug)]
pub struct Client {
    name: String,
    stream: BufReader<UnixStream>,
}

/// How a service that does not run is to be run: our own program, with these arguments. Its standard
/// output ends when it listens.
#[derive(Debug, Clone)]
pub struct Launch {
    /// Our program.
    pub exe: PathBuf,
    /// Its arguments.
    pub args: Vec<std::ffi::OsString>,
}

impl Client {
    /// Connects to the service of `state`.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn connect(state: &State) -> Result<Self, ConnectError> {
        let name = state.name();
        match UnixStream::connect(state.socket()) {
            Ok(stream) => {
                // Only an end of the stream ends a connection once it is joined.
                drop(stream.set_read_timeout(Some(SILENCE)));
                let stream = BufReader::new(stream);
                Ok(Self { name, stream })
            }
            Err(source) => Err(ConnectError::Nobody {
                name,
                socket: state.socket(),
                source,
            }),
        }
    }

    /// Connects, and starts the service first where none runs. The service lives on.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn connect_or_launch(state: &State, launch: &Launch) -> Result<Self, ConnectError> {
        let deadline = Instant::now() + LISTENS;
        loop {
            match Self::connect(state) {
                Err(error @ ConnectError::Nobody { .. }) if Instant::now() > deadline => {
                    return Err(error);
                }
                Err(ConnectError::Nobody { name, .. }) => {
                    // Whoever comes first has the lock; all others wait here until that one listens.
                    let launched = launch.run();
                    launched.map_err(|source| ConnectError::Service { name, source })?;
                }
                connected => return connected,
            }
        }
    }

    /// Asks, and returns what the service comes to say. What it notes on the way goes to `note`.
    ///
    /// # Errors
    /// It says no, or nothing.
    pub fn ask(&mut self, asked: &Asked, note: &mut dyn FnMut(&str)) -> Result<Said, ConnectError> {
        let sent = self.stream.get_mut().write_all(&protocol::line(asked));
        sent.map_err(|source| self.silent(source))?;
        loop {
            match self.next()? {
                Said::Note { text } => note(&text),
                Said::Still => {}
                Said::Failed { text } => return Err(ConnectError::Refused(text)),
                said => return Ok(said),
            }
        }
    }

    fn next(&mut self) -> Result<Said, ConnectError> {
        let mut line = Vec::new();
        let most = protocol::LONGEST_LINE as u64;
        let read = self.stream.by_ref().take(most).read_until(b'\n', &mut line);
        let said = read.and_then(|_| {
            if line.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            serde_json::from_slice(&line).map_err(io::Error::from)
        });
        said.map_err(|source| self.silent(source))
    }

    fn silent(&self, source: io::Error) -> ConnectError {
        ConnectError::Silent {
            name: self.name.clone(),
            source,
        }
    }

    /// Carries standard input and output until the machine ends the connection, or whoever started us
    /// is gone. To be called after [`Said::Joined`].
    ///
    /// # Errors
    /// The connection broke, or nobody reads our output.
    pub fn carry(self) -> io::Result<()> {
        // What came with the last line has been read already.
        let early = self.stream.buffer().to_vec();
        let mut stream = self.stream.into_inner();
        stream.set_read_timeout(None)?;
        let mut to_machine = stream.try_clone()?;
        // Files, not the locked and buffered ones of `std::io`.
        let mut stdin = std::fs::File::from(io::stdin().as_fd().try_clone_to_owned()?);
        let output: OwnedFd = io::stdout().as_fd().try_clone_to_owned()?;
        let mut stdout = std::fs::File::from(output.try_clone()?);
        // Nobody waits for these two: they end with the process.
        thread::spawn(move || {
            drop(pass(&mut stdin, &mut to_machine));
            drop(to_machine.shutdown(Shutdown::Write));
        });
        let broken = stream.try_clone()?;
        thread::spawn(move || {
            // Whoever would read what the machine says is gone: so is the build.
            wait_for_hang_up(&output);
            drop(broken.shutdown(Shutdown::Both));
        });
        stdout.write_all(&early)?;
        pass(&mut stream, &mut stdout)
    }
}

impl Launch {
    /// Runs the service, and waits until it listens or has ended.
    fn run(&self) -> io::Result<()> {
        let mut child = Command::new(&self.exe)
            .args(&self.args)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut said = String::new();
        if let Some(mut stdout) = child.stdout.take() {
            // It closes it.
            stdout.read_to_string(&mut said)?;
        }
        let ready = !said.is_empty();
        if ready {
            // What it says from now on is in its log. Whoever of us lives longer reaps it.
            drop(child.stderr.take());
            thread::spawn(move || drop(child.wait()));
            return Ok(());
        }
        let mut words = String::new();
        if let Some(stderr) = child.stderr.take() {
            drop(stderr.take(4096).read_to_string(&mut words));
        }
        let status = child.wait()?;
        // Another one has the lock, and listens or is about to.
        if status.code() == Some(i32::from(RUNS_ALREADY)) {
            thread::sleep(Duration::from_millis(10));
            return Ok(());
        }
        let text = words.trim();
        Err(io::Error::other(format!("{status}: {text}")))
    }
}

/// The exit status of a service that finds another one.
pub const RUNS_ALREADY: u8 = 75;

/// Copies to the end. Not by `io::copy`: between a socket and a pipe it splices, and the kernel holds
/// the pipe's lock while it waits for the socket, so that nobody can read what is in the pipe.
fn pass(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut bytes = vec![0; CHUNK];
    loop {
        match from.read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(length) => to.write_all(&bytes[..length])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Waits until nobody holds the other end of `file`, a pipe or a socket.
fn wait_for_hang_up(file: &impl AsFd) {
    loop {
        let mut polled = [PollFd::new(file, PollFlags::empty())];
        match rustix::event::poll(&mut polled, None) {
            Err(rustix::io::Errno::INTR) => {}
            _ => return,
        }
    }
}

/// The line by which a program that Nix's daemon runs tells the user something, whatever else is
/// between the two. `level` is Nix's: 0 is an error, 3 what is said anyway.
#[must_use]
pub fn nix_message(level: u8, text: &str) -> String {
    let message = serde_json::json!({ "action": "msg", "level": level, "msg": text });
    format!("@nix {message}\n")
}

/// Whether the path can be in a machine line: Nix splits it at white space, and its own decoding of
/// the rest is kept simple by letting through only plain letters.
#[must_use]
pub fn is_plain_path(path: &Path) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._+-".contains(byte);
    path.is_absolute() && path.as_os_str().as_encoded_bytes().iter().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_one_line() {
        let line = nix_message(0, "a\n\"b\"");
        assert_eq!(
            line,
            "@nix {\"action\":\"msg\",\"level\":0,\"msg\":\"a\\n\\\"b\\\"\"}\n"
        );
    }
}
