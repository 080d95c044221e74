//! Running a builder: out of harm's way, listened to, and never outliving us.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use machinist_sys::process;

use crate::error::ImageError;
use crate::progress::{Cancel, Job};

/// Lines of a builder's output that an error shows.
const TAIL: usize = 15;

/// An ordinary user's search path may lack the places of programs that administrate.
const SYSTEM_PROGRAMS: &str = "PATH=\"$PATH:/usr/local/sbin:/usr/sbin:/sbin\"";

/// A program to run.
#[derive(Debug)]
pub(crate) struct Tool {
    /// Its name, to be found in `PATH`.
    pub(crate) program: &'static str,
    /// The Debian package that has it.
    pub(crate) package: &'static str,
    /// Its arguments.
    pub(crate) args: Vec<OsString>,
    /// Where it makes its temporary files; the host's own place where `None`.
    pub(crate) temporary: Option<PathBuf>,
    /// Whether it gets namespaces of its own for mounts and processes: all that it mounts and
    /// starts vanishes with it.
    pub(crate) isolated: bool,
    /// What to do about a failure, given what it said.
    pub(crate) hint: fn(&[String]) -> Option<String>,
}

/// A builder that is missing or failed.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// It is not installed.
    #[error("{program} is not installed")]
    Missing {
        /// The program.
        program: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// It could not be started or listened to.
    #[error("cannot run {program}")]
    Start {
        /// The program.
        program: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// It ended badly. Its own last words are part of the text.
    #[error(
        "{program} failed ({status}) on {what}; it said last:{}",
        indented(said)
    )]
    Failed {
        /// The program.
        program: &'static str,
        /// What it was building.
        what: String,
        /// How it ended.
        status: ExitStatus,
        /// Its last lines.
        said: Vec<String>,
        /// What to do about it, where we know.
        hint: Option<String>,
    },
}

fn indented(lines: &[String]) -> String {
    lines.iter().map(|line| format!("\n    {line}")).collect()
}

impl ToolError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Missing { package, .. } => Some(format!("apt-get install {package}")),
            Self::Start { .. } => None,
            Self::Failed { hint, .. } => hint.clone(),
        }
    }

    /// Whether it failed for want of space.
    pub(crate) fn says_disk_full(&self) -> bool {
        let full = |line: &String| {
            line.contains("No space left on device")
                || line.contains("don't have enough free space")
                || line.contains("Disk quota exceeded")
        };
        matches!(self, Self::Failed { said, .. } if said.iter().any(full))
    }
}

/// The whole command line, for root or for an ordinary user. Pure, so that it can be tested.
///
/// unshare(1) is from util-linux, which every Debian has. `--kill-child` makes its child die with
/// it, and that child is the first process of a PID namespace, so everything in there dies with
/// that. Mounts of the host come in, none goes out (`slave`). An ordinary user is root in a user
/// namespace with the ids that `/etc/subuid` gives them, so that files have all the owners they need.
pub(crate) fn command_line(tool: &Tool, root: bool) -> Vec<OsString> {
    let mut words = Vec::new();
    if !root {
        words.extend(["--map-root-user", "--map-auto"]);
    }
    if tool.isolated {
        words.extend(["--mount", "--propagation", "slave"]);
        words.extend(["--pid", "--fork", "--kill-child", "--mount-proc"]);
    }
    let mut line: Vec<OsString> = Vec::new();
    if !words.is_empty() {
        line.push("unshare".into());
        line.extend(words.into_iter().map(OsString::from));
        line.push("--".into());
    }
    line.push(tool.program.into());
    line.extend(tool.args.iter().cloned());
    line
}

/// Whether we are root, and need no namespace to be it.
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// What an ordinary user lacks when unshare itself fails.
fn unprivileged_hint(said: &[String]) -> Option<String> {
    let failed = |line: &String| line.starts_with("unshare:") || line.starts_with("newuidmap:");
    (!is_root() && said.iter().any(failed)).then(|| {
        "give this user a range of ids (usermod --add-subuids 100000-165535 --add-subgids \
         100000-165535 NAME) and apt-get install uidmap; or be root"
            .to_owned()
    })
}

/// Runs it to its end, or to ours.
///
/// `listen` gets each line that it prints.
pub(crate) fn run(
    tool: &Tool,
    job: &Job<'_>,
    listen: &mut dyn FnMut(&str),
) -> Result<(), ImageError> {
    if !installed(tool.program) {
        return Err(missing(tool).into());
    }
    let start = |source| ToolError::Start {
        program: tool.program,
        source,
    };
    let line = command_line(tool, is_root());
    tracing::debug!(?line, "running");
    let (reader, writer) = io::pipe().map_err(start)?;
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("{SYSTEM_PROGRAMS}; exec \"$@\""), "sh"])
        .args(&line)
        .stdin(Stdio::null())
        .stdout(writer.try_clone().map_err(start)?)
        .stderr(writer)
        // We read what they say, and so does the next person.
        .env("LC_ALL", "C.UTF-8")
        .env_remove("LANGUAGE")
        .env("DEBIAN_FRONTEND", "noninteractive");
    if let Some(directory) = &tool.temporary {
        command.env("TMPDIR", directory);
    }
    let mut child = process::spawn(command).map_err(start)?;
    let said = follow(&mut child, reader, job.cancel, listen);
    let status = child.wait().map_err(start)?;
    job.cancel.check()?;
    if status.success() {
        return Ok(());
    }
    let said: Vec<String> = said.into();
    Err(ToolError::Failed {
        program: tool.program,
        what: job.what.to_owned(),
        status,
        hint: unprivileged_hint(&said).or_else(|| (tool.hint)(&said)),
        said,
    }
    .into())
}

