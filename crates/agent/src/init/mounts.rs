//! File systems that every machine has, modules, and entering the root.

use std::ffi::CStr;
use std::fs::{self, File};
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{MountFlags, mount, mount_move};

use super::BootError;
use super::root::NEW_ROOT;

/// Mounts, and makes the place for it where there is none.
pub(super) fn attach(
    source: &str,
    target: &Path,
    kind: &str,
    flags: MountFlags,
    options: &str,
) -> Result<(), BootError> {
    let what = || format!("cannot mount {kind} {source} on {}", target.display());
    fs::create_dir_all(target).map_err(|error| BootError::io(what(), error))?;
    let options = std::ffi::CString::new(options).unwrap_or_default();
    let options: &CStr = &options;
    match mount(source, target, kind, flags, options) {
        Ok(()) => Ok(()),
        Err(errno) => Err(BootError::io(what(), errno)),
    }
}

const SAFE: MountFlags = MountFlags::NOSUID
    .union(MountFlags::NODEV)
    .union(MountFlags::NOEXEC);

/// `/proc`, `/sys` and `/dev`.
pub(super) fn kernel() -> Result<(), BootError> {
    attach("proc", Path::new("/proc"), "proc", SAFE, "")?;
    attach("sysfs", Path::new("/sys"), "sysfs", SAFE, "")?;
    let flags = MountFlags::NOSUID;
    attach(
        "devtmpfs",
        Path::new("/dev"),
        "devtmpfs",
        flags,
        "mode=0755",
    )
}

/// Loads the modules that the initrd lists, in its order. One that does not load is told: what
/// needs it fails later, and then the reason is on the console.
pub(super) fn load_modules(say: impl Fn(&str)) -> Result<(), BootError> {
    let list = match fs::read_to_string("/modules.list") {
        Ok(list) => list,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(BootError::io("cannot read /modules.list", error)),
    };
    for path in list.lines().filter(|line| !line.is_empty()) {
        let loaded =
            File::open(path).and_then(|file| Ok(rustix::system::finit_module(&file, c"", 0)?));
        match loaded {
            Err(error) if error.raw_os_error() != Some(Errno::EXIST.raw_os_error()) => {
                say(&format!("cannot load the module {path}: {error}"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Makes the new root the root of this process and of all that follow.
pub(super) fn enter_root() -> Result<(), BootError> {
    let new = Path::new(NEW_ROOT);
    for name in ["proc", "sys", "dev"] {
        let (from, to) = (Path::new("/").join(name), new.join(name));
        fs::create_dir_all(&to)
            .map_err(|error| BootError::io(format_args!("cannot make {}", to.display()), error))?;
        mount_move(&from, &to).map_err(|errno| {
            BootError::io(format_args!("cannot move {}", from.display()), errno)
        })?;
    }
    // They are loaded; their memory is the machine's.
    drop(fs::remove_dir_all("/lib/modules"));
    std::env::set_current_dir(new)
        .map_err(|error| BootError::io("cannot enter the root", error))?;
    mount_move(".", "/")
        .and_then(|()| rustix::process::chroot("."))
        .map_err(|errno| BootError::io("cannot enter the root", errno))?;
    std::env::set_current_dir("/").map_err(|error| BootError::io("cannot enter the root", error))
}

/// What an init would mount. A machine can do without most of it, so nothing of it is an error.
pub(super) fn in_place_of_init() {
    let world = "mode=1777";
    let nodev = MountFlags::NOSUID.union(MountFlags::NODEV);
    let nosuid = MountFlags::NOSUID.union(MountFlags::NOEXEC);
    let wanted = [
        ("tmpfs", "/run", "tmpfs", nodev, "mode=0755"),
        ("tmpfs", "/tmp", "tmpfs", nodev, world),
        (
            "devpts",
            "/dev/pts",
            "devpts",
            nosuid,
            "gid=5,mode=0620,ptmxmode=0666",
        ),
        ("tmpfs", "/dev/shm", "tmpfs", nodev, world),
        ("cgroup2", "/sys/fs/cgroup", "cgroup2", SAFE, ""),
    ];
    for (source, target, kind, flags, options) in wanted {
        drop(attach(source, Path::new(target), kind, flags, options));
    }
    drop(fs::create_dir_all("/run/lock"));
    for (link, target) in [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
    ] {
        drop(std::os::unix::fs::symlink(target, link));
    }
}
