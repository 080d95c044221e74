//! Starting a child.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::{OnceLock, mpsc};
use std::thread;

use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::process::{Pid, PidfdFlags, Signal};
use rustix::thread::UnshareFlags;

use super::child::{Child, ended_within};

/// What to start: a command, and the file descriptors it inherits beside the standard three.
#[derive(Debug)]
pub struct Spawn {
    command: Command,
    pass: Vec<OwnedFd>,
    cgroup: Option<OwnedFd>,
    first: bool,
    small_pages: bool,
}

impl Spawn {
    /// `program` with no arguments, our environment, our directory, and nothing on the standard
    /// three descriptors.
    #[must_use]
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(program);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Self::of(command)
    }

    fn of(command: Command) -> Self {
        Self {
            command,
            pass: Vec::new(),
            cgroup: None,
            first: false,
            small_pages: false,
        }
    }

    /// The command, to add arguments, environment and standard streams.
    pub fn command(&mut self) -> &mut Command {
        &mut self.command
    }

    /// Lets the child inherit `fd`. Returns the number by which the child knows it, to be named to
    /// it in an argument or in its environment. Our own copy is closed when the child has started.
    pub fn pass(&mut self, fd: OwnedFd) -> i32 {
        let number = fd.as_raw_fd();
        self.pass.push(fd);
        number
    }

    /// Starts the child in the cgroup whose `cgroup.procs` file, open for writing, is `procs`.
    pub fn cgroup(&mut self, procs: OwnedFd) {
        self.cgroup = Some(procs);
    }

    /// Makes the child the first process of a process-id namespace: when it ends, however it ends,
    /// the kernel kills everything that came from it. It gets a mount namespace of its own, with a
    /// `/proc` that shows that namespace.
    pub fn first_process(&mut self) {
        self.first = true;
    }

    /// Gives the child no large pages for its memory, also where it asks for them: it takes up what it
    /// touches, and no more.
    pub fn small_pages(&mut self) {
        self.small_pages = true;
    }

    /// Starts it from the calling thread, which must outlive it. For a process with one thread that
    /// has entered a process-id namespace: only the thread that entered it forks into it, and no
    /// thread can be made any more.
    ///
    /// # Errors
    /// As [`Spawn::start`].
    pub fn start_here(self) -> io::Result<Child> {
        fork(self)
    }

    /// Starts it.
    ///
    /// # Errors
    /// As [`Command::spawn`]: the program is not there, or may not be run, or the host is out of
    /// processes or file descriptors.
    pub fn start(self) -> io::Result<Child> {
        let (answer, answered) = mpsc::channel();
        spawner()
            .send(Job {
                spawn: self,
                answer,
            })
            .map_err(|_| io::Error::other("the spawner thread has ended"))?;
        answered
            .recv()
            .map_err(|_| io::Error::other("the spawner thread has ended"))?
    }
}

/// Starts `command` with the guarantees of this module. Its standard streams are as it says; unlike
/// [`Spawn::new`] this changes nothing in it.
///
/// # Errors
/// As [`Spawn::start`].
pub fn spawn(command: Command) -> io::Result<Child> {
    Spawn::of(command).start()
}

struct Job {
    spawn: Spawn,
    answer: mpsc::Sender<io::Result<Child>>,
}

/// The queue of the one thread that forks. It is the process's, as the death signal is.
fn spawner() -> &'static mpsc::Sender<Job> {
    static SPAWNER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    SPAWNER.get_or_init(|| {
        let (sender, jobs) = mpsc::channel::<Job>();
        let thread = thread::Builder::new().name("spawner".into());
        // Without the thread the receiver is gone, and every `start` says so.
        drop(thread.spawn(move || {
            for job in jobs {
                // Nobody waits for the answer any more: the child is dropped, which kills it.
                drop(job.answer.send(fork(job.spawn)));
            }
        }));
        sender
    })
}

