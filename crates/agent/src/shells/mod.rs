//! Shells that wait for commands.
//!
//! Most of what a short command costs is the start of its shell: the program is loaded and linked,
//! and bash sets itself up, each time with the same result. So where commands come one after the
//! other, the agent keeps a bash that has done all that, for root and a directory, and has it fork a
//! shell for each ([`shell`]). Only scripts that cannot tell the difference go there ([`text`]), and
//! only where the request is plain: root, no terminal, no input, the login's environment. Everything
//! else, and whatever finds no shell that is free, gets a process of its own as ever.
//!
//! A command's process is the shell's child, and not ours. Its process group, which is what it is
//! signalled by, is its own; how it ended the shell says.

mod shell;
mod text;

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use machinist_sys::vfork::{Child, End};
use machinist_wire::message::{Command, Program};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::login::Login;
use crate::plain;
use crate::spawn::{self, Streams};
use shell::{Shell, Word};

/// How many may be there at a time: commands that run side by side have one each.
const MOST: usize = 3;

/// How long one waits for a command.
const IDLE: Duration = Duration::from_secs(60);

/// After so many that did not come to wait, no more are started.
const PATIENCE: usize = 3;

/// Where a shell is: a directory, and which one that was when it went there.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    dir: OsString,
    device: u64,
    inode: u64,
}

/// The shells that wait.
#[derive(Debug, Default)]
pub(crate) struct Shells {
    /// Since when; those that waited longest first.
    idle: Vec<(Shell, Instant)>,
    busy: usize,
    /// Of which logins they are.
    logins: u64,
    /// Where the last script ran for which there was none.
    wanted: Option<Place>,
    failed: usize,
    /// Whether QEMU emulates our processor, once that was looked at.
    emulated: Option<bool>,
}

impl Shells {
    /// Has a shell that waits run this command. None where no shell can; one may then be started, for
    /// the next.
    pub(crate) fn run(
        &mut self,
        request: &Command,
        login: &Login,
        dying: &mut Vec<Child>,
    ) -> Option<(Job, Streams)> {
        let (script, strict) = script(request, login)?;
        if self.logins != login.generation {
            self.end(dying);
            self.logins = login.generation;
            self.failed = 0;
        }
        if self.failed >= PATIENCE || !text::fits(script.as_encoded_bytes()) {
            return None;
        }
        // There a fork's page faults cost more than the start of a small program.
        if self.is_emulated() && plain::words(script, &login.env).is_some() {
            return None;
        }
        let place = Place::of(spawn::directory(request, login))?;
        let found = self.idle.iter().position(|(it, _)| it.place == place);
        let Some(found) = found else {
            self.prepare(place, login, dying);
            return None;
        };
        let (shell, _) = self.idle.remove(found);
        let streams = shell.is_well().then(spawn::outputs).and_then(Result::ok);
        let given = streams.and_then(|(ours, theirs)| {
            let [output, errors] = &theirs;
            shell.give(strict, script, output, errors).ok()?;
            Some((ours, theirs))
        });
        let Some((ours, theirs)) = given else {
            self.failed += 1;
            dying.push(shell.end());
            return None;
        };
        self.busy += 1;
        let job = Job {
            shell,
            _theirs: theirs,
            pid: None,
            signalled: None,
        };
        Some((job, ours))
    }

    fn is_emulated(&mut self) -> bool {
        *self.emulated.get_or_insert_with(|| {
            let processors = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
            processors.contains("QEMU TCG CPU")
        })
    }

    /// Starts a shell where a second script would have had one.
    fn prepare(&mut self, place: Place, login: &Login, dying: &mut Vec<Child>) {
        if self.wanted.as_ref() != Some(&place) {
            self.wanted = Some(place);
            return;
        }
        if self.idle.len() + self.busy >= MOST {
            if self.idle.is_empty() {
                return;
            }
            dying.push(self.idle.remove(0).0.end());
        }
        match Shell::start(place, login) {
            Ok(shell) => self.idle.push((shell, Instant::now())),
            Err(_) => self.failed += 1,
        }
    }

