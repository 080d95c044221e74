//! Starting a program by `vfork`, for a process that cannot wait for a fork: the agent.
//!
//! The standard library's way costs a hundred system calls, and a fork of the whole process where
//! the child is to become another user, take a terminal or look along a search path of its own.
//! Here the child does all that itself, in our memory, while we stand still.

use std::ffi::{CString, c_char, c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use rustix::io::Errno;
use rustix::process::{Gid, Pid, Uid, WaitId, WaitIdOptions};

use crate::schedule::{self, Turn};

/// What to start.
#[derive(Debug)]
pub struct Program<'a> {
    /// Where the program may be. The first of them that is there and may be run is it.
    pub files: Vec<CString>,
    /// Its arguments, the first of which is its name.
    pub argv: Vec<CString>,
    /// All of its environment: `NAME=value`.
    pub env: Vec<CString>,
    /// Where it runs. We go there before it becomes another user.
    pub dir: CString,
    /// Its standard input, output and error.
    pub stdio: [BorrowedFd<'a>; 3],
    /// Whether its standard input is a terminal, to be that of a new session. Else it leads a
    /// process group.
    pub terminal: bool,
    /// Who it runs as; else we ourselves.
    pub user: Option<Ids>,
}

/// Who a process runs as.
#[derive(Debug)]
pub struct Ids {
    /// The user.
    pub uid: u32,
    /// The user's group.
    pub gid: u32,
    /// All of the user's groups.
    pub groups: Vec<u32>,
}

/// Why a program did not come to run.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// The process could not be made, or not as it should be.
    #[error("cannot make a process")]
    Process(#[source] io::Error),
    /// It could not go to its directory.
    #[error("cannot enter the directory")]
    Directory(#[source] io::Error),
    /// None of its files is one that the kernel runs.
    #[error("cannot run the program")]
    Program(#[source] io::Error),
}

/// A process whose program runs, until it is reaped. Dropping it does not end it.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    pidfd: OwnedFd,
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With this status.
    Status(i32),
    /// By this signal.
    Signal(i32),
}

impl Child {
    /// Its process id, which is that of its process group too.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// How it ended, if it has. Then it is reaped: this is not to be asked again.
    ///
    /// # Errors
    /// Somebody else has reaped it.
    pub fn try_wait(&self) -> io::Result<Option<End>> {
        self.wait_with(WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
    }

    /// Waits for its end, and reaps it.
    ///
    /// # Errors
    /// As [`Child::try_wait`].
    pub fn wait(self) -> io::Result<Option<End>> {
        self.wait_with(WaitIdOptions::EXITED)
    }

    fn wait_with(&self, options: WaitIdOptions) -> io::Result<Option<End>> {
        let status = rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), options)?;
        Ok(status.map(|status| match status.exit_status() {
            Some(code) => End::Status(code),
            None => End::Signal(status.terminating_signal().unwrap_or(0)),
        }))
    }
}

impl AsFd for Child {
    /// Readable once it has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// What the child works on: all that it needs, made before, because it may not allocate.
struct Hand<'a> {
    program: &'a Program<'a>,
    argv: Vec<*const c_char>,
    env: Vec<*const c_char>,
    groups: Vec<Gid>,
    /// Whether it goes before others.
    early: bool,
    /// The signals that were blocked before.
    mask: MaybeUninit<libc::sigset_t>,
    /// What the child leaves where it fails.
    failed: Option<(Step, Errno)>,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Process,
    Directory,
    Program,
}

/// The child's, which makes system calls and little else.
#[repr(align(16))]
struct Stack([MaybeUninit<u8>; 32 * 1024]);

impl Program<'_> {
    /// Starts it. The calling process should handle no signals: until its program runs, the child
    /// would run the handlers in our memory.
    ///
    /// # Errors
    /// It does not run; nothing is left of it then.
    pub fn start(&self) -> Result<Child, Failed> {
        if self.stdio.iter().any(|fd| fd.as_raw_fd() <= 2) {
            // One could be overwritten before it is in its place.
            return Err(Failed::Process(io::ErrorKind::InvalidInput.into()));
        }
        let groups = self.user.iter().flat_map(|user| &user.groups);
        let mut hand = Hand {
            program: self,
            argv: pointers(&self.argv),
            env: pointers(&self.env),
            groups: groups.copied().map(Gid::from_raw).collect(),
            early: schedule::is_first(),
            mask: MaybeUninit::uninit(),
            failed: None,
        };
        let child = vfork(&mut hand).map_err(Failed::Process)?;
        let Some((step, errno)) = hand.failed else {
            return Ok(child);
        };
        drop(child.wait());
        Err(match step {
            Step::Process => Failed::Process(errno.into()),
            Step::Directory => Failed::Directory(errno.into()),
            Step::Program => Failed::Program(errno.into()),
        })
    }
}

/// As the kernel takes them.
fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    let all = strings.iter().map(|string| string.as_ptr());
    all.chain([ptr::null()]).collect()
}

