//! A builder whose machine is a NixOS system of the user's, in the place of our Debian.
//!
//! ```text
//! SystemOptions ──look──▶ System       everything that can be wrong before a boot is found here
//!   lay                   STATE/system: what the machine boots, what belongs to the system, and a link
//!                         by which the host's Nix keeps it
//!   ready                 before each start: a VM's disk has a file system, a container's store the system
//!   init.sh               in the machine: its /nix, then the system's own init
//! ```
//!
//! NixOS' initrd finds and mounts a root that a builder does not have, so it is not run: what boots is
//! our initrd with the agent, as in every machine of ours, and the system's kernel. The system is copied
//! into the builder's store, where it is one closure among others: a later system is copied beside it,
//! and the machine's garbage collector removes what nothing refers to any more.

mod closure;
mod disk;
#[cfg(target_os = "linux")]
mod lay;
mod look;
mod magic;
mod place;

use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::config::Kind;

pub use closure::NixError;
#[cfg(target_os = "linux")]
pub(crate) use disk::DiskError;
#[cfg(target_os = "linux")]
pub use lay::LayError;
pub use look::SystemOptions;

/// Where Nix's daemon listens in a NixOS system.
pub(crate) const DAEMON: &str = "/nix/var/nix/daemon-socket/socket";

/// A NixOS system that a builder's machine runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct System {
    /// The `/` of the store that it is in.
    pub root: PathBuf,
    /// Its toplevel, as those in the store call it.
    pub toplevel: PathBuf,
    /// As `nixos-version` says.
    pub version: String,
    /// What a VM boots; a container has none.
    pub kernel: Option<Kernel>,
}

/// The kernel of a system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    /// Its file on the host.
    pub image: PathBuf,
    /// As `uname -r` says.
    pub version: String,
    /// The directory on the host that has its `modules.dep`.
    pub modules: PathBuf,
}

/// Something is wrong with a system, its kernel or its initrd.
#[derive(Debug, Error)]
pub enum SystemError {
    /// A file.
    #[error("{option} {}: {why}; {mend}", path.display())]
    Wrong {
        /// As on the command line.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
        /// What to do.
        mend: String,
    },
    /// What Nix says.
    #[error(transparent)]
    Nix(#[from] NixError),
}

impl SystemError {
    fn new(option: &'static str, path: &Path, why: impl Into<String>, mend: &str) -> Self {
        Self::Wrong {
            option,
            path: path.to_owned(),
            why: why.into(),
            mend: mend.to_owned(),
        }
    }
}

impl System {
    /// What runs it.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self.kernel {
            Some(_) => Kind::Vm,
            None => Kind::Container,
        }
    }
}

/// What in the toplevel is run for an init. Where NixOS has systemd in its initrd, `init` is systemd
/// itself, and what has to come before it is beside it.
fn init_name(root: &Path, toplevel: &Path) -> &'static str {
    let name = "prepare-root";
    match place::resolve(root, &toplevel.join(name)) {
        Ok(_) => name,
        Err(_) => "init",
    }
}

/// The interpreter that a script names; `None` where it is no script.
fn interpreter(script: &Path) -> io::Result<Option<PathBuf>> {
    let line = look::first_line(script)?;
    let Some(words) = line.strip_prefix(b"#!") else {
        return Ok(None);
    };
    let mut words = words.split(u8::is_ascii_whitespace);
    let word = words.find(|word| !word.is_empty());
    Ok(word.map(|word| std::ffi::OsString::from_vec(word.to_vec()).into()))
}

/// A program of the host, in `search` or where systems have theirs: not everybody's `PATH` has all.
fn program(search: &Path, name: &str) -> Option<PathBuf> {
    let usual = [
        "/usr/sbin",
        "/usr/bin",
        "/sbin",
        "/bin",
        "/run/current-system/sw/bin",
    ];
    std::env::split_paths(search.as_os_str())
        .chain(usual.map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
}

#[cfg(test)]
mod tests;