/// Listens until everybody has closed the pipe, or kills the child when cancelled.
fn follow(
    child: &mut process::Child,
    reader: io::PipeReader,
    cancel: &Cancel,
    listen: &mut dyn FnMut(&str),
) -> VecDeque<String> {
    let (sender, lines) = mpsc::channel();
    let thread = thread::spawn(move || {
        for line in BufReader::new(reader).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    let mut said = VecDeque::with_capacity(TAIL + 1);
    loop {
        match lines.recv_timeout(Duration::from_millis(100)) {
            Ok(line) => {
                listen(&line);
                if !line.is_empty() {
                    said.push_back(line);
                }
                if said.len() > TAIL {
                    said.pop_front();
                }
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {}
        }
        // A failed kill means that it is dead, and then the pipe closes by itself.
        if cancel.is_cancelled() && child.kill_group().is_ok() {
            break;
        }
    }
    drop(lines);
    // It ends with the pipe, which the killed or ended child no longer holds open. It cannot panic.
    drop(thread);
    said
}

/// Removes a tree of an ordinary user that has files of other ids: only inside of the user
/// namespace they are the user's to remove.
pub(crate) fn remove_mapped(tree: &Path) -> io::Result<()> {
    let tool = Tool {
        program: "rm",
        package: "coreutils",
        args: vec![
            "--recursive".into(),
            "--force".into(),
            "--one-file-system".into(),
            "--".into(),
            tree.into(),
        ],
        temporary: None,
        isolated: false,
        hint: |_| None,
    };
    let line = command_line(&tool, false);
    let mut command = Command::new(&line[0]);
    command
        .args(&line[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if process::spawn(command)?.wait()?.success() {
        Ok(())
    } else {
        Err(io::ErrorKind::PermissionDenied.into())
    }
}

fn missing(tool: &Tool) -> ToolError {
    ToolError::Missing {
        program: tool.program,
        package: tool.package,
    }
}

/// Whether it is to be found. Asked before, because inside of unshare its absence has no exit status
/// of its own.
fn installed(program: &str) -> bool {
    Command::new("sh")
        .args([
            "-c",
            &format!("{SYSTEM_PROGRAMS}; command -v -- \"$1\" >/dev/null"),
        ])
        .args(["sh", program])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, isolated: bool) -> Tool {
        Tool {
            program: "sh",
            package: "dash",
            args: vec!["-c".into(), script.into()],
            temporary: None,
            isolated,
            hint: |_| None,
        }
    }

    fn job(cancel: &Cancel) -> Job<'_> {
        Job {
            what: "a test",
            progress: &|_| (),
            cancel,
        }
    }

    #[test]
    fn isolation_wraps_the_command() {
        let mut lines = String::new();
        for (isolated, root) in [(false, true), (true, true), (false, false), (true, false)] {
            let words = command_line(&shell("true", isolated), root);
            let words: Vec<_> = words.iter().map(|word| word.to_str().unwrap()).collect();
            lines.push_str(&format!("{}\n", words.join(" ")));
        }
        insta::assert_snapshot!(lines, @r"
        sh -c true
        unshare --mount --propagation slave --pid --fork --kill-child --mount-proc -- sh -c true
        unshare --map-root-user --map-auto -- sh -c true
        unshare --map-root-user --map-auto --mount --propagation slave --pid --fork --kill-child --mount-proc -- sh -c true
        ");
    }

    #[test]
    fn a_failure_shows_last_lines_and_status() {
        let cancel = Cancel::new();
        let tool = shell("seq 100; echo oops >&2; exit 3", false);
        let mut count = 0;
        let error = run(&tool, &job(&cancel), &mut |_| count += 1).unwrap_err();
        assert_eq!(count, 101);
        let text = error.to_string();
        assert!(
            text.starts_with("sh failed (exit status: 3) on a test; it said last:\n    87\n"),
            "{text}"
        );
        assert!(text.ends_with("\n    100\n    oops"), "{text}");
    }

    #[test]
    fn a_full_disk_is_recognised() {
        let cancel = Cancel::new();
        let tool = shell(
            "echo 'dpkg: write error: No space left on device'; exit 1",
            false,
        );
        let ImageError::Tool(error) = run(&tool, &job(&cancel), &mut |_| ()).unwrap_err() else {
            panic!("not a tool's error");
        };
        assert!(error.says_disk_full());
    }

    #[test]
    fn a_missing_tool_names_its_package() {
        let cancel = Cancel::new();
        let tool = Tool {
            program: "machinist-no-such-tool",
            package: "some-package",
            args: Vec::new(),
            temporary: None,
            isolated: false,
            hint: |_| None,
        };
        let error = run(&tool, &job(&cancel), &mut |_| ()).unwrap_err();
        assert_eq!(error.to_string(), "machinist-no-such-tool is not installed");
        assert_eq!(error.hint().unwrap(), "apt-get install some-package");
    }

    #[test]
    fn cancelling_kills_it() {
        let cancel = Cancel::new();
        let tool = shell("echo begun; sleep 1000 & wait", false);
        let error = run(&tool, &job(&cancel), &mut |_| cancel.cancel()).unwrap_err();
        assert!(matches!(error, ImageError::Interrupted));
    }
}