    /// A command is over, and its shell waits for the next one.
    pub(crate) fn take_back(&mut self, job: Job) {
        self.busy -= 1;
        self.failed = 0;
        self.idle.push((job.shell, Instant::now()));
    }

    /// A command did not end as it should; its shell ends too.
    pub(crate) fn give_up(&mut self, job: Job, dying: &mut Vec<Child>) {
        self.busy -= 1;
        if job.pid.is_none() {
            self.failed += 1;
        }
        dying.push(job.shell.end());
    }

    /// Ends all that wait.
    pub(crate) fn end(&mut self, dying: &mut Vec<Child>) {
        dying.extend(self.idle.drain(..).map(|(shell, _)| shell.end()));
        self.wanted = None;
    }

    /// What is readable once one that waits has ended by itself.
    pub(crate) fn ends(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.idle.iter().map(|(shell, _)| shell.server())
    }

    /// Ends those that have waited for long, and takes leave of those that have ended. Somebody may
    /// wait for that: a container's system goes off when all processes in it are gone.
    pub(crate) fn clean_up(&mut self, dying: &mut Vec<Child>) {
        self.idle.retain(|(shell, _)| !shell.has_ended());
        while self.next_end().is_some_and(|at| at <= Instant::now()) {
            dying.push(self.idle.remove(0).0.end());
        }
    }

    /// When the next one will have waited for long.
    pub(crate) fn next_end(&self) -> Option<Instant> {
        self.idle.first().map(|(_, since)| *since + IDLE)
    }
}

/// The script of a request that is plain enough, and whether it is strict.
fn script<'a>(request: &'a Command, login: &Login) -> Option<(&'a OsStr, bool)> {
    let Program::Shell { script, strict } = &request.program else {
        return None;
    };
    let asked = !request.env.is_empty() || request.clear_env || request.stdin;
    let root = login.user.ids().is_none() && login.bash;
    let usual = |(name, _): &(OsString, OsString)| !text::is_telling(name.as_encoded_bytes());
    let plain = !asked && request.pty.is_none() && root && login.env.iter().all(usual);
    plain.then(|| (script.as_os_str(), *strict))
}

/// A command that a shell runs.
#[derive(Debug)]
pub(crate) struct Job {
    shell: Shell,
    /// The command's ends of its streams. They are closed when it has ended, so that nobody has to
    /// say that it has opened them.
    _theirs: [OwnedFd; 2],
    pid: Option<Pid>,
    /// The last signal that it got from us.
    signalled: Option<i32>,
}

/// How a command goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It runs.
    Began(Pid),
    Ended(End),
    /// It was not begun, and never will be.
    NotBegun,
    /// It could not have its streams, which has been told it began.
    Failed,
    /// It was begun, and its shell is gone.
    Lost,
}

impl Job {
    /// What is new.
    pub(crate) fn progress(&mut self) -> Option<Progress> {
        let word = self.shell.listen()?;
        Some(self.on_word(word))
    }

    fn on_word(&mut self, word: Word) -> Progress {
        match (word, self.pid) {
            (Word::Pid(pid), None) => {
                self.pid = Some(pid);
                Progress::Began(pid)
            }
            (Word::Ended(status), Some(_)) => {
                Progress::Ended(match self.signalled {
                    // The shell has one number for both.
                    Some(signal) if status == 128 + signal => End::Signal(signal),
                    _ => End::Status(status),
                })
            }
            (Word::Failed, Some(_)) => Progress::Failed,
            (_, None) => Progress::NotBegun,
            (Word::Gone | Word::Pid(_), Some(_)) => Progress::Lost,
        }
    }

    /// Signals the command. Until it has begun, we wait for that: it is about to.
    pub(crate) fn signal(&mut self, signal: Signal) {
        if self.pid.is_none()
            && let Some(Word::Pid(pid)) = self.shell.listen_within_reason()
        {
            self.pid = Some(pid);
        }
        self.signalled = Some(signal.as_raw());
        if let Some(pid) = self.pid {
            let _ = kill_process_group(pid, signal);
        }
    }
}

impl AsFd for Job {
    /// Readable when there is progress.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shell.as_fd()
    }
}
