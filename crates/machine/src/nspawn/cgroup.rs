//! A cgroup for each container: nspawn wants one of its own, and killing it kills everything.
//!
//! It is made below the cgroup that the engine itself is in. Where the host has no cgroup2, or does
//! not let us, a container goes on without.
//!
//! cgroup2 need not be mounted anywhere (in a build sandbox it is not): then we mount it for
//! ourselves, at no place at all, and reach it by the descriptor.
//!
//! Whoever has one holds a lock on its directory. The kernel lets that go when the engine ends,
//! however it ends, so a later start knows which ones are deserted ([`sweep`]).

use std::fs;
use std::io::{self, Read, Seek};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use machinist_sys::lock::Locked;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use crate::path_error::{PathContext, PathError};

/// The file of a machine's directory that names its cgroup, for whoever cleans up after us.
pub(crate) const FILE: &str = "cgroup";

const SUPER_MAGIC: u64 = 0x6367_7270;

/// What the names of all of ours begin with.
pub(crate) const PREFIX: &str = "machinist-";

/// How often one is made anew that somebody's sweep has taken for a deserted one.
const TRIES: usize = 10;

/// Whether a cgroup2 file system is mounted at `place`.
#[must_use]
pub fn is_unified(place: &Path) -> bool {
    rustix::fs::statfs(place).is_ok_and(|stat| stat.f_type as u64 == SUPER_MAGIC)
}

/// Where cgroup2 is mounted: the usual place, or the one that hosts with the older layout use.
pub(crate) fn mount_point() -> Option<&'static Path> {
    ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        .map(Path::new)
        .into_iter()
        .find(|place| is_unified(place))
}

/// cgroup2, mounted nowhere. Its name is good for this process and those that it starts, as long as
/// the descriptor is open.
fn unmounted() -> rustix::io::Result<(PathBuf, OwnedFd)> {
    use rustix::mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen,
    };
    let filesystem = fsopen("cgroup2", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&filesystem)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let mount = fsmount(&filesystem, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    let (process, number) = (std::process::id(), mount.as_raw_fd());
    Ok((format!("/proc/{process}/fd/{number}").into(), mount))
}

/// Where cgroup2 is, and what it is reached by where it is mounted nowhere.
fn root() -> Option<(PathBuf, Option<OwnedFd>)> {
    match mount_point() {
        Some(place) => Some((place.to_owned(), None)),
        None => unmounted().map(|(name, mount)| (name, Some(mount))).ok(),
    }
}

/// The cgroup directory of process `pid`, or of ourselves.
#[must_use]
pub fn of_process(pid: Option<u32>) -> Option<PathBuf> {
    let file = pid.map_or_else(
        || "/proc/self/cgroup".to_owned(),
        |pid| format!("/proc/{pid}/cgroup"),
    );
    let inside = unified_path(&fs::read_to_string(file).ok()?)?;
    Some(mount_point()?.join(inside))
}

/// Our own cgroup's directory, in the cgroup2 that is mounted at `root`.
#[must_use]
pub fn own(root: &Path) -> Option<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    Some(root.join(unified_path(&text)?))
}

/// The cgroup2 path in the text of /proc/PID/cgroup, relative to the mount point.
fn unified_path(text: &str) -> Option<PathBuf> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(PathBuf::from(path))
}

/// Moves the calling process into the cgroup at `dir`.
///
/// # Errors
/// The cgroup is gone, or has controllers enabled and so takes no processes.
pub fn join(dir: &Path) -> Result<(), PathError> {
    let procs = dir.join("cgroup.procs");
    fs::write(&procs, "0").path(&procs)
}

/// The file by which a process joins the cgroup at `dir`, open for writing.
///
/// # Errors
/// The cgroup is gone.
pub fn processes(dir: &Path) -> Result<fs::File, PathError> {
    let procs = dir.join("cgroup.procs");
    fs::File::options().write(true).open(&procs).path(&procs)
}

/// Removes what is below the cgroup at `dir`, and switches its controllers off: a cgroup that gives
/// some to those below it takes no processes itself.
pub fn clear(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path(), Duration::from_secs(2));
        }
    }
    let control = dir.join("cgroup.subtree_control");
    let enabled = fs::read_to_string(&control).unwrap_or_default();
    for controller in enabled.split_whitespace() {
        // What cannot be switched off is seen when the next process joins.
        drop(fs::write(&control, format!("-{controller}")));
    }
}

