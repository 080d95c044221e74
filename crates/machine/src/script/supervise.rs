//! The hidden verb `__watch`: watches over a start script and all that comes from it.
//!
//! A start script is not ours: it may go on as QEMU, or fork it, or leave other processes that go
//! their own ways. So this process is between: everything that the script forks stays below it (it
//! is a subreaper), and when the script ends, or the engine dies, however it dies, it ends all that.
//! The engine itself can kill it with its process group, in which the script is, too.
//!
//! What happens it tells, line by line, through a pipe ([`Said`]).

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus, Stdio};

use machinist_sys::process::Spawn;
use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, PidfdFlags, WaitOptions};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::unix::pipe;

use super::kin;
use super::unrunnable::unrunnable;
use crate::supervised::Supervised;

/// What is told, one line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    /// The script runs, as this process.
    Running(u32),
    /// The script ended with this wait status.
    Ended(i32),
    /// The script could not be run.
    Failed(String),
}

impl Said {
    fn parse(line: &str) -> Option<Self> {
        let (word, rest) = line.split_once(' ')?;
        match word {
            "running" => Some(Self::Running(rest.parse().ok()?)),
            "ended" => Some(Self::Ended(rest.parse().ok()?)),
            "failed" => Some(Self::Failed(rest.to_owned())),
            _ => None,
        }
    }
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Running(pid) => write!(f, "running {pid}"),
            Self::Ended(status) => write!(f, "ended {status}"),
            Self::Failed(reason) => write!(f, "failed {}", reason.replace('\n', " ")),
        }
    }
}

/// A script that runs, and what it says. Dropping it kills everything that came from it.
pub(crate) struct Script {
    supervisor: Supervised,
    said: Lines<BufReader<pipe::Receiver>>,
    pub(crate) stdin: Option<pipe::Sender>,
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
}

/// What is to be run.
pub(crate) struct Start<'a> {
    /// Our own program.
    pub(crate) exe: &'a Path,
    /// The path of a script, or a command line for `/bin/sh`.
    pub(crate) command: &'a str,
    /// What is added to it.
    pub(crate) arguments: &'a [OsString],
    /// What is not as in our own environment. What has no value is not there.
    pub(crate) environment: &'a [(String, Option<OsString>)],
    /// Where it runs.
    pub(crate) dir: &'a Path,
}

