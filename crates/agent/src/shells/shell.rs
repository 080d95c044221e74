//! One bash that waits.
//!
//! It runs [`SERVER`]: again and again it forks a shell that says its process id, reads a text and
//! evaluates it, and when that has ended it says how. Its standard input is where texts come from,
//! its standard output where it speaks; the text's first line puts the command's own in their place,
//! by `/proc` from the agent, which made them. So nothing of ours is open in a command.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use machinist_sys::vfork::{Child, Program};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_setfl, fstat, stat};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, kill_process_group};

use super::Place;
use crate::login::Login;
use crate::spawn::{null, string, variables};

/// What a waiting bash runs. It is one line, so that lines of a text have their own numbers.
///
/// First it looks whether it can be what it is to be: a bash that counts lines in a text from one,
/// whose `/proc` shows this agent. Job control gives each command a process group. It runs in the
/// background, so that the shell does not end where it is interrupted. One that is stopped has not
/// ended; but nobody tells bash of what comes then, so it looks now and then.
const SERVER: &str = r#"[ ${BASH_VERSINFO-0} -ge 5 ]&&[ "$1" -ef /proc/self/fd/0 ]&&eval $'\n[ $LINENO = 2 ]'||exit;shift;set -m;while :;do (echo "P $BASHPID";IFS= read -rN 4 n&&IFS= read -rN "$n" n||exit;eval "$n")&wait -f $!;n=$?;while [ $n -gt 146 ]&&kill -0 $!;do read -rt 0.1;[ $? -gt 128 ]||exit;wait -f $!;n=$?;done;echo "E $n"||exit;done"#;

/// For a shell to say its process id, which it does before anything else.
const PATIENCE: Duration = Duration::from_secs(2);

/// A bash that waits, or that runs a command.
#[derive(Debug)]
pub(crate) struct Shell {
    pub(super) place: Place,
    server: Child,
    texts: OwnedFd,
    said: OwnedFd,
    /// What it said and we have not looked at.
    heard: Vec<u8>,
}

/// What a shell says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    /// The fork for the next command, or for this, has this process id.
    Pid(Pid),
    /// The command could not have its streams, and was not run.
    Failed,
    /// The command ended with this status.
    Ended(i32),
    /// Nothing any more: it is gone.
    Gone,
}

impl Shell {
    /// Starts one. Whether it can do what it is for shows later, by what it says.
    pub(super) fn start(place: Place, login: &Login) -> io::Result<Self> {
        let pipe = || pipe_with(PipeFlags::CLOEXEC);
        let ((input, texts), (said, output)) = (pipe()?, pipe()?);
        fcntl_setfl(&said, OFlags::NONBLOCK)?;
        let errors = null()?;
        let shell = login.shell.as_os_str();
        let probe = in_proc(&texts);
        // The second name is what a script sees as its own.
        let words = [
            shell,
            OsStr::new("-c"),
            OsStr::new(SERVER),
            shell,
            OsStr::new(&probe),
        ];
        let program = Program {
            files: vec![string(shell)?],
            argv: words.map(string).into_iter().collect::<Result<_, _>>()?,
            env: variables(login.env.iter().map(|(name, value)| (&**name, &**value)))?,
            dir: string(&place.dir)?,
            stdio: [input.as_fd(), output.as_fd(), errors.as_fd()],
            terminal: false,
            user: None,
        };
        let server = program.start().map_err(io::Error::other)?;
        Ok(Self {
            place,
            server,
            texts,
            said,
            heard: Vec::new(),
        })
    }

    /// Whether it has ended. It is reaped then.
    pub(super) fn has_ended(&self) -> bool {
        !matches!(self.server.try_wait(), Ok(None))
    }

    /// Readable once it has ended.
    pub(super) fn server(&self) -> BorrowedFd<'_> {
        self.server.as_fd()
    }

    /// Whether it is there, and `/proc` still shows what it saw there when it began.
    pub(super) fn is_well(&self) -> bool {
        if self.has_ended() {
            return false;
        }
        let seen = stat(in_proc(&self.texts));
        let made = fstat(&self.texts);
        matches!((seen, made), (Ok(seen), Ok(made)) if seen.st_ino == made.st_ino && seen.st_dev == made.st_dev)
    }

    /// Has it run a script on these streams, which are to be kept open until it has said its end.
    pub(super) fn give(
        &self,
        strict: bool,
        script: &OsStr,
        output: &OwnedFd,
        errors: &OwnedFd,
    ) -> io::Result<()> {
        let mut text = format!(
            "exec </dev/null 2>{} >{}||{{ echo F;exit;}};unset -v n;BASH_SUBSHELL=0 SECONDS=0;set +m;",
            in_proc(errors),
            in_proc(output),
        )
        .into_bytes();
        if strict {
            text.extend(b"set -euo pipefail\n");
        }
        text.extend(script.as_bytes());
        let mut message = format!("{:04}", text.len()).into_bytes();
        message.extend(text);
        // It has not read a byte of this pipe since it was empty: all of it fits.
        let written = rustix::io::write(&self.texts, &message)?;
        match written == message.len() {
            true => Ok(()),
            false => Err(io::ErrorKind::WriteZero.into()),
        }
    }

    /// What it says next, if it has said something.
    pub(super) fn listen(&mut self) -> Option<Word> {
        loop {
            if let Some(end) = self.heard.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.heard.drain(..=end).collect();
                return Some(parse(&line[..end]).unwrap_or(Word::Gone));
            }
            let mut buffer = [0; 64];
            match rustix::io::read(&self.said, &mut buffer) {
                Ok(count) if count > 0 => self.heard.extend_from_slice(&buffer[..count]),
                Err(Errno::AGAIN | Errno::INTR) => return None,
                Ok(_) | Err(_) => return Some(Word::Gone),
            }
        }
    }

    /// What it says next, after a while at most.
    pub(super) fn listen_within_reason(&mut self) -> Option<Word> {
        if let Some(word) = self.listen() {
            return Some(word);
        }
        let patience = Timespec::try_from(PATIENCE).ok()?;
        let _ = poll(&mut [PollFd::new(self, PollFlags::IN)], Some(&patience));
        self.listen()
    }

    /// Ends it. What it has forked for the next command ends by itself.
    pub(super) fn end(self) -> Child {
        let _ = kill_process_group(self.server.pid(), Signal::KILL);
        self.server
    }
}

impl AsFd for Shell {
    /// Readable when it says something.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.said.as_fd()
    }
}

/// How another process opens a file of ours.
fn in_proc(fd: &OwnedFd) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd())
}

fn parse(line: &[u8]) -> Option<Word> {
    let line = str::from_utf8(line).ok()?;
    if line == "F" {
        return Some(Word::Failed);
    }
    let (kind, number) = line.split_once(' ')?;
    let number = number.parse().ok()?;
    match kind {
        "P" => Pid::from_raw(number).map(Word::Pid),
        "E" => Some(Word::Ended(number)),
        _ => None,
    }
}

impl Place {
    /// The place of a directory, as it is now.
    pub(super) fn of(dir: &OsStr) -> Option<Self> {
        let it = std::fs::metadata(dir).ok()?;
        Some(Self {
            dir: dir.to_owned(),
            device: it.dev(),
            inode: it.ino(),
        })
    }
}
