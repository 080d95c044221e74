//! Root file systems as directories.

mod policy;
mod rooted;

use std::fs;
use std::path::Path;

use crate::error::{At, ImageError};
use crate::progress::Job;
use crate::spec::AddedFile;
use crate::tool::mmdebstrap::{self, Request, Variant};
use crate::tool::{self, copy, tar};

pub(crate) use self::policy::VERSION as POLICY;
use self::rooted::Root;

/// What every Debian image of ours has beyond what is essential, and why:
/// systemd boots it; dbus lets systemctl and logind talk; kmod loads modules on demand; iproute2,
/// iputils-ping and netbase are what tests look at networks with; procps has ps, pgrep and sysctl.
/// Not among them: udev, whose coldplug takes four seconds of an emulated boot and without which
/// devices have their kernel's names (whatever needs udev depends on it); and locales, since glibc
/// has C.UTF-8 itself.
const BASE: &[&str] = &[
    "systemd",
    "systemd-sysv",
    "dbus",
    "kmod",
    "iproute2",
    "iputils-ping",
    "netbase",
    "procps",
];

/// Makes a Debian root at `target`. `plain` is one of the same suite without `packages`: where there
/// is one they are added to a copy of it, which takes a quarter of the time.
pub(crate) fn debian(
    suite: &str,
    packages: &[String],
    mirror: Option<&str>,
    plain: Option<&Path>,
    target: &Path,
    job: &Job<'_>,
) -> Result<(), ImageError> {
    let base = BASE.iter().map(|&name| name.to_owned());
    let all: Vec<String> = base.chain(packages.iter().cloned()).collect();
    let (variant, packages) = match plain {
        Some(plain) => (Variant::CopyOf(plain), packages),
        None => (Variant::MinBase, all.as_slice()),
    };
    let request = Request {
        variant,
        suite,
        packages,
        mirror,
        target,
    };
    tool::run(&mmdebstrap::tool(&request), job, &mut |line| {
        if let Some(step) = mmdebstrap::step(line) {
            job.doing(step);
        }
    })?;
    job.doing("settling");
    policy::settle(&Root::open(target)?)?;
    Ok(())
}

/// Unpacks an archive to `target`.
pub(crate) fn tar(archive: &Path, target: &Path, job: &Job<'_>) -> Result<(), ImageError> {
    fs::create_dir(target).at("create", target)?;
    job.doing("unpacking");
    tool::run(&tar::unpack(archive, target), job, &mut |_| ())
}

/// Copies a directory to `target`.
pub(crate) fn copy(from: &Path, target: &Path, job: &Job<'_>) -> Result<(), ImageError> {
    fs::create_dir(target).at("create", target)?;
    job.doing("copying");
    tool::run(&copy::tree(from, target), job, &mut |_| ())
}

/// Puts files into the root at `target`.
pub(crate) fn add_files(files: &[AddedFile], target: &Path) -> Result<(), ImageError> {
    let root = Root::open(target)?;
    for file in files {
        root.write(&file.path, file.mode, &file.contents)?;
    }
    Ok(())
}

/// Brings the time stamps up to date by which systemd knows whether `/usr` has changed since it last
/// rebuilt its caches. To be called last.
pub(crate) fn stamp(target: &Path) -> Result<(), ImageError> {
    Ok(policy::stamp(&Root::open(target)?)?)
}