/// Whether what is in the cgroup at `dir` can be made to stand still.
#[must_use]
pub fn can_freeze(dir: &Path) -> bool {
    dir.join("cgroup.freeze").exists()
}

/// Makes all that is in the cgroup at `dir` stand still, and waits until it does. Blocks.
///
/// # Errors
/// The cgroup is gone, its kernel is older than Linux 5.2, or something in it does not stand still
/// within `limit`.
pub fn freeze(dir: &Path, limit: Duration) -> Result<(), PathError> {
    let events = dir.join("cgroup.events");
    let mut told = fs::File::open(&events).path(&events)?;
    let switch = dir.join("cgroup.freeze");
    fs::write(&switch, "1").path(&switch)?;
    let deadline = Instant::now() + limit;
    loop {
        // Whoever has read it is told of the next change.
        let mut text = String::new();
        told.rewind().path(&events)?;
        told.read_to_string(&mut text).path(&events)?;
        if text.lines().any(|line| line == "frozen 1") {
            return Ok(());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).ok();
        let mut polled = [PollFd::new(&told, PollFlags::PRI)];
        match rustix::event::poll(&mut polled, left.as_ref()) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::TimedOut)).path(&events),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).path(&events),
        }
    }
}

/// Lets what [`freeze`] has stopped go on.
///
/// # Errors
/// The cgroup is gone.
pub fn thaw(dir: &Path) -> Result<(), PathError> {
    let switch = dir.join("cgroup.freeze");
    fs::write(&switch, "0").path(&switch)
}

/// A container's own cgroup. Dropping it kills what is in it and removes it.
#[derive(Debug)]
pub struct Cgroup {
    dir: PathBuf,
    /// Locked: somebody lives here, or is about to move in.
    _life: Locked,
    /// What `dir` is reached by, where cgroup2 is mounted nowhere. Closed after the removal.
    _mount: Option<OwnedFd>,
}

impl Cgroup {
    /// Makes the one of the machine whose directory is `dir`, and leaves word of it there. `None`
    /// where the host does not let us.
    ///
    /// # Errors
    /// The directory cannot be written to.
    pub fn of_machine(dir: &Path, machine: &str) -> Result<Option<Self>, PathError> {
        // A machine's directory is its own, so this name is too.
        let name = format!("{PREFIX}{machine}-{:x}", crate::unique::of_path(dir));
        let cgroup = Self::create(&name);
        if let Some(cgroup) = &cgroup {
            let file = dir.join(FILE);
            fs::write(&file, cgroup.dir().as_os_str().as_encoded_bytes()).path(&file)?;
        }
        Ok(cgroup)
    }

    /// Makes one called `name` below our own. `None` where the host does not let us.
    #[must_use]
    pub fn create(name: &str) -> Option<Self> {
        let (root, mount) = root()?;
        let dir = own(&root)?.join(name);
        let life = (0..TRIES).find_map(|_| make(&dir).transpose())?.ok()?;
        Some(Self {
            dir,
            _life: life,
            _mount: mount,
        })
    }

    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Limits memory and processor time, where the host's cgroup2 has these controllers.
    pub fn limit(&self, memory: Option<u64>, cpus: Option<u16>) {
        // A controller that is not there has no file. A machine without a limit is still a machine.
        if let Some(bytes) = memory {
            drop(fs::write(self.dir.join("memory.max"), bytes.to_string()));
        }
        if let Some(cpus) = cpus {
            let quota = format!("{} 100000", u32::from(cpus) * 100_000);
            drop(fs::write(self.dir.join("cpu.max"), quota));
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        remove(&self.dir, Duration::from_secs(5));
    }
}

/// Makes the cgroup at `dir` and locks it. `None` if a sweep removed it between the two.
fn make(dir: &Path) -> io::Result<Option<Locked>> {
    match fs::create_dir(dir) {
        // Left over from a run that was killed; nobody else uses our names.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            remove(dir, Duration::from_secs(2));
            fs::create_dir(dir)
        }
        made => made,
    }?;
    match lock(dir, |file| Locked::exclusive(file).map(Some)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        locked => locked,
    }
}

