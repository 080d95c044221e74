//! A build by a machine, through Nix's daemon, as a user's build would come to it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use super::DAEMON;
use crate::machines_file::Machine;

/// So many lines of Nix's own words are told.
const TAIL: usize = 12;

/// How a build comes to its machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// By its entry, given with the build. Nix takes that from trusted users alone.
    Entry,
    /// As any build would: the daemon chooses among the machines that it knows.
    Chosen,
}

/// Something to build.
#[derive(Debug, Clone)]
pub struct Trial<'a> {
    /// The program `nix-build`.
    pub nix_build: &'a Path,
    /// The machine that is to build it.
    pub machine: &'a Machine,
    /// The system that it is built for: one of the machine's.
    pub system: &'a str,
}

/// Why the machine did not build it.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// Nix's program cannot be run.
    #[error("cannot run {}", program.display())]
    Run {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Nix failed.
    #[error("Nix does not build on {uri}:\n{said}")]
    Failed {
        /// The machine.
        uri: String,
        /// Nix's last words.
        said: String,
    },
    /// Nix built it elsewhere.
    #[error("Nix built on another machine than {uri}:\n{said}")]
    Elsewhere {
        /// The machine.
        uri: String,
        /// Nix's last words.
        said: String,
    },
}

impl Trial<'_> {
    /// Builds something new: its input goes there, its output comes back.
    ///
    /// # Errors
    /// It does not.
    pub fn run(&self, way: Way) -> Result<(), TrialError> {
        let output = self.build(way)?;
        let uri = self.machine.uri.to_string();
        let words = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<&str> = words.lines().collect();
        let said = lines[lines.len().saturating_sub(TAIL)..].join("\n");
        if !output.status.success() {
            return Err(TrialError::Failed { uri, said });
        }
        // "building '/nix/store/...drv' on 'ssh-ng://...'..."
        if words.contains(&format!("on '{uri}'")) {
            Ok(())
        } else {
            Err(TrialError::Elsewhere { uri, said })
        }
    }

    fn build(&self, way: Way) -> Result<Output, TrialError> {
        let mut command = Command::new(self.nix_build);
        command
            .args(["--no-out-link", "--max-jobs", "0", "--timeout", "120"])
            .args(["--option", "substitute", "false"])
            .args(["--expr", &self.expression()])
            .current_dir("/")
            .stdin(Stdio::null());
        if way == Way::Entry {
            command.args(["--option", "builders", &self.machine.entry()]);
        }
        if Path::new(DAEMON).exists() {
            // As root Nix would go past it.
            command.env("NIX_REMOTE", "daemon");
        }
        command.output().map_err(|source| TrialError::Run {
            program: self.nix_build.to_owned(),
            source,
        })
    }

    /// What Nix itself knows how to build, so that no program for the machine's system is needed.
    fn expression(&self) -> String {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let nonce = format!("{}-{}", now.as_nanos(), std::process::id());
        let features: Vec<String> = self
            .machine
            .mandatory
            .iter()
            .map(|feature| format!("\"{feature}\""))
            .collect();
        format!(
            "derivation {{ name = \"machinist-trial-{nonce}\"; system = \"{}\"; builder = \"builtin:buildenv\"; \
             manifest = builtins.toFile \"machinist-trial\" \"{nonce}\"; derivations = []; \
             requiredSystemFeatures = [ {} ]; allowSubstitutes = false; preferLocalBuild = false; }}",
            self.system,
            features.join(" ")
        )
    }
}

/// The program of this name, in a list of directories as `PATH` has them, or where Nix puts it.
#[must_use]
pub fn find_nix(search: &OsStr, name: &str) -> Option<PathBuf> {
    let usual = [
        "/nix/var/nix/profiles/default/bin",
        "/run/current-system/sw/bin",
    ];
    std::env::split_paths(search)
        .chain(usual.map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
}
