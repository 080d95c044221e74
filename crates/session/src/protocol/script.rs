//! Machines that start scripts run, and the driver whose machines they are.

use std::collections::BTreeMap;
use std::path::PathBuf;

use machinist_events::Level;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Published;

/// What a start script runs.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum ScriptKind {
    /// QEMU.
    #[default]
    Vm,
    /// systemd-nspawn.
    Container,
}

impl ScriptKind {
    /// `vm` or `container`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Vm => "vm",
            Self::Container => "container",
        }
    }

    /// The machine's name in its start command, which ends with the path of a start script:
    /// `run-NAME-vm` or `run-NAME-nspawn`. A VM's command that says none runs `machine`.
    #[must_use]
    pub fn name_in(self, command: &str) -> Option<String> {
        let script = command.rsplit('/').next().unwrap_or(command);
        let ending = match self {
            Self::Vm => "-vm",
            Self::Container => "-nspawn",
        };
        let named = script
            .find("run-")
            .and_then(|at| script[at + 4..].strip_suffix(ending))
            .filter(|name| !name.is_empty())
            .map(str::to_owned);
        match self {
            Self::Vm => Some(named.unwrap_or_else(|| "machine".to_owned())),
            Self::Container => named,
        }
    }
}

/// What [`super::Hello`] says of a driver: a session whose machines start scripts run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DriverInfo {
    /// Where what is copied out of machines goes, and screenshots.
    pub out_dir: PathBuf,
    /// Where the machines' state directories are.
    pub state_root: PathBuf,
    /// The directory that all machines share: `/tmp/shared` in each.
    pub shared_dir: PathBuf,
    /// A person types; the script runs when that person asks for it.
    pub interactive: bool,
    /// What matters less is left out of what the script writes into its log.
    #[serde(default)]
    pub log_level: Level,
    /// A failure is a breakpoint, and `debug.breakpoint()` is one.
    pub debug: bool,
    /// The command that the caller wants to be named to who is to attach to a breakpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub debug_hook: Option<String>,
    /// People are to be told how to log in by SSH.
    pub ssh_backdoor: bool,
    /// Seconds that the whole test may take. The session sees to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub global_timeout: Option<f64>,
    /// What the caller's configuration says of the machines' displays, as it stands there, by the
    /// machines' names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub displays: BTreeMap<String, Value>,
}

/// The answer to `add_machine`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Added {
    /// The machine's name.
    pub name: String,
    /// What it is.
    pub kind: ScriptKind,
}

/// The answer to `forward`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forwarded {
    /// Where this host listens: an address with its port, or the path of a socket.
    pub address: String,
}

/// The answer to `describe`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// Its name.
    pub name: String,
    /// `vm` or `container`.
    pub kind: String,
    /// `off`, `starting`, `up`, `ready`, `stopping` or `failed`.
    pub state: String,
    /// The process that runs it on this host, while one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Where it keeps what is its own on this host.
    pub state_dir: PathBuf,
    /// The directory that it shares with the other machines, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_dir: Option<PathBuf>,
    /// Where what is copied out of it goes, where the session knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub out_dir: Option<PathBuf>,
    /// It has been started, and is not off.
    pub booted: bool,
    /// Its agent answers.
    pub connected: bool,
    /// How often it has come up.
    #[serde(default)]
    pub boots: u64,
    /// Its ports that this host publishes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub published: Vec<Published>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_from_scripts() {
        let vm = |command: &str| ScriptKind::Vm.name_in(command).unwrap();
        assert_eq!(vm("/nix/store/x-nixos-vm/bin/run-web-1-vm"), "web-1");
        assert_eq!(vm("FOO=1 /a/run-run-x-vm"), "run-x");
        assert_eq!(vm("/a/run-x-vm -m 512"), "machine");
        assert_eq!(vm("qemu-system-x86_64"), "machine");
        let container = |command: &str| ScriptKind::Container.name_in(command);
        assert_eq!(container("/a/run-db-nspawn").as_deref(), Some("db"));
        assert_eq!(container("/a/db"), None);
    }
}
