//! The root file system.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::mount::MountFlags;

use super::BootError;
use super::arguments::{Arguments, Disk, Root};
use super::mounts::attach;

/// Where the root is put together.
pub(super) const NEW_ROOT: &str = "/new";
const LOWER: &str = "/lower";
const MEMORY: &str = "/memory";

/// Devices come a moment after their drivers.
const PATIENCE: Duration = Duration::from_secs(30);

/// For 9p: large messages, and the dialect of Linux.
pub(super) const PLAN9: &str = "trans=virtio,version=9p2000.L,msize=512000";

/// Looks again and again, as nothing tells when a device appears before there is an init.
pub(super) fn wait_for<T>(what: &str, look: impl Fn() -> Option<T>) -> Result<T, BootError> {
    let deadline = Instant::now() + PATIENCE;
    let mut pause = Duration::from_micros(500);
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            return Err(BootError::new(format!("there is no {what}")));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}

/// Puts the root together: what the image has, and above it a layer in memory for changes.
pub(super) fn mount(arguments: &Arguments) -> Result<(), BootError> {
    let readonly = MountFlags::RDONLY;
    match &arguments.root {
        Root::Erofs(disk) => {
            let disk = find(disk)?;
            attach(&disk, Path::new(LOWER), "erofs", readonly, "")?;
        }
        Root::Plan9(tag) => {
            // Nobody changes it while we run, as far as we are concerned.
            let options = format!("{PLAN9},cache=loose");
            attach(tag, Path::new(LOWER), "9p", readonly, &options)?;
        }
    }
    let none = MountFlags::empty();
    attach(
        "tmpfs",
        Path::new(MEMORY),
        "tmpfs",
        none,
        "size=75%,mode=0755",
    )?;
    for name in ["upper", "work"] {
        let path = Path::new(MEMORY).join(name);
        fs::create_dir_all(&path).map_err(|error| {
            BootError::io(format_args!("cannot make {}", path.display()), error)
        })?;
    }
    let options = format!("lowerdir={LOWER},upperdir={MEMORY}/upper,workdir={MEMORY}/work");
    attach("overlay", Path::new(NEW_ROOT), "overlay", none, &options)?;
    if let Some(disk) = &arguments.modules {
        let disk = find(disk)?;
        let new = Path::new(NEW_ROOT);
        // `/lib` is a link to `/usr/lib` nearly everywhere, and may be an absolute one.
        let lib = ["usr/lib", "lib"].map(|lib| new.join(lib));
        let lib = lib.iter().find(|lib| lib.is_dir()).unwrap_or(&lib[1]);
        attach(&disk, &lib.join("modules"), "erofs", readonly, "")?;
    }
    Ok(())
}

fn find(disk: &Disk) -> Result<String, BootError> {
    let path = match disk {
        Disk::Path(path) => wait_for(&format!("disk {}", path.display()), || {
            path.exists().then(|| path.clone())
        }),
        Disk::Serial(serial) => wait_for(&format!("disk with the serial {serial}"), || {
            by_serial(serial)
        }),
    }?;
    Ok(path.to_string_lossy().into_owned())
}

fn by_serial(serial: &str) -> Option<PathBuf> {
    let disks = fs::read_dir("/sys/block").ok()?;
    disks.flatten().find_map(|disk| {
        let found = fs::read_to_string(disk.path().join("serial")).ok()?;
        let path = Path::new("/dev").join(disk.file_name());
        (found.trim_end() == serial && path.exists()).then_some(path)
    })
}
