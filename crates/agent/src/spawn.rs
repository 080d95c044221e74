//! From a command as the host describes it to a running process.

use std::collections::BTreeMap;
use std::ffi::{CString, NulError, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use machinist_sys::vfork::{self, Child, Failed};
use machinist_wire::message::{Command, Failure, Program, Size};
use rustix::fs::{Mode, OFlags, fcntl_setfl};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::pty::OpenptFlags;

use crate::login::{Login, Logins, PATH};
use crate::plain;

/// The agent's ends of a command's streams.
pub(crate) struct Streams {
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: Option<OwnedFd>,
    /// Where the command has a terminal, this is the other end of it, and `stdin` and `stdout`
    /// are copies.
    pub(crate) terminal: Option<OwnedFd>,
}

/// Something that failed, with what was tried.
pub(crate) fn failure(text: impl Into<String>, error: &io::Error) -> Failure {
    let text = text.into();
    Failure {
        text: format!("{text}: {error}"),
        errno: error.raw_os_error().unwrap_or(0),
    }
}

/// Who a command runs as.
pub(crate) fn login<'a>(request: &Command, logins: &'a mut Logins) -> Result<&'a Login, Failure> {
    let name = request.user.as_deref().unwrap_or("root");
    logins.of(name).ok_or_else(|| Failure {
        text: format!("no user named {name}"),
        errno: 0,
    })
}

/// The command's ends of its streams.
pub(crate) struct Theirs {
    /// None where it has nothing to read.
    input: Option<OwnedFd>,
    output: OwnedFd,
    errors: OwnedFd,
}

impl Theirs {
    /// What it prints to.
    pub(crate) fn outputs(self) -> [OwnedFd; 2] {
        [self.output, self.errors]
    }
}

/// Pipes for what a command prints, made while nobody waits for anything.
#[derive(Default)]
pub(crate) struct Pipes {
    /// What is read from, which never blocks, and what is written to.
    ready: Vec<(OwnedFd, OwnedFd)>,
    /// A command has had some: there may be another.
    wanted: bool,
}

impl Pipes {
    /// Makes what the next command needs, if there was one.
    pub(crate) fn prepare(&mut self) {
        while self.wanted && self.ready.len() < 2 {
            match output() {
                Ok(pipe) => self.ready.push(pipe),
                // The next command says why.
                Err(_) => self.wanted = false,
            }
        }
    }

    fn take(&mut self) -> io::Result<(OwnedFd, OwnedFd)> {
        self.wanted = true;
        self.ready.pop().map_or_else(output, Ok)
    }
}

/// Starts a command, in a process of its own. Its ends of its streams are still open here too.
pub(crate) fn spawn(
    request: &Command,
    login: &Login,
    null: &OwnedFd,
    pipes: &mut Pipes,
) -> Result<(Child, Streams, Theirs), Failure> {
    let streams = match request.pty {
        Some(size) => on_terminal(size),
        None => on_pipes(request.stdin, pipes),
    };
    let (ours, theirs) = streams.map_err(|error| failure("cannot make a pipe", &error))?;
    let input = theirs.input.as_ref().unwrap_or(null);
    let stdio = [input, &theirs.output, &theirs.errors].map(AsFd::as_fd);
    if let Some(words) = plain_words(request, login)
        && let Ok(child) = start(request, login, &words, stdio)
    {
        return Ok((child, ours, theirs));
    }
    let child = start(request, login, &words(&request.program, login), stdio)?;
    Ok((child, ours, theirs))
}

/// The words of a script that may need no shell. What is not there, or not for the kernel to run, is
/// bash's to tell or to read; and so is what it would find in an environment or for a user of the
/// request's own.
fn plain_words(request: &Command, login: &Login) -> Option<Vec<OsString>> {
    let usual = request.env.is_empty() && !request.clear_env && request.pty.is_none();
    match &request.program {
        Program::Shell { script, .. } if usual && login.user.ids().is_none() => {
            plain::words(script.as_os_str(), &login.env)
        }
        _ => None,
    }
}

fn words(program: &Program, login: &Login) -> Vec<OsString> {
    match program {
        Program::Argv(words) => words
            .iter()
            .map(|word| word.as_os_str().to_owned())
            .collect(),
        Program::Shell { script, strict } => {
            let mut text = OsString::new();
            match (strict, login.bash) {
                (true, true) => text.push("set -euo pipefail\n"),
                (true, false) => text.push("set -eu\n"),
                (false, _) => {}
            }
            text.push(script.as_os_str());
            vec![login.shell.clone().into(), "-c".into(), text]
        }
    }
}

