//! Starting a program by `vfork`, for a process that cannot wait for a fork: the agent.
//!
//! The standard library's way costs a hundred system calls, and a fork of the whole process where
//! the child is to become another user, take a terminal or look along a search path of its own.
//! Here the child does all that itself, in our memory, while we stand still; or, where we do not want
//! to be woken again for its sake, beside us.

use std::ffi::{CString, c_char, c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering};

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

/// A process, until it is reaped. Dropping it does not end it.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    pidfd: OwnedFd,
    lent: Lent,
}

/// How far a child has come that was not waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// It is not at its program yet.
    Begins,
    /// Its program does not run, and it has ended or is about to.
    Failed,
    /// Its program runs, or has run.
    Runs,
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

    /// How far it has come.
    #[must_use]
    pub fn way(&self) -> Way {
        self.lent.way()
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
struct Hand {
    files: Vec<CString>,
    argv: Strings,
    env: Strings,
    dir: CString,
    stdio: [RawFd; 3],
    terminal: bool,
    user: Option<Ids>,
    groups: Vec<Gid>,
    /// Whether it goes before others.
    early: bool,
    /// The signals that were blocked before.
    mask: MaybeUninit<libc::sigset_t>,
    /// What the child leaves where it fails.
    failed: Option<(Step, Errno)>,
    /// The kernel makes it 0 when the child has left our memory, for its program or for good.
    here: AtomicU32,
    stack: Box<MaybeUninit<Stack>>,
}

/// Strings, and the array of them that the kernel takes.
struct Strings {
    pointers: Vec<*const c_char>,
    /// What they point to.
    _own: Vec<CString>,
}

impl From<Vec<CString>> for Strings {
    fn from(own: Vec<CString>) -> Self {
        let all = own.iter().map(|string| string.as_ptr());
        Self {
            pointers: all.chain([ptr::null()]).collect(),
            _own: own,
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Process,
    Directory,
    Program,
}

/// The child's, which makes system calls and little else.
#[repr(align(16))]
struct Stack(
    #[expect(dead_code, reason = "the child alone uses it, by its address")] [u8; 32 * 1024],
);

/// A hand that a child may still work on.
#[derive(Debug)]
struct Lent(NonNull<Hand>);

// SAFETY: nothing in it is a thread's own; what the child writes is read only when it is gone.
unsafe impl Send for Lent {}

impl Lent {
    fn way(&self) -> Way {
        let hand = self.0.as_ptr();
        // SAFETY: it lives as long as we do; `here` is for both, the rest ours once it is 0.
        unsafe {
            if (*hand).here.load(Ordering::Acquire) != 0 {
                return Way::Begins;
            }
            match (*hand).failed {
                Some(_) => Way::Failed,
                None => Way::Runs,
            }
        }
    }

    fn failed(&self) -> Option<(Step, Errno)> {
        match self.way() {
            // SAFETY: the child is gone.
            Way::Failed => unsafe { (*self.0.as_ptr()).failed },
            Way::Begins | Way::Runs => None,
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // What a child still works on, which nobody waited for, stays.
        if self.way() != Way::Begins {
            // SAFETY: it was a box, and nobody else has it any more.
            drop(unsafe { Box::from_raw(self.0.as_ptr()) });
        }
    }
}

/// Whether [`Program::launch`] can be what it says: a child that fails must not change our `errno`.
const LAUNCHES: bool = cfg!(any(target_arch = "x86_64", target_arch = "aarch64"));

impl Program<'_> {
    /// Starts it. The calling process should handle no signals: until its program runs, the child
    /// would run the handlers in our memory.
    ///
    /// # Errors
    /// It does not run; nothing is left of it then.
    pub fn start(self) -> Result<Child, Failed> {
        let child = self.begin(libc::CLONE_VFORK)?;
        let Some((step, errno)) = child.lent.failed() else {
            return Ok(child);
        };
        drop(child.wait());
        Err(match step {
            Step::Process => Failed::Process(errno.into()),
            Step::Directory => Failed::Directory(errno.into()),
            Step::Program => Failed::Program(errno.into()),
        })
    }

    /// As [`Program::start`], without standing still until its program runs: for that we would be woken
    /// once more, in the middle of its beginning. How that goes, [`Child::way`] tells. It leads its
    /// process group only from [`Way::Runs`] on.
    ///
    /// # Errors
    /// The process could not be made.
    pub fn launch(self) -> Result<Child, Failed> {
        if !LAUNCHES || schedule::is_first() {
            return self.start();
        }
        self.begin(0)
    }

    fn begin(self, flags: c_int) -> Result<Child, Failed> {
        let stdio = self.stdio.map(|fd| fd.as_raw_fd());
        if stdio.iter().any(|fd| *fd <= 2) {
            // One could be overwritten before it is in its place.
            return Err(Failed::Process(io::ErrorKind::InvalidInput.into()));
        }
        let groups = self.user.iter().flat_map(|user| &user.groups);
        let hand = Box::new(Hand {
            groups: groups.copied().map(Gid::from_raw).collect(),
            files: self.files,
            argv: self.argv.into(),
            env: self.env.into(),
            dir: self.dir,
            stdio,
            terminal: self.terminal,
            user: self.user,
            early: schedule::is_first(),
            mask: MaybeUninit::uninit(),
            failed: None,
            here: AtomicU32::new(1),
            stack: Box::new_uninit(),
        });
        vfork(hand, flags).map_err(Failed::Process)
    }
}

/// Makes the child. With `CLONE_VFORK`, returns when it has come to run its program, or has ended.
fn vfork(hand: Box<Hand>, flags: c_int) -> io::Result<Child> {
    let flags = flags | libc::CLONE_VM | libc::CLONE_PIDFD | libc::SIGCHLD;
    let mut pidfd: c_int = -1;
    let mut all = MaybeUninit::uninit();
    let hand = Box::into_raw(hand);
    // SAFETY: the sets are written before they are read. The child runs `child` on a stack of its own,
    // which grows down from its end, and in our memory; what it works on is freed by nobody before it
    // has left that memory, and its descriptors are copies. No signal is handled in between.
    let (pid, error) = unsafe {
        let mask = (*hand).mask.as_mut_ptr();
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_BLOCK, all.as_ptr(), mask);
        let before = *mask;
        let top = (*hand).stack.as_mut_ptr().add(1).cast();
        let pid = libc::clone(child, top, flags, hand.cast(), &raw mut pidfd);
        let error = io::Error::last_os_error();
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, ptr::null_mut());
        (pid, error)
    };
    let Some(pid) = Pid::from_raw(pid).filter(|_| pid > 0) else {
        // SAFETY: there is no child to have it.
        drop(unsafe { Box::from_raw(hand) });
        return Err(error);
    };
    // SAFETY: the kernel has just opened it for us; and a box is nowhere.
    let (pidfd, hand) = unsafe { (OwnedFd::from_raw_fd(pidfd), NonNull::new_unchecked(hand)) };
    Ok(Child {
        pid,
        pidfd,
        lent: Lent(hand),
    })
}

/// The child, from its beginning to its program. It shares our memory: it allocates nothing, takes no
/// lock, and calls the kernel alone.
extern "C" fn child(hand: *mut c_void) -> c_int {
    let hand = hand.cast::<Hand>();
    // SAFETY: it is what `vfork` was given, which nobody frees or changes until we are gone; `here` is
    // what the kernel writes then. The call takes an address and cannot fail.
    unsafe {
        libc::syscall(libc::SYS_set_tid_address, &raw const (*hand).here);
        (*hand).failed = Some(exec(&*hand));
    }
    127
}

/// Returns only where something failed.
fn exec(hand: &Hand) -> (Step, Errno) {
    if hand.early {
        // Else it shares the processor with others, and that is all.
        drop(schedule::take(Turn::Early));
    }
    if let Err(errno) = take_streams(hand) {
        return (Step::Process, errno);
    }
    if let Err(errno) = rustix::process::chdir(hand.dir.as_c_str()) {
        return (Step::Directory, errno);
    }
    if let Some(user) = &hand.user
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
    for file in &hand.files {
        // SAFETY: strings that end in a null, and arrays of such that end in a null pointer.
        match unsafe {
            execve(
                file.as_ptr(),
                hand.argv.pointers.as_ptr(),
                hand.env.pointers.as_ptr(),
            )
        } {
            Errno::NOENT | Errno::NOTDIR => {}
            Errno::ACCESS => failed = Errno::ACCESS,
            errno => return (Step::Program, errno),
        }
    }
    (Step::Program, failed)
}

/// Returns only where it failed, and leaves `errno` alone: that is also our parent's, who may be
/// reading it.
///
/// # Safety
/// As for the kernel's own.
#[cfg(target_arch = "x86_64")]
unsafe fn execve(
    file: *const c_char,
    argv: *const *const c_char,
    env: *const *const c_char,
) -> Errno {
    let result: isize;
    // SAFETY: the kernel reads what the caller vouches for, and writes these registers alone.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") libc::SYS_execve as isize => result,
            in("rdi") file, in("rsi") argv, in("rdx") env,
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    Errno::from_raw_os_error(-result as i32)
}

/// As on the other.
///
/// # Safety
/// As there.
#[cfg(target_arch = "aarch64")]
unsafe fn execve(
    file: *const c_char,
    argv: *const *const c_char,
    env: *const *const c_char,
) -> Errno {
    let result: isize;
    // SAFETY: as on the other.
    unsafe {
        std::arch::asm!(
            "svc 0",
            in("x8") libc::SYS_execve,
            inlateout("x0") file => result,
            in("x1") argv, in("x2") env,
            options(nostack),
        );
    }
    Errno::from_raw_os_error(-result as i32)
}

/// Where our parent stands still meanwhile.
///
/// # Safety
/// As for the kernel's own.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
unsafe fn execve(
    file: *const c_char,
    argv: *const *const c_char,
    env: *const *const c_char,
) -> Errno {
    // SAFETY: the caller vouches for all that is read.
    unsafe { libc::execve(file, argv, env) };
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::NOENT)
}

