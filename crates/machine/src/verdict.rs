//! Which accelerator a VM gets, by proof.
//!
//! `/dev/kvm` can be present and useless: it opens, makes VMs, and then no kernel boots in them. So
//! a VM that may choose is started under KVM *on trial*, and when it shows no sign of life, KVM is
//! condemned: for this process at once, and for others until the host boots again or has another
//! QEMU. No trial is lost twice on the same host.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::path_error::{PathContext, PathError};

/// What a machine asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Accel {
    /// KVM where it works, else TCG.
    #[default]
    Auto,
    /// KVM, or nothing.
    Kvm,
    /// Emulation.
    Tcg,
}

/// What a VM runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// Hardware virtualization.
    Kvm,
    /// Emulation.
    Tcg,
}

impl Accelerator {
    /// As QEMU calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

const KVM: &str = "/dev/kvm";

/// Version of the file's format. A file of another version says nothing.
const FORMAT: u32 = 1;

/// What the verdict holds for. Anything else than equal means that nothing is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Host {
    boot_id: String,
    kernel: String,
    /// Path, size, modification time: a QEMU that was replaced is another QEMU.
    qemu: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    format: u32,
    host: Host,
    kvm: String,
}

/// What is known of this host's accelerators. Clones know the same.
#[derive(Debug, Clone)]
pub struct Verdicts {
    file: Option<PathBuf>,
    host: Host,
    condemned: Arc<watch::Sender<Option<String>>>,
    /// The user was told that KVM is there and shut.
    told: Arc<AtomicBool>,
}

impl Verdicts {
    /// Those remembered in `cache`, for VMs that are run by `qemu`.
    #[must_use]
    pub fn open(cache: &Path, qemu: &Path) -> Self {
        let host = Host::of_this_boot(qemu);
        let file = cache.join("accelerators.json");
        let known = fs::read(&file)
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Record>(&bytes).ok())
            .filter(|record| record.format == FORMAT && record.host == host)
            .map(|record| record.kvm);
        Self {
            file: Some(file),
            host,
            condemned: Arc::new(watch::Sender::new(known)),
            told: Arc::default(),
        }
    }

    /// None yet, and none to be remembered.
    #[must_use]
    pub fn forgetful() -> Self {
        Self {
            file: None,
            host: Host::of_this_boot(Path::new("")),
            condemned: Arc::new(watch::Sender::new(None)),
            told: Arc::default(),
        }
    }

    /// Why KVM is known not to work, if it is.
    #[must_use]
    pub fn kvm(&self) -> Option<String> {
        self.condemned.borrow().clone()
    }

    /// Where they are remembered, if they are.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Told when KVM is condemned, by whichever machine's trial.
    pub(crate) fn watch(&self) -> watch::Receiver<Option<String>> {
        self.condemned.subscribe()
    }

    /// KVM does not work, for this reason. Where that cannot be written down, the next process
    /// finds it out again.
    pub(crate) fn condemn_kvm(&self, reason: &str) {
        if self.condemned.borrow().is_some() {
            return;
        }
        self.condemned.send_replace(Some(reason.to_owned()));
        if let Err(error) = self.remember(reason) {
            tracing::warn!("{error}: {}", error.source);
        }
    }

    /// Why KVM does not work, with where that is remembered, and so how to have it forgotten.
    pub(crate) fn explain(&self, reason: &str) -> String {
        match &self.file {
            Some(file) => format!(
                "{reason} (remembered until the next boot in {}; remove it to try again)",
                file.display()
            ),
            None => reason.to_owned(),
        }
    }

    /// One sentence for the user, once, where a VM that asks for `wish` is emulated although the
    /// host has KVM.
    pub(crate) fn shut(&self, wish: Accel) -> Option<String> {
        if wish != Accel::Auto || self.kvm().is_some() {
            return None;
        }
        let error = open_kvm().err()?;
        let group = fs::metadata(KVM).ok()?.gid();
        let first = !self.told.swap(true, Ordering::Relaxed);
        first.then(|| shut_sentence(&error, group))
    }

    fn remember(&self, reason: &str) -> Result<(), PathError> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        let record = Record {
            format: FORMAT,
            host: self.host.clone(),
            kvm: reason.to_owned(),
        };
        let text = serde_json::to_vec_pretty(&record)
            .map_err(io::Error::from)
            .path(file)?;
        if let Some(dir) = file.parent() {
            fs::create_dir_all(dir).path(dir)?;
        }
        // Written beside and renamed: a reader sees the old file or the new one.
        let beside = file.with_extension(format!("{}.tmp", std::process::id()));
        let mut out = fs::File::create(&beside).path(&beside)?;
        out.write_all(&text).path(&beside)?;
        fs::rename(&beside, file).path(file)
    }

    /// What a machine that asks for `wish` runs on.
    ///
    /// # Errors
    /// It insists on KVM, and KVM is not there or known not to work: why.
    pub fn choose(&self, wish: Accel) -> Result<Accelerator, String> {
        let verdict = self.kvm();
        match (wish, verdict) {
            (Accel::Tcg, _) | (Accel::Auto, Some(_)) => Ok(Accelerator::Tcg),
            (Accel::Kvm, Some(reason)) => {
                Err(format!("KVM does not work here: {}", self.explain(&reason)))
            }
            (Accel::Auto, None) => Ok(match open_kvm() {
                Ok(()) => Accelerator::Kvm,
                Err(_) => Accelerator::Tcg,
            }),
            (Accel::Kvm, None) => match open_kvm() {
                Ok(()) => Ok(Accelerator::Kvm),
                Err(error) => Err(format!("{KVM} cannot be opened: {error}")),
            },
        }
    }
}

