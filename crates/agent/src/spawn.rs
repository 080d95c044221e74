//! From a command as the host describes it to a running process.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{self, Child, Stdio};

use machinist_wire::Blob;
use machinist_wire::message::{Command, Failure, Program, Size};
use rustix::fs::{Mode, OFlags};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::pty::OpenptFlags;

use crate::exec;
use crate::login::{Login, Logins};
use crate::plain::Plain;
use crate::users::{self, User};

/// A process and the agent's ends of its pipes.
pub(crate) struct Spawned {
    pub(crate) child: Child,
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: Option<OwnedFd>,
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

/// Starts a command.
pub(crate) fn spawn(request: &Command, logins: &mut Logins) -> Result<Spawned, Failure> {
    let name = request.user.as_deref().unwrap_or("root");
    let user = users::find(name).ok_or_else(|| Failure {
        text: format!("no user named {name}"),
        errno: 0,
    })?;
    let login = logins.of(&user);
    let direct = without_shell(request, &user, &login);
    let file = direct.as_ref().map(|direct| direct.file.clone());
    let argv = direct.map_or_else(|| argv(&request.program, &login), |direct| direct.argv);
    let Some(program) = argv.first() else {
        return Err(Failure {
            text: "empty command".into(),
            errno: 0,
        });
    };
    let dir = directory(request.dir.as_ref(), &user)?;
    let other = (user.uid != rustix::process::getuid().as_raw()).then_some(&user);
    let (status, reports) = pipe_with(PipeFlags::CLOEXEC)
        .map_err(|errno| failure("cannot make a pipe", &errno.into()))?;
    let detour = other.is_some() || request.pty.is_some();
    let mut command = if detour {
        let mut command = exec::command(other, request.pty.is_some(), &reports);
        command.args(&argv);
        // For the time of the fork alone: this process has one thread.
        fcntl_setfd(&reports, FdFlags::empty())
            .map_err(|errno| failure("cannot pass a pipe", &errno.into()))?;
        command
    } else {
        let mut command = process::Command::new(file.as_deref().unwrap_or(Path::new(program)));
        command.arg0(program).args(&argv[1..]);
        command
    };
    command.env_clear();
    if !request.clear_env {
        command.envs(login.env);
    }
    for (name, value) in &request.env {
        command.env(name.as_os_str(), value.as_os_str());
    }
    let cannot_run =
        |error: &io::Error| failure(format!("cannot run {}", program.display()), error);
    let spawned = inside(&dir, || match request.pty {
        Some(size) => on_terminal(command, size),
        None => on_pipes(command, request.stdin),
    });
    let spawned = spawned.map_err(|error| cannot_run(&error))?;
    drop(reports);
    if detour {
        // End of file once the command itself runs: the pipe closes on that exec.
        let mut errno = [0; 4];
        if std::fs::File::from(status).read_exact(&mut errno).is_ok() {
            let mut child = spawned.child;
            drop(child.wait());
            return Err(cannot_run(&io::Error::from_raw_os_error(
                i32::from_le_bytes(errno),
            )));
        }
    }
    Ok(spawned)
}

/// The program and arguments of a script that needs no shell. In an environment or for a user of the
/// request's own, what bash would find is for bash to say.
fn without_shell(request: &Command, user: &User, login: &Login) -> Option<Plain> {
    let ours = user.uid == rustix::process::getuid().as_raw();
    let usual = request.env.is_empty() && !request.clear_env && request.pty.is_none();
    match &request.program {
        Program::Shell { script, .. } if ours && usual => Plain::of(script.as_os_str(), &login.env),
        _ => None,
    }
}

fn argv(program: &Program, login: &Login) -> Vec<OsString> {
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

/// Where a command runs. A wrong directory is said here: from `exec` it looks like a wrong program.
fn directory(wanted: Option<&Blob>, user: &User) -> Result<OsString, Failure> {
    match wanted {
        Some(dir) => match std::fs::metadata(dir.as_path()) {
            Ok(meta) if meta.is_dir() => Ok(dir.as_os_str().to_owned()),
            Ok(_) => Err(failure(
                format!("cannot enter {dir}"),
                &io::ErrorKind::NotADirectory.into(),
            )),
            Err(error) => Err(failure(format!("cannot enter {dir}"), &error)),
        },
        None if Path::new(&user.home).is_dir() => Ok(user.home.clone().into()),
        None => Ok("/".into()),
    }
}

/// Starts something in a directory by going there ourselves: this process has one thread. A child
/// that would have to go there itself takes a fork, which costs more than all else that we do.
fn inside<T>(dir: &OsString, start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    std::env::set_current_dir(dir)?;
    let started = start();
    std::env::set_current_dir("/")?;
    started
}

fn nonblocking(fd: OwnedFd) -> io::Result<OwnedFd> {
    let flags = rustix::fs::fcntl_getfl(&fd)?;
    rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
    Ok(fd)
}

fn on_pipes(mut command: process::Command, stdin: bool) -> io::Result<Spawned> {
    command
        .process_group(0)
        .stdin(if stdin { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let stdin = child.stdin.take().map(OwnedFd::from);
    let stdout = child.stdout.take().map(OwnedFd::from);
    let stderr = child.stderr.take().map(OwnedFd::from);
    Ok(Spawned {
        child,
        stdin: stdin.map(nonblocking).transpose()?,
        stdout: stdout.map(nonblocking).transpose()?,
        stderr: stderr.map(nonblocking).transpose()?,
        terminal: None,
    })
}

fn on_terminal(mut command: process::Command, size: Size) -> io::Result<Spawned> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let ours = rustix::pty::openpt(flags)?;
    rustix::pty::unlockpt(&ours)?;
    resize(&ours, size)?;
    let path = rustix::pty::ptsname(&ours, Vec::new())?;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let theirs = rustix::fs::open(&path, flags, Mode::empty())?;
    // No process group here: the detour makes a session, which a group's leader cannot.
    let child = command
        .stdin(theirs.try_clone()?)
        .stdout(theirs.try_clone()?)
        .stderr(theirs)
        .spawn()?;
    let ours = nonblocking(ours)?;
    Ok(Spawned {
        child,
        stdin: Some(ours.try_clone()?),
        stdout: Some(ours.try_clone()?),
        stderr: None,
        terminal: Some(ours),
    })
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
