//! Images in machinist's cache, which the other side boots, too.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::Value;

use super::program::Program;
use crate::command;

/// The image of all rows.
pub const IMAGE: &str = "debian:bookworm";

/// The root directory of the image with these packages.
pub fn root(program: &Program, packages: &[&str]) -> Result<PathBuf> {
    let mut build = program.command(&["image", "build", IMAGE]);
    for package in packages {
        build.args(["--package", package]);
    }
    command::run(&mut build)?;
    let is_it = |name: &str| {
        if packages.is_empty() {
            name == IMAGE
        } else {
            name.starts_with(&format!("{IMAGE} with "))
                && packages.iter().all(|package| name.contains(package))
        }
    };
    Ok(latest(program, "image", is_it)?.join("root"))
}

/// The root of the image as a disk. A VM of these packages must have run.
pub fn disk(program: &Program, packages: &[&str]) -> Result<PathBuf> {
    let all = |name: &str| packages.iter().all(|package| name.contains(package));
    Ok(latest(program, "disk", all)?.join("root.erofs"))
}

/// The root of the image alone as a disk. A VM of it must have run.
pub fn plain_disk(program: &Program) -> Result<PathBuf> {
    let name = format!("disk of {IMAGE}");
    Ok(latest(program, "disk", |it| it == name)?.join("root.erofs"))
}

/// The directory of all that has been built.
pub fn directory(program: &Program) -> Result<PathBuf> {
    let image = latest(program, "image", |it| it == IMAGE)?;
    let all = image.parent().and_then(|kind| kind.parent());
    all.map(PathBuf::from).context("no directory of images")
}

/// A kernel of Debian's with its modules.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// The file that a bootloader starts.
    pub image: PathBuf,
    /// What has `modules.dep`.
    pub modules: PathBuf,
    /// As `uname -r` says it.
    pub version: String,
}

/// The kernel that a VM of the image boots.
pub fn cloud_kernel(program: &Program) -> Result<Kernel> {
    command::run(&mut program.command(&["image", "build", "--kind", "vm", IMAGE]))?;
    kernel(program, &format!("kernel of {IMAGE}"))
}

/// The kernel that a VM with a shared folder boots. One must have run.
pub fn generic_kernel(program: &Program) -> Result<Kernel> {
    kernel(program, &format!("generic kernel of {IMAGE}"))
}

fn kernel(program: &Program, name: &str) -> Result<Kernel> {
    let path = latest(program, "kernel", |it| it.starts_with(name))?;
    let version = std::fs::read_to_string(path.join("version"))
        .with_context(|| format!("cannot read the version in {}", path.display()))?;
    let version = version.trim().to_owned();
    Ok(Kernel {
        image: path.join("vmlinuz"),
        modules: path.join("modules").join(&version),
        version,
    })
}

/// The directory of what was used last of all that is so called.
fn latest(program: &Program, kind: &str, is_it: impl Fn(&str) -> bool) -> Result<PathBuf> {
    let mut list = program.command(&["image", "list", "--format", "json"]);
    let list: Value =
        serde_json::from_str(&command::stdout(&mut list)?).context("the list of images")?;
    let entries = list.as_array().into_iter().flatten();
    let found = entries
        .filter(|entry| entry["kind"] == kind && entry["name"].as_str().is_some_and(&is_it))
        .max_by_key(|entry| entry["last_used"].as_u64());
    let path = found.and_then(|entry| entry["path"].as_str());
    path.map(PathBuf::from)
        .with_context(|| format!("no such {kind} in the cache"))
}