impl Script {
    /// Starts the script, with all three standard streams in our hands.
    pub(crate) fn start(start: &Start<'_>) -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        let mut spawn = Spawn::new(start.exe);
        let said = spawn.pass(writer.into());
        let command = spawn.command();
        command.arg("__watch");
        command.args([said.to_string(), std::process::id().to_string()]);
        command.args(words(start.command, start.arguments));
        for (name, value) in start.environment {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.current_dir(start.dir);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(Stdio::piped());
        let mut child = spawn.start()?;
        let stdin = child.stdin.take().map(OwnedFd::from);
        let reader = pipe::Receiver::from_owned_fd(reader.into())?;
        Ok(Self {
            stdin: stdin.map(pipe::Sender::from_owned_fd).transpose()?,
            stdout: child.stdout.take().map(OwnedFd::from),
            stderr: child.stderr.take().map(OwnedFd::from),
            supervisor: Supervised::new(child)?,
            said: BufReader::new(reader).lines(),
        })
    }

    /// What is told next. After the script's end, and where it is lost, [`Said::Ended`] or
    /// [`Said::Failed`].
    pub(crate) async fn next(&mut self) -> Said {
        loop {
            tokio::select! {
                biased;
                line = self.said.next_line() => match line {
                    Ok(Some(line)) => {
                        if let Some(said) = Said::parse(&line) {
                            return said;
                        }
                    }
                    _ => return Said::Failed("its supervisor was lost".to_owned()),
                },
                _ = self.supervisor.ended() => {
                    // Somebody killed it, or what it said is still in the pipe.
                    while let Ok(Ok(Some(line))) =
                        tokio::time::timeout(SAID, self.said.next_line()).await
                    {
                        if let Some(said) = Said::parse(&line) {
                            return said;
                        }
                    }
                    return Said::Failed("its supervisor was killed".to_owned());
                }
            }
        }
    }

    /// Kills everything that came from the script, and waits for that.
    pub(crate) async fn kill(&mut self) {
        let pid = self.supervisor.pid();
        let killing = tokio::task::spawn_blocking(move || kin::kill_descendants(pid));
        drop(killing.await);
        self.supervisor.kill();
        // Only its being reaped by somebody else is an error, and then it is gone as well.
        drop(self.supervisor.ended().await);
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // The rest goes with the process group.
        kin::kill_descendants(self.supervisor.pid());
    }
}

/// How long after its end what it said may take to arrive.
const SAID: std::time::Duration = std::time::Duration::from_millis(100);

/// The words that run `command`. A path is run as it is, so that what cannot be run is told in the
/// kernel's words; everything else is for a shell.
fn words(command: &str, arguments: &[OsString]) -> Vec<OsString> {
    let path = command.starts_with('/') && !command.contains([' ', '\t', '\n', ';', '|', '&', '$']);
    let mut words: Vec<OsString> = if path || Path::new(command).is_file() {
        vec![command.into()]
    } else {
        // The arguments are the last command's, as if they had been written behind it.
        let script = format!("{command} \"$@\"");
        vec!["/bin/sh".into(), "-c".into(), script.into(), "sh".into()]
    };
    words.extend_from_slice(arguments);
    words
}

/// Runs the verb: the number of the pipe, the engine's process id, and the words of the script.
pub(crate) fn main(words: &[String]) -> ExitCode {
    let [pipe, engine, program, arguments @ ..] = words else {
        return ExitCode::FAILURE;
    };
    let Ok(mut said) = File::options()
        .write(true)
        .open(format!("/proc/self/fd/{pipe}"))
    else {
        return ExitCode::FAILURE;
    };
    let last = match supervise(&mut said, engine, program, arguments) {
        Ok(status) => Said::Ended(status.into_raw()),
        Err(error) => {
            let why = unrunnable(Path::new(program), error);
            Said::Failed(format!("cannot run {program}: {why}"))
        }
    };
    kin::kill_descendants(std::process::id());
    // Nobody to tell, if this fails: the engine is gone.
    drop(writeln!(said, "{last}"));
    ExitCode::SUCCESS
}

fn supervise(
    said: &mut File,
    engine: &str,
    program: &str,
    arguments: &[String],
) -> io::Result<ExitStatus> {
    let engine = engine.parse().ok().and_then(Pid::from_raw);
    let engine = engine.ok_or(io::ErrorKind::InvalidInput)?;
    let us = rustix::process::getpid();
    rustix::process::set_child_subreaper(Some(us))?;
    watch(engine)?;
    let child = Command::new(program).args(arguments).spawn()?;
    writeln!(said, "{}", Said::Running(child.id()))?;
    // All that is left to us is reaped, until the script itself ends.
    let script = Pid::from_child(&child);
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == script => {
                return Ok(ExitStatus::from_raw(status.as_raw()));
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// From now on the engine's death is not ours at once: first we end all that came from the script.
fn watch(engine: Pid) -> io::Result<()> {
    let pidfd = rustix::process::pidfd_open(engine, PidfdFlags::empty())?;
    rustix::process::set_parent_process_death_signal(None)?;
    // It may have died before that, and then nobody would tell.
    if rustix::process::getppid() != Some(engine) {
        return Err(io::Error::other("the engine is gone"));
    }
    let watcher = std::thread::Builder::new().name("watch".into());
    let watcher = watcher.spawn(move || {
        loop {
            let mut polled = [PollFd::new(&pidfd, PollFlags::IN)];
            match rustix::event::poll(&mut polled, None) {
                Err(rustix::io::Errno::INTR) => {}
                _ => break,
            }
        }
        kin::kill_descendants(std::process::id());
        std::process::exit(1);
    })?;
    drop(watcher);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(command: &str) -> Vec<String> {
        let words = words(command, &["-x".into(), "a b".into()]);
        let words = words.into_iter().map(|word| word.into_string().unwrap());
        words.collect()
    }

    #[test]
    fn a_path_is_run_and_a_command_is_read_by_a_shell() {
        assert_eq!(
            text("/nix/store/x-vm/bin/run-a-vm"),
            ["/nix/store/x-vm/bin/run-a-vm", "-x", "a b"]
        );
        assert_eq!(
            text("A=1 /bin/run-a-vm -m 64"),
            [
                "/bin/sh",
                "-c",
                "A=1 /bin/run-a-vm -m 64 \"$@\"",
                "sh",
                "-x",
                "a b"
            ]
        );
        assert_eq!(text("qemu-kvm")[..2], ["/bin/sh", "-c"]);
    }

    #[test]
    fn what_is_said_is_read_back() {
        for said in [
            Said::Running(7),
            Said::Ended(256),
            Said::Failed("no".into()),
        ] {
            assert_eq!(Said::parse(&said.to_string()), Some(said));
        }
        assert_eq!(Said::parse("nonsense"), None);
    }
}