fn take_streams(hand: &Hand) -> rustix::io::Result<()> {
    // SAFETY: they were open when we were made, and what our parent closes since, we have still.
    let [stdin, stdout, stderr] = hand.stdio.map(|fd| unsafe { BorrowedFd::borrow_raw(fd) });
    rustix::stdio::dup2_stdin(stdin)?;
    rustix::stdio::dup2_stdout(stdout)?;
    rustix::stdio::dup2_stderr(stderr)?;
    if hand.terminal {
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
        begin(files, argv, dir, |program| program.start())
    }

    fn begin(
        files: &[&str],
        argv: &[&str],
        dir: &str,
        how: impl FnOnce(Program<'_>) -> Result<Child, Failed>,
    ) -> Result<(Child, String), Failed> {
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
        let child = how(program)?;
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

    #[test]
    fn who_is_not_waited_for_tells_how_far_it_has_come() {
        let argv = ["sh", "-c", "echo $0 $A"];
        let begin = |file| begin(&[file], &argv, "/", |program| program.launch()).unwrap();
        let (child, text) = begin("/bin/sh");
        assert_eq!((text.as_str(), child.way()), ("sh 1\n", Way::Runs));
        assert_eq!(child.wait().unwrap(), Some(End::Status(0)));
        let (child, text) = begin("/nowhere");
        while child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        assert_eq!((text.as_str(), child.way()), ("", Way::Failed));
        // Many at once, each in its own part of our memory.
        let children: Vec<_> = (0..50).map(|_| begin("/bin/sh")).collect();
        for (child, text) in children {
            assert_eq!((text.as_str(), child.way()), ("sh 1\n", Way::Runs));
            assert_eq!(child.wait().unwrap(), Some(End::Status(0)));
        }
    }
}
