//! The program that Nix runs for a build: it sends the build's files, shows its log, and makes its
//! outputs, as the build's user. It knows nothing that would be missed if it were killed.

use std::ffi::{OsStr, OsString};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use thiserror::Error;

use super::asked::{Asked, Build, Refusal};
use super::frame::{Frame, LARGEST};
use crate::connect::nix_message;
use crate::path_error::{At, PathError};

/// How loudly what is going on is told, in Nix's levels: as what it says anyway.
const INFO: u8 = 3;

/// How a build ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carried {
    /// With this exit code.
    Exit(i32),
    /// By this signal.
    Signal(i32),
}

/// It could not be built.
#[derive(Debug, Error)]
pub enum RunError {
    /// The description of the build.
    #[error(transparent)]
    Path(#[from] PathError),
    /// It is none.
    #[error("{} is no description of a build", file.display())]
    Description {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// It cannot be built by an external builder.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Nobody listens.
    #[error("no service of external builds listens at {}", socket.display())]
    Nobody {
        /// Its socket.
        socket: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The service is gone.
    #[error("the service of external builds is gone")]
    Gone(#[source] io::Error),
    /// The same, with a connection that ended as if in order.
    #[error("the service of external builds ended before the build did")]
    Ended,
    /// The service could not build it.
    #[error("{0}")]
    Failed(String),
    /// A program of the host's.
    #[error("{program} has failed here")]
    Program {
        /// Its name.
        program: &'static str,
        /// How.
        #[source]
        source: io::Error,
    },
}

/// Builds what the file `description` says on the builder `name`, whose service of external builds
/// listens at `socket`. The log goes to `log`; programs are looked for in `search`.
///
/// # Errors
/// It was not built, for another reason than that the build failed.
pub fn run(
    name: &str,
    socket: &Path,
    description: &Path,
    search: &OsStr,
    log: &mut impl Write,
) -> Result<Carried, RunError> {
    let text = std::fs::read(description).at("read", description)?;
    let build: Build = serde_json::from_slice(&text).map_err(|source| RunError::Description {
        file: description.to_owned(),
        source,
    })?;
    let asked = Asked::new(build);
    asked.check(name)?;
    let service = UnixStream::connect(socket).map_err(|source| RunError::Nobody {
        socket: socket.to_owned(),
        source,
    })?;
    let mut run = Run {
        asked,
        service: BufReader::new(service),
        search: search.to_owned(),
    };
    run.ask()?;
    run.hear(log)
}

struct Run {
    asked: Asked,
    service: BufReader<UnixStream>,
    search: OsString,
}

impl Run {
    fn ask(&mut self) -> Result<(), RunError> {
        let asked =
            serde_json::to_vec(&self.asked).map_err(|error| RunError::Gone(error.into()))?;
        self.say(&Frame::Asked(asked))?;
        let directory = &self.asked.build.tmp_dir;
        let mut tar = Command::new(self.program("tar"))
            .args(["-cf", "-", "-C"])
            .arg(directory)
            .arg(".")
            // Files that macOS would add.
            .env("COPYFILE_DISABLE", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed("tar"))?;
        if let Some(mut files) = tar.stdout.take() {
            let mut piece = vec![0; LARGEST];
            loop {
                let length = files.read(&mut piece).map_err(failed("tar"))?;
                if length == 0 {
                    break;
                }
                self.say(&Frame::Files(piece[..length].to_vec()))?;
            }
        }
        ends_well("tar", tar)?;
        self.say(&Frame::Files(Vec::new()))
    }

    fn say(&mut self, frame: &Frame) -> Result<(), RunError> {
        let sent = self.service.get_mut().write_all(&frame.encode());
        sent.map_err(RunError::Gone)
    }

    fn hear(&mut self, log: &mut impl Write) -> Result<Carried, RunError> {
        loop {
            match Frame::read(&mut self.service).map_err(gone)? {
                Frame::Log(bytes) => show(log, &bytes)?,
                Frame::Note(text) => show(log, nix_message(INFO, &text).as_bytes())?,
                Frame::Output(name) => self.output(&name)?,
                Frame::Directory => self.directory()?,
                Frame::Exit(code) => return Ok(Carried::Exit(code)),
                Frame::Signal(signal) => return Ok(Carried::Signal(signal)),
                Frame::Failed(why) => return Err(RunError::Failed(why)),
                Frame::Asked(_) | Frame::Files(_) | Frame::Data(_) => return Err(nonsense()),
            }
        }
    }

    /// Makes an output, as Nix's own program does that: it knows how names are written in this
    /// host's store.
    fn output(&mut self, name: &str) -> Result<(), RunError> {
        let build = &self.asked.build;
        let path = Path::new(&build.real_store_dir).join(name);
        let is_asked_for = build.outputs.values().any(|it| Path::new(it) == path);
        if !is_asked_for {
            return Err(nonsense());
        }
        let restore = Command::new(self.program("nix-store"))
            .arg("--restore")
            .arg(path)
            // It warns of a home that is somebody else's.
            .env("HOME", &build.tmp_dir)
            .stdin(Stdio::piped())
            .spawn();
        self.feed("nix-store", restore)
    }

    /// Brings the directory of a build that has failed back to where Nix looks for it.
    fn directory(&mut self) -> Result<(), RunError> {
        let extract = Command::new(self.program("tar"))
            .args(["-xf", "-", "--no-same-owner", "-C"])
            .arg(&self.asked.build.tmp_dir)
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        // The build's own failure is what counts.
        match self.feed("tar", extract) {
            Err(RunError::Program { .. }) => Ok(()),
            fed => fed,
        }
    }

    /// Gives a program the data that comes now.
    fn feed(&mut self, program: &'static str, child: io::Result<Child>) -> Result<(), RunError> {
        let mut child = child.map_err(failed(program))?;
        let mut input: Option<ChildStdin> = child.stdin.take();
        loop {
            match Frame::read(&mut self.service).map_err(gone)? {
                Frame::Data(bytes) if bytes.is_empty() => break,
                Frame::Data(bytes) => {
                    // One that reads no further has failed, and says so at its end.
                    if input
                        .as_mut()
                        .is_some_and(|it| it.write_all(&bytes).is_err())
                    {
                        input = None;
                    }
                }
                Frame::Failed(why) => return Err(RunError::Failed(why)),
                _ => return Err(nonsense()),
            }
        }
        drop(input);
        ends_well(program, child)
    }

    fn program(&self, name: &str) -> PathBuf {
        crate::registration::find_nix(&self.search, name).unwrap_or_else(|| name.into())
    }
}

fn show(log: &mut impl Write, bytes: &[u8]) -> Result<(), RunError> {
    // Nix reads it as it comes.
    let shown = log.write_all(bytes).and_then(|()| log.flush());
    shown.map_err(RunError::Gone)
}

fn ends_well(program: &'static str, mut child: Child) -> Result<(), RunError> {
    let status = child.wait().map_err(failed(program))?;
    if status.success() {
        return Ok(());
    }
    Err(failed(program)(io::Error::other(status.to_string())))
}

fn failed(program: &'static str) -> impl Fn(io::Error) -> RunError {
    move |source| RunError::Program { program, source }
}

fn gone(error: io::Error) -> RunError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => RunError::Ended,
        _ => RunError::Gone(error),
    }
}

fn nonsense() -> RunError {
    RunError::Gone(io::ErrorKind::InvalidData.into())
}
