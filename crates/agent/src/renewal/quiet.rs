//! Holding what runs in the machine, until it is right again.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use machinist_wire::Blob;
use machinist_wire::message::Failure;

use super::failure;

const CGROUPS: &str = "/sys/fs/cgroup";

/// The event by which QEMU's device says so.
const VMGENID_EVENT: &str = "/sys/firmware/acpi/interrupts/gpe05";

/// How long processes may take to stand still.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long they may go on with what they do before the save.
const CALM: Duration = Duration::from_secs(1);

/// Whether the kernel has a driver for the device that tells of a restore, and the device.
pub(super) fn has_vmgenid() -> bool {
    [
        "/sys/bus/platform/drivers/vmgenid",
        "/sys/bus/acpi/drivers/vmgenid",
    ]
    .into_iter()
    .filter_map(|driver| fs::read_dir(driver).ok())
    .flat_map(|entries| entries.flatten())
    // Beside what can be written to, a driver's directory has a link to each of its devices.
    .any(|entry| entry.file_name() != "module" && entry.path().is_symlink())
}

/// Where the kernel has no driver for the device that tells of a restore: the kernel does not listen to it
/// any more. Else each restored machine would run the BIOS' code for what it says, and then do nothing.
pub(super) fn mask_vmgenid() {
    if Path::new("/sys/bus/acpi/devices/QEMUVGID:00").exists() {
        // One that cannot is as it was.
        drop(fs::write(VMGENID_EVENT, "disable\n"));
    }
}

/// Makes all services and sessions stand still: every control group but those of init and our own.
pub(super) fn freeze() -> io::Result<Vec<Blob>> {
    let own = own_cgroup(&fs::read_to_string("/proc/self/cgroup")?)
        .ok_or_else(|| io::Error::other("there are no control groups of version 2"))?;
    let groups = beside(Path::new(CGROUPS), &own)?;
    let mut frozen = Vec::new();
    let result = groups.iter().try_for_each(|group| {
        fs::write(group.join("cgroup.freeze"), "1")?;
        frozen.push(Blob::from(group));
        Ok(())
    });
    let result = result.and_then(|()| groups.iter().try_for_each(|group| until_frozen(group)));
    if let Err(error) = result {
        // Better all of them running than some.
        drop(thaw(&frozen));
        return Err(error);
    }
    Ok(frozen)
}

/// Waits until nothing runs any more: what services are busy with, every restored machine would be
/// busy with when it begins. Where that does not end, it is so.
pub(super) fn wait() {
    let deadline = Instant::now() + CALM;
    let mut calm = 0;
    while calm < 3 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(3));
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        calm = if runs_alone(&load) { calm + 1 } else { 0 };
    }
}

/// Whether only who asks runs, from `/proc/loadavg`: "0.20 0.18 0.12 1/80 11206".
fn runs_alone(load: &str) -> bool {
    let running = load.split_whitespace().nth(3);
    running.is_some_and(|running| running.starts_with("1/"))
}

/// Our own control group, from `/proc/self/cgroup`.
fn own_cgroup(text: &str) -> Option<PathBuf> {
    let own = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(own.into())
}

/// All groups that are neither on the way to `own` nor init's.
fn beside(root: &Path, own: &Path) -> io::Result<Vec<PathBuf>> {
    let mut groups = Vec::new();
    let mut at = root.to_owned();
    for next in own.iter().map(Some).chain([None]) {
        for entry in fs::read_dir(&at)? {
            let entry = entry?;
            let name = entry.file_name();
            let held = Some(name.as_os_str()) != next && name != "init.scope";
            if held && next.is_some() | (at == root) && entry.path().join("cgroup.freeze").exists()
            {
                groups.push(entry.path());
            }
        }
        at.extend(next);
    }
    Ok(groups)
}

/// Waits until all processes of a group stand still.
fn until_frozen(group: &Path) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match fs::read_to_string(group.join("cgroup.events")) {
            Ok(events) if events.lines().any(|line| line == "frozen 1") => return Ok(()),
            // It went away, with all that was in it.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
            Ok(_) if Instant::now() >= deadline => {
                return Err(io::Error::other(format!(
                    "{} does not come to a stand",
                    group.display()
                )));
            }
            Ok(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// Lets groups go on.
pub(super) fn thaw(groups: &[Blob]) -> Result<(), Failure> {
    for group in groups {
        match fs::write(group.as_path().join("cgroup.freeze"), "0") {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(failure(format_args!("cannot let {group} go on"), error));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alone_is_one() {
        assert!(runs_alone("0.20 0.18 0.12 1/80 11206\n"));
        for other in [
            "0.20 0.18 0.12 2/80 11206\n",
            "0.20 0.18 0.12 12/80 9\n",
            "",
        ] {
            assert!(!runs_alone(other), "{other}");
        }
    }

    #[test]
    fn the_way_to_ourselves_stays_free() {
        let root = std::env::temp_dir().join(format!("machinist-quiet-{}", std::process::id()));
        for group in [
            "init.scope",
            "user.slice",
            "system.slice/ssh.service",
            "system.slice/backdoor.service/below",
            "no-group",
        ] {
            let mut at = root.clone();
            for part in Path::new(group) {
                at.push(part);
                fs::create_dir_all(&at).unwrap();
                if part != "no-group" {
                    fs::write(at.join("cgroup.freeze"), "0").unwrap();
                }
            }
        }
        let found = |own: &str| {
            let own = own_cgroup(&format!("0::/{own}\n")).unwrap();
            let mut groups = beside(&root, &own).unwrap();
            groups.sort();
            let groups = groups
                .iter()
                .map(|group| group.strip_prefix(&root).unwrap());
            groups
                .map(|group| group.display().to_string())
                .collect::<Vec<_>>()
        };
        let deep = found("system.slice/backdoor.service");
        let shallow = found("init.scope");
        let none = found("");
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(deep, ["system.slice/ssh.service", "user.slice"]);
        assert_eq!(shallow, ["system.slice", "user.slice"]);
        assert_eq!(none, ["system.slice", "user.slice"]);
        assert_eq!(own_cgroup("12:cpu:/a\n1:name=systemd:/b\n"), None);
    }
}