/// Forks and executes, on the calling thread.
fn fork(spawn: Spawn) -> io::Result<Child> {
    let Spawn {
        mut command,
        pass,
        cgroup,
        first,
        small_pages,
    } = spawn;
    command.process_group(0);
    let parent = rustix::process::getpid();
    let numbers: Vec<i32> = pass.iter().map(AsRawFd::as_raw_fd).collect();
    let before_exec = move || {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have died before the signal was set; then nobody would send it, and we
        // belong to somebody else. (None is a parent outside of our process-id namespace.)
        if rustix::process::getppid().is_some_and(|now| now != parent) {
            return Err(io::Error::from(rustix::io::Errno::CHILD));
        }
        if small_pages {
            // A kernel that has no large pages gives none.
            let _ = rustix::thread::disable_transparent_huge_pages(true);
        }
        if let Some(procs) = &cgroup {
            rustix::io::write(procs, b"0")?;
        }
        if first {
            // SAFETY: unsharing is unsafe for `FILES` alone.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }?;
            rustix::mount::mount_change(
                c"/",
                MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
            )?;
            rustix::mount::mount(c"proc", c"/proc", c"proc", MountFlags::empty(), None)?;
        }
        for &number in &numbers {
            // SAFETY: the descriptor is open: `pass` of the function around lives until after the
            // fork, and the child has a copy of the whole table.
            let fd = unsafe { BorrowedFd::borrow_raw(number) };
            rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes system calls and reads memory that was
    // allocated before; it takes no lock and allocates nothing.
    unsafe { command.pre_exec(before_exec) };
    let child = if first {
        spawn_in_new_pid_namespace(command)
    } else {
        command.spawn()
    }?;
    drop(pass);
    Child::adopt(child)
}

/// Starts `command` as the first process of a process-id namespace, from a thread of its own: a
/// thread that has made such a namespace cannot make another, and may not go back where the one it
/// came from is another user's. The child dies with the thread, so that waits until it has ended.
fn spawn_in_new_pid_namespace(mut command: Command) -> io::Result<std::process::Child> {
    let (answer, answered) = mpsc::channel();
    let mut fork = move || -> io::Result<(std::process::Child, OwnedFd)> {
        // SAFETY: unsharing is unsafe for `FILES` alone.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWPID) }?;
        let child = command.spawn()?;
        let pidfd = rustix::process::pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
        Ok((child, pidfd))
    };
    let thread = thread::Builder::new()
        .name("first".into())
        .stack_size(64 << 10);
    // It ends by itself.
    drop(thread.spawn(move || match fork() {
        Ok((child, pidfd)) => {
            // The asker waits.
            drop(answer.send(Ok(child)));
            drop(ended_within(pidfd.as_fd(), None));
        }
        Err(error) => drop(answer.send(Err(error))),
    })?);
    answered
        .recv()
        .map_err(|_| io::Error::other("the thread that starts a first process has ended"))?
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::super::shell;
    use super::*;

    #[test]
    fn a_missing_program_is_an_error_of_the_start() {
        let error = Spawn::new("/no/such/program").start().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn large_pages_are_for_who_may_have_them() {
        let asks = || shell("grep -q '^THP_enabled:[[:space:]]*0$' /proc/$$/status");
        let mut small = asks();
        small.small_pages();
        assert_eq!(small.start().unwrap().wait().unwrap().code(), Some(0));
        assert_eq!(asks().start().unwrap().wait().unwrap().code(), Some(1));
    }

    #[test]
    fn a_passed_descriptor_keeps_its_number() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut spawn = Spawn::new("/bin/sh");
        let number = spawn.pass(writer.into());
        spawn
            .command()
            .args(["-c", &format!("echo hello >/proc/self/fd/{number}")]);
        let mut child = spawn.start().unwrap();
        let mut said = String::new();
        reader.read_to_string(&mut said).unwrap();
        assert_eq!(said, "hello\n");
        assert!(child.wait().unwrap().success());
    }

    #[test]
    fn descriptors_that_are_not_passed_are_closed() {
        let (_reader, writer) = io::pipe().unwrap();
        let number = writer.as_raw_fd();
        let mut child = shell(&format!("test ! -e /proc/self/fd/{number}"))
            .start()
            .unwrap();
        assert!(child.wait().unwrap().success());
    }

    #[test]
    fn it_leads_its_own_group_and_dies_with_the_spawner() {
        let mut spawn = shell("read line; ps -o pgid= -p $$ >&2");
        spawn.command().stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut child = spawn.start().unwrap();
        child.stdin.take().unwrap().write_all(b"\n").unwrap();
        let mut group = String::new();
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut group)
            .unwrap();
        child.wait().unwrap();
        assert_eq!(group.trim(), child.pid().to_string());
    }

    #[test]
    fn a_first_process_takes_its_kind_with_it() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        let mut spawn = shell("setsid sleep 1000 & echo $$; ls -d /proc/[0-9]* | wc -l; read x");
        spawn.command().stdin(Stdio::piped()).stdout(Stdio::piped());
        spawn.first_process();
        let mut child = spawn.start().unwrap();
        let stdin = child.stdin.take();
        let mut stdout = child.stdout.take().unwrap();
        drop(stdin);
        let mut said = String::new();
        // The sleeper left the group, but holds the pipe open: its end is the pipe's end.
        stdout.read_to_string(&mut said).unwrap();
        assert!(said.starts_with("1\n"), "{said}");
        assert!(child.wait().is_ok());
    }
}
