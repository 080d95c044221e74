//! Images of the image store, for tests that boot them by other means.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::start_script::VmSystem;
use crate::{Command, Ran};

/// The root directory of a Debian (`debian:SUITE`) with `packages`, built unless it is in the user's
/// cache. Nobody may write to it.
///
/// # Errors
/// It cannot be built.
pub fn root(image: &str, packages: &[&str]) -> Result<PathBuf> {
    build(image, packages, json!({ "kind": "container" }))?;
    Ok(path("image", &name(image, packages))?.join("root"))
}

/// What a VM of it boots, with a kernel that knows 9p; built unless it is in the user's cache.
///
/// # Errors
/// It cannot be built.
pub fn system(image: &str, packages: &[&str]) -> Result<VmSystem> {
    // A shared folder is what wants 9p.
    let machine = json!({ "kind": "vm", "volumes": ["/:/mnt"] });
    build(image, packages, machine)?;
    let kernel = path("kernel", &format!("generic kernel of {image}"))?;
    let version = std::fs::read_to_string(kernel.join("version"))
        .with_context(|| format!("cannot read the version in {}", kernel.display()))?;
    let disk = path("disk", &format!("disk of {}", name(image, packages)))?;
    Ok(VmSystem {
        kernel: kernel.join("vmlinuz"),
        modules: kernel.join("modules").join(version.trim()),
        disk: disk.join("root.erofs"),
    })
}

/// The same kernel unpacked, where the image store has that beside it.
#[must_use]
pub fn unpacked(kernel: &Path) -> PathBuf {
    let unpacked = kernel.with_file_name("vmlinux");
    if unpacked.exists() {
        unpacked
    } else {
        kernel.to_owned()
    }
}

/// The directory of the kernel that VMs of this Debian boot: `vmlinuz`, `version`, and
/// `modules/VERSION`. Built unless it is in the user's cache.
///
/// # Errors
/// It cannot be built.
pub fn kernel(image: &str) -> Result<PathBuf> {
    build(image, &[], json!({ "kind": "vm" }))?;
    path("kernel", &format!("kernel of {image}"))
}

/// The user's cache, as soon as anything is in it.
///
/// # Errors
/// Nothing is.
pub fn cache() -> Result<PathBuf> {
    let list = machinist(&["image", "list", "--format", "json"])?.json()?;
    // CACHE/images/KIND/KEY
    let path = list[0]["path"].as_str().map(Path::new);
    let cache = path.and_then(|path| path.ancestors().nth(3));
    cache.map(PathBuf::from).context("nothing is in the cache")
}

/// As the image store calls it.
fn name(image: &str, packages: &[&str]) -> String {
    let mut sorted = packages.to_vec();
    sorted.sort_unstable();
    match sorted.as_slice() {
        [] => image.to_owned(),
        names => format!("{image} with {}", names.join(", ")),
    }
}

/// Builds what a machine with these keys needs.
fn build(image: &str, packages: &[&str], mut machine: Value) -> Result<()> {
    machine["image"] = image.into();
    machine["packages"] = packages.into();
    let directory = tempfile::tempdir().context("cannot make a directory")?;
    let file = directory.path().join("lab.json");
    std::fs::write(&file, json!({ "machine": { "m": machine } }).to_string())
        .context("cannot write a lab file")?;
    machinist(&["image", "build", "--file", &file.to_string_lossy()])?;
    Ok(())
}

/// The directory of what was used last of all that is so called.
fn path(kind: &str, name: &str) -> Result<PathBuf> {
    let list = machinist(&["image", "list", "--format", "json"])?.json()?;
    let entries = list.as_array().into_iter().flatten();
    let found = entries
        .filter(|entry| entry["kind"] == kind && entry["name"] == name)
        .max_by_key(|entry| entry["last_used"].as_u64());
    let path = found.and_then(|entry| entry["path"].as_str());
    path.map(PathBuf::from)
        .with_context(|| format!("no {kind} {name:?} in the cache"))
}

fn machinist(words: &[&str]) -> Result<Ran> {
    let here = std::env::temp_dir();
    Command::new(&here).args(words).run()?.exits(0)
}
