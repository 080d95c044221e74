//! What we change in a Debian root so that it makes a good test machine. Services of packages start
//! at boot as in any Debian. All of it is listed in `docs/images.md`.

use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use super::rooted::Root;
use crate::error::PathError;

/// Enabled by Debian, of no use in a machine that lives for minutes, and able to spoil a test: they
/// work at times of their own. Disabled, so that a test may still start them.
const DISABLED: &[&str] = &[
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty@tty1.service",
    "man-db.timer",
    "systemd-pstore.service",
];

/// The same, but wanted by what their packages themselves bring in `/usr`: by which target.
///
/// The first also makes machines that are restored side by side slow and large: when the clock of one
/// is set, systemd looks at each timer that waits and tells the bus of it, which tells logind.
const UNWANTED: &[(&str, &str)] = &[("timers.target", "systemd-tmpfiles-clean.timer")];

/// Part of every boot, and a process or more each, which is 0.1 to 0.3 s where the processor is
/// emulated.
const MASKED: &[&str] = &[
    // The console is the host's, to read; and a getty that cannot open its terminal never rests.
    "console-getty.service",
    "getty.target",
    "getty-static.service",
    // The journal is in memory, see below: nothing to flush.
    "systemd-journal-flush.service",
    // Everything it would ask for is given by the host.
    "systemd-firstboot.service",
    // Records of boots, for `who -b`.
    "systemd-update-utmp.service",
    "systemd-update-utmp-runlevel.service",
    // It applies what /etc/fstab says of the root, which the host has mounted as it must be.
    "systemd-remount-fs.service",
    // Modules for hardware that machines of ours do not have; and those that the kernel loads by
    // itself when somebody opens their device.
    "modprobe@dm_mod.service",
    "modprobe@drm.service",
    "modprobe@efi_pstore.service",
    "modprobe@fuse.service",
    "modprobe@loop.service",
];

/// Run at each boot before anything else, to look for hardware and set-ups that are not there.
const MASKED_GENERATORS: &[&str] = &[
    "systemd-getty-generator",
    "systemd-gpt-auto-generator",
    "systemd-hibernate-resume-generator",
    "systemd-integritysetup-generator",
    "systemd-ssh-generator",
    "systemd-tpm2-generator",
    "systemd-veritysetup-generator",
];

/// Messages of a loud test must not be lost, and nothing survives the machine anyway.
const JOURNAL: &str = "[Journal]\nStorage=volatile\nRateLimitIntervalSec=0\n";

/// Changes when all of this would make something else of the same root.
pub(crate) const VERSION: u8 = 1;

/// Makes a freshly built root into a machine's.
pub(crate) fn settle(root: &Root) -> Result<(), PathError> {
    // Who the machine is, it learns at each start. An empty id means that it has none yet, and
    // unlike a missing one it does not make systemd enable every unit there is.
    root.write(Path::new("/etc/machine-id"), 0o644, b"")?;
    root.remove(Path::new("/etc/hostname"))?;
    let copied = Path::new("/var/lib/dbus/machine-id");
    if root.kind(copied) == Some(FileType::RegularFile) {
        root.remove(copied)?;
    }
    // mmdebstrap copies the host's. A link is some resolver's of the image.
    let resolver = Path::new("/etc/resolv.conf");
    if root.kind(resolver) != Some(FileType::Symlink) {
        root.write(resolver, 0o644, b"")?;
    }
    // It says only that it is not configured, and systemd runs a program because it is there.
    root.remove(Path::new("/etc/fstab"))?;
    for path in ["/etc/locale.conf", "/etc/default/locale"] {
        if root.kind(Path::new(path)).is_none() {
            root.write(Path::new(path), 0o644, b"LANG=C.UTF-8\n")?;
        }
    }
    let journal = Path::new("/etc/systemd/journald.conf.d/machinist.conf");
    root.write(journal, 0o644, JOURNAL.as_bytes())?;
    disable(root)?;
    for (target, unit) in UNWANTED {
        let wants = Path::new("/etc/systemd/system").join(format!("{target}.wants"));
        root.link(&wants.join(unit), "/dev/null")?;
    }
    for unit in MASKED {
        root.link(&Path::new("/etc/systemd/system").join(unit), "/dev/null")?;
    }
    for generator in MASKED_GENERATORS {
        let path = Path::new("/etc/systemd/system-generators").join(generator);
        root.link(&path, "/dev/null")?;
    }
    Ok(())
}

/// Removes the links by which other units want them.
fn disable(root: &Root) -> Result<(), PathError> {
    let units = Path::new("/etc/systemd/system");
    for name in root.list(units)? {
        if !name.ends_with(".wants") {
            continue;
        }
        for unit in root.list(&units.join(&name))? {
            if DISABLED.contains(&unit.as_str()) {
                root.remove(&units.join(&name).join(unit))?;
            }
        }
    }
    Ok(())
}

/// systemd.unit(5), `ConditionNeedsUpdate=`: these files tell that `/etc` and `/var` have been
/// brought up to date with `/usr`. Their packages did that when they were installed; without the
/// files four programs would do it again at each boot.
pub(crate) fn stamp(root: &Root) -> Result<(), PathError> {
    let Some(changed) = root.modified(Path::new("/usr")) else {
        return Ok(());
    };
    let text = format!("# Made with the image.\nTIMESTAMP_NSEC={changed}\n");
    for directory in ["/etc", "/var"] {
        let path: PathBuf = Path::new(directory).join(".updated");
        if root.kind(Path::new(directory)) == Some(FileType::Directory) {
            // Written now, so its own time of change is not before that of /usr.
            root.write(&path, 0o644, text.as_bytes())?;
        }
    }
    Ok(())
}