impl Host {
    fn of_this_boot(qemu: &Path) -> Self {
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let file = fs::metadata(qemu)
            .map(|found| format!("{} {} {}", qemu.display(), found.size(), found.mtime()));
        Self {
            boot_id: boot_id.trim().to_owned(),
            kernel: rustix::system::uname().release().to_string_lossy().into(),
            qemu: file.unwrap_or_default(),
        }
    }
}

fn open_kvm() -> io::Result<()> {
    fs::File::options()
        .read(true)
        .write(true)
        .open(KVM)
        .map(drop)
}

/// The number that the kernel shows for an id that our user namespace does not have.
const OVERFLOW: u32 = 65_534;

/// Why VMs are emulated, where [`KVM`] belongs to `group` and opening it fails.
fn shut_sentence(error: &io::Error, group: u32) -> String {
    let mut text = format!("VMs are emulated, which is slow: {KVM} cannot be opened: {error}");
    // Of root's group nobody becomes a member for this.
    if error.kind() == io::ErrorKind::PermissionDenied && group != 0 {
        let groups = fs::read_to_string("/etc/group").unwrap_or_default();
        // In a user namespace the host's groups have no names.
        let named = (group != OVERFLOW).then(|| group_name(&groups, group));
        let name = named.flatten().unwrap_or("kvm");
        // Writing to a string cannot fail.
        _ = write!(text, "; members of the group {name} can");
    }
    text
}

fn group_name(groups: &str, number: u32) -> Option<&str> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(number)).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_is_remembered_for_this_boot_and_this_qemu() {
        let dir = tempfile::tempdir().unwrap();
        let qemu = dir.path().join("qemu");
        fs::write(&qemu, "x").unwrap();
        let first = Verdicts::open(dir.path(), &qemu);
        assert_eq!(first.kvm(), None);
        first.condemn_kvm("it did not move");
        first.condemn_kvm("a later reason");
        assert_eq!(first.choose(Accel::Auto), Ok(Accelerator::Tcg));
        assert_eq!(
            first.choose(Accel::Kvm),
            Err(format!(
                "KVM does not work here: it did not move (remembered until the next boot in \
                 {}/accelerators.json; remove it to try again)",
                dir.path().display()
            ))
        );

        let second = Verdicts::open(dir.path(), &qemu);
        assert_eq!(second.kvm().as_deref(), Some("it did not move"));

        fs::write(&qemu, "another").unwrap();
        assert_eq!(Verdicts::open(dir.path(), &qemu).kvm(), None);
    }

    #[test]
    fn a_shut_kvm_names_the_group_that_may() {
        let denied = io::Error::from_raw_os_error(13);
        assert_eq!(
            shut_sentence(&denied, 0),
            "VMs are emulated, which is slow: /dev/kvm cannot be opened: \
             Permission denied (os error 13)"
        );
        assert!(shut_sentence(&denied, 4_000_000).ends_with("; members of the group kvm can"));
        let groups = "root:x:0:\nkvm:x:106:me,you\n";
        assert_eq!(group_name(groups, 106), Some("kvm"));
        assert_eq!(group_name(groups, 10), None);
    }

    #[test]
    fn a_file_that_says_nothing_is_no_verdict() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("accelerators.json"), "{").unwrap();
        assert_eq!(Verdicts::open(dir.path(), Path::new("/none")).kvm(), None);
    }
}