/// Locks the cgroup at `dir`. One that was removed before it was locked is not found.
fn lock(
    dir: &Path,
    take: impl FnOnce(fs::File) -> io::Result<Option<Locked>>,
) -> io::Result<Option<Locked>> {
    let Some(lock) = take(fs::File::open(dir)?)? else {
        return Ok(None);
    };
    if fs::metadata(dir)?.ino() != lock.file().metadata()?.ino() {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(Some(lock))
}

/// Removes the deserted ones: those below our own that are named as ours, belong to our user, hold
/// no process, and are locked by nobody.
pub(crate) fn sweep() {
    let Some((root, _mount)) = root() else {
        return;
    };
    let user = rustix::process::geteuid().as_raw();
    for entry in own(&root).iter().flat_map(fs::read_dir).flatten().flatten() {
        let ours = entry.file_name().to_str().is_some_and(is_name)
            && entry
                .metadata()
                .is_ok_and(|found| found.is_dir() && found.uid() == user);
        if ours {
            remove_deserted(&entry.path());
        }
    }
}

/// Whether a cgroup of this name is one that [`Cgroup::of_machine`] makes. Units of systemd begin
/// like it, but end in what they are.
fn is_name(name: &str) -> bool {
    let number = name
        .strip_prefix(PREFIX)
        .and_then(|rest| rest.rsplit_once('-'));
    number.is_some_and(|(_, number)| u64::from_str_radix(number, 16).is_ok())
}

fn remove_deserted(dir: &Path) {
    let Ok(Some(_life)) = lock(dir, Locked::try_exclusive) else {
        return;
    };
    // Where processes are, an engine without this lock may be with them: an older machinist's.
    let events = fs::read_to_string(dir.join("cgroup.events")).unwrap_or_default();
    if events.lines().any(|line| line == "populated 0") {
        remove_tree(dir);
    }
}

/// Kills all processes in the cgroup at `dir`, and removes it with all below it. Gives up after
/// `limit`: killed processes leave a cgroup only when the kernel gets to it. Returns whether it is
/// gone.
pub fn remove(dir: &Path, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_millis(1);
    loop {
        // Kernels before 5.14 have no such file; there we rely on the supervisor's death.
        drop(fs::write(dir.join("cgroup.kill"), "1"));
        remove_tree(dir);
        if !dir.exists() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Removes the directories, deepest first. The files in them are the kernel's.
fn remove_tree(dir: &Path) {
    if let Ok(entries) = fs::read_dir(dir) {
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                remove_tree(&entry.path());
            }
        }
    }
    // Still in use: the caller looks whether it is gone.
    drop(fs::remove_dir(dir));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unified_line_is_found_among_the_old_ones() {
        let text = "9:name=systemd:/\n4:memory:/process_api/d8\n0::/mtest/payload/init.scope\n";
        assert_eq!(
            unified_path(text),
            Some(PathBuf::from("mtest/payload/init.scope"))
        );
        assert_eq!(unified_path("0::/\n"), Some(PathBuf::new()));
        assert_eq!(unified_path("1:cpu:/\n"), None);
    }

    #[test]
    fn units_are_not_taken_for_ours() {
        assert!(is_name("machinist-web-2-9f0c6a51be33d7e8"));
        for other in [
            "machinist-1234.scope",
            "machinist-builder-a.service",
            "machinist-cafe",
            "web-9f0c6a51be33d7e8",
        ] {
            assert!(!is_name(other), "{other}");
        }
    }

    #[test]
    fn one_that_is_being_made_is_not_swept() {
        let name = format!("machinist-made-{:x}", std::process::id());
        let Some(first) = Cgroup::create(&name) else {
            return; // The host does not let us: there is nothing to sweep either.
        };
        let dir = first.dir().to_owned();
        drop(first);
        let made = std::sync::atomic::AtomicBool::new(false);
        thread::scope(|scope| {
            let sweeper = scope.spawn(|| {
                while !made.load(std::sync::atomic::Ordering::Relaxed) {
                    remove_deserted(&dir);
                }
            });
            let all = (0..200).all(|_| {
                let own = Cgroup::create(&name);
                remove_deserted(&dir);
                own.is_some_and(|own| own.dir().exists())
            });
            made.store(true, std::sync::atomic::Ordering::Relaxed);
            sweeper.join().unwrap();
            assert!(all);
        });
        fs::create_dir_all(dir.join("payload")).unwrap();
        sweep();
        assert!(!dir.exists());
    }
}