/// Returns when the child has come to run its program, or has ended.
fn vfork(hand: &mut Hand<'_>) -> io::Result<Child> {
    const FLAGS: c_int = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    let mut stack = Stack([MaybeUninit::uninit(); 32 * 1024]);
    let mut pidfd: c_int = -1;
    let mut all = MaybeUninit::uninit();
    let mask = hand.mask.as_mut_ptr();
    let hand = ptr::from_mut(hand).cast::<c_void>();
    // SAFETY: the sets are this function's, and written before they are read. The child runs `child`
    // on a stack of its own, which grows down from its end, and in our memory; `CLONE_VFORK` keeps
    // this thread from going on until the child is gone from that memory, so what it has borrowed
    // lives as long as it does, and is changed by nobody else. No signal is handled in between.
    let (pid, error) = unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_BLOCK, all.as_ptr(), mask);
        let top = stack.0.as_mut_ptr_range().end.cast();
        let pid = libc::clone(child, top, FLAGS, hand, &raw mut pidfd);
        let error = io::Error::last_os_error();
        libc::pthread_sigmask(libc::SIG_SETMASK, mask, ptr::null_mut());
        (pid, error)
    };
    let Some(pid) = Pid::from_raw(pid).filter(|_| pid > 0) else {
        return Err(error);
    };
    // SAFETY: the kernel has just opened it for us.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Child { pid, pidfd })
}

/// The child, from its beginning to its program. It shares our memory: it allocates nothing, takes no
/// lock, and calls the kernel alone.
extern "C" fn child(hand: *mut c_void) -> c_int {
    // SAFETY: it is what `vfork` was given, which stands still until we are gone.
    let hand = unsafe { &mut *hand.cast::<Hand<'_>>() };
    hand.failed = Some(exec(hand));
    127
}

/// Returns only where something failed.
fn exec(hand: &Hand<'_>) -> (Step, Errno) {
    let program = hand.program;
    if hand.early {
        // Else it shares the processor with others, and that is all.
        drop(schedule::take(Turn::Early));
    }
    if let Err(errno) = take_streams(program) {
        return (Step::Process, errno);
    }
    if let Err(errno) = rustix::process::chdir(program.dir.as_c_str()) {
        return (Step::Directory, errno);
    }
    if let Some(user) = &program.user
        && let Err(errno) = become_user(user, &hand.groups)
    {
        return (Step::Process, errno);
    }
    // SAFETY: the mask was written before the child began. The standard library has us ignore broken
    // pipes; everybody else expects to die of them.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        libc::pthread_sigmask(libc::SIG_SETMASK, hand.mask.as_ptr(), ptr::null_mut());
    }
    let mut failed = Errno::NOENT;
    for file in &program.files {
        // SAFETY: strings that end in a null, and arrays of such that end in a null pointer.
        unsafe { libc::execve(file.as_ptr(), hand.argv.as_ptr(), hand.env.as_ptr()) };
        match Errno::from_io_error(&io::Error::last_os_error()) {
            Some(Errno::NOENT | Errno::NOTDIR) | None => {}
            Some(Errno::ACCESS) => failed = Errno::ACCESS,
            Some(errno) => return (Step::Program, errno),
        }
    }
    (Step::Program, failed)
}

fn take_streams(program: &Program<'_>) -> rustix::io::Result<()> {
    let [stdin, stdout, stderr] = program.stdio;
    rustix::stdio::dup2_stdin(stdin)?;
    rustix::stdio::dup2_stdout(stdout)?;
    rustix::stdio::dup2_stderr(stderr)?;
    if program.terminal {
        rustix::process::setsid()?;
        rustix::process::ioctl_tiocsctty(stdin)
    } else {
        rustix::process::setpgid(None, None)
    }
}

/// By the kernel's own calls, which act on this process alone: the C library's would reach for our
/// threads.
fn become_user(user: &Ids, groups: &[Gid]) -> rustix::io::Result<()> {
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    rustix::thread::set_thread_groups(groups)?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;

    use super::*;

    fn start(files: &[&str], argv: &[&str], dir: &str) -> Result<(Child, String), Failed> {
        let strings = |words: &[&str]| words.iter().map(|it| CString::new(*it).unwrap()).collect();
        let (mut reader, writer) = io::pipe().unwrap();
        let null = File::options()
            .read(true)
            .write(true)
            .open("/dev/null")
            .unwrap();
        let program = Program {
            files: strings(files),
            argv: strings(argv),
            env: strings(&["A=1"]),
            dir: CString::new(dir).unwrap(),
            stdio: [null.as_fd(), writer.as_fd(), null.as_fd()],
            terminal: false,
            user: None,
        };
        let child = program.start()?;
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        Ok((child, text))
    }

    #[test]
    fn the_first_file_that_runs_is_run_as_it_was_told() {
        let script = "echo $0 $A $PWD; kill -PIPE $$";
        let files = ["/nowhere/sh", "/etc/passwd/sh", "/etc/passwd", "/bin/sh"];
        let (child, text) = start(&files, &["name", "-c", script], "/usr").unwrap();
        assert_eq!(text, "name 1 /usr\n");
        assert_eq!(child.wait().unwrap(), Some(End::Signal(13)));
        let (child, _) = start(&["/bin/sh"], &["sh", "-c", "exit 3"], "/").unwrap();
        assert_eq!(child.wait().unwrap(), Some(End::Status(3)));
    }

    #[test]
    fn what_fails_says_why() {
        let failed = start(&["/nowhere"], &["x"], "/").unwrap_err();
        assert!(
            matches!(failed, Failed::Program(error) if error.kind() == io::ErrorKind::NotFound)
        );
        let failed = start(&["/etc/passwd", "/nowhere"], &["x"], "/").unwrap_err();
        assert!(
            matches!(failed, Failed::Program(error) if error.kind() == io::ErrorKind::PermissionDenied)
        );
        let failed = start(&["/bin/true"], &["true"], "/nowhere").unwrap_err();
        assert!(matches!(failed, Failed::Directory(_)));
    }
}