fn start(
    request: &Command,
    login: &Login,
    words: &[OsString],
    stdio: [BorrowedFd<'_>; 3],
) -> Result<Child, Failure> {
    let Some(name) = words.first() else {
        return Err(Failure {
            text: "empty command".into(),
            errno: 0,
        });
    };
    let dir = directory(request, login);
    let mut env = BTreeMap::new();
    if !request.clear_env {
        env.extend(login.env.iter().map(|(name, value)| (&**name, &**value)));
    }
    let own = request.env.iter();
    env.extend(own.map(|(name, value)| (name.as_os_str(), value.as_os_str())));
    let path = env.get(OsStr::new("PATH")).copied();
    let cannot_run = |error: &io::Error| failure(format!("cannot run {}", name.display()), error);
    let program = || -> Result<vfork::Program<'_>, NulError> {
        Ok(vfork::Program {
            files: files(name, path.unwrap_or(OsStr::new(PATH)))?,
            argv: words.iter().map(string).collect::<Result<_, _>>()?,
            env: variables(env.iter().map(|(name, value)| (*name, *value)))?,
            dir: string(dir)?,
            stdio,
            terminal: request.pty.is_some(),
            user: login.user.ids(),
        })
    };
    let program = program().map_err(|error| cannot_run(&error.into()))?;
    program.start().map_err(|failed| match failed {
        Failed::Directory(error) => failure(format!("cannot enter {}", dir.display()), &error),
        Failed::Process(error) | Failed::Program(error) => cannot_run(&error),
    })
}

/// Where a command runs.
fn directory<'a>(request: &'a Command, login: &'a Login) -> &'a OsStr {
    match &request.dir {
        Some(dir) => dir.as_os_str(),
        None if Path::new(&login.user.home).is_dir() => OsStr::new(&login.user.home),
        None => OsStr::new("/"),
    }
}

/// Where a program of this name may be, from the first place where there is something: for the kernel,
/// to try to run what is not there is half the work of running it.
fn files(name: &OsStr, path: &OsStr) -> Result<Vec<CString>, NulError> {
    let plain = string(name)?;
    if name.as_bytes().contains(&b'/') {
        return Ok(vec![plain]);
    }
    let missing = |file: &CString| {
        // From another directory a relative one is another.
        let here = file.as_bytes().starts_with(b"/");
        // `access` would give this process other credentials for the time of the call.
        let found = rustix::fs::stat(file);
        here && matches!(found, Err(Errno::NOENT | Errno::NOTDIR))
    };
    let dirs = path.as_bytes().split(|byte| *byte == b':');
    let all = dirs.map(|dir| string(Path::new(OsStr::from_bytes(dir)).join(name)));
    all.skip_while(|file| file.as_ref().is_ok_and(missing))
        .collect()
}

/// An environment as the kernel takes it.
pub(crate) fn variables<'a>(
    env: impl Iterator<Item = (&'a OsStr, &'a OsStr)>,
) -> Result<Vec<CString>, NulError> {
    env.map(|(name, value)| CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()))
        .collect()
}

pub(crate) fn string(text: impl AsRef<OsStr>) -> Result<CString, NulError> {
    CString::new(text.as_ref().as_bytes())
}

fn nonblocking(fd: OwnedFd) -> io::Result<OwnedFd> {
    fcntl_setfl(&fd, OFlags::NONBLOCK)?;
    Ok(fd)
}

/// A pipe for what a command prints.
fn output() -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    Ok((nonblocking(reader)?, writer))
}

/// Streams for a command, ours and its own.
fn on_pipes(stdin: bool, pipes: &mut Pipes) -> io::Result<(Streams, Theirs)> {
    let (input, stdin) = match stdin {
        true => {
            let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
            (Some(reader), Some(nonblocking(writer)?))
        }
        false => (None, None),
    };
    let ((stdout, output), (stderr, errors)) = (pipes.take()?, pipes.take()?);
    let ours = Streams {
        stdin,
        stdout,
        stderr: Some(stderr),
        terminal: None,
    };
    let theirs = Theirs {
        input,
        output,
        errors,
    };
    Ok((ours, theirs))
}

/// What has nothing to read, and takes everything.
pub(crate) fn null() -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    Ok(rustix::fs::open("/dev/null", flags, Mode::empty())?)
}

fn on_terminal(size: Size) -> io::Result<(Streams, Theirs)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let terminal = nonblocking(rustix::pty::openpt(flags)?)?;
    rustix::pty::unlockpt(&terminal)?;
    resize(&terminal, size)?;
    let path = rustix::pty::ptsname(&terminal, Vec::new())?;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let theirs = rustix::fs::open(&path, flags, Mode::empty())?;
    let ours = Streams {
        stdin: Some(terminal.try_clone()?),
        stdout: terminal.try_clone()?,
        stderr: None,
        terminal: Some(terminal),
    };
    let theirs = Theirs {
        input: Some(theirs.try_clone()?),
        output: theirs.try_clone()?,
        errors: theirs,
    };
    Ok((ours, theirs))
}

/// Tells a terminal its size.
pub(crate) fn resize(terminal: &impl AsFd, size: Size) -> io::Result<()> {
    let size = rustix::termios::Winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    Ok(rustix::termios::tcsetwinsize(terminal, size)?)
}
