//! What is said over a service's socket: one line of JSON by the client, then lines of JSON by the
//! service. After [`Said::Joined`] the connection is the one to Nix's daemon in the machine.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The longest line, in bytes.
pub(crate) const LONGEST_LINE: usize = 1 << 20;

/// What a client wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "ask")]
pub enum Asked {
    /// A connection to Nix's daemon in the machine, which is started if needed.
    Connect,
    /// The machine, started if needed, and kept until the connection ends.
    Hold,
    /// How things are.
    Status,
    /// It is to listen for SSH where its keys say.
    Ssh,
    /// The machine is to stop.
    Stop {
        /// Also under builds that run.
        force: bool,
    },
}

/// What the service says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "said")]
pub enum Said {
    /// What is going on meanwhile, for people.
    Note {
        /// A few words.
        text: String,
    },
    /// Nothing new. It is said now and then, so that silence means that the service is gone.
    Still,
    /// From now on this is a connection to Nix's daemon.
    Joined,
    /// The machine runs, and will.
    Held {
        /// The socket of the session that it is in.
        session: PathBuf,
        /// Whether it ran before.
        ran: bool,
    },
    /// How things are.
    Status(Status),
    /// It listens for SSH.
    Open,
    /// The machine is off.
    Stopped,
    /// It cannot be done.
    Failed {
        /// Why.
        text: String,
    },
}

/// How things are with a builder's service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Its process id.
    pub pid: u32,
    /// Its machine.
    pub machine: MachineState,
    /// Connections that use the machine, or wait for it.
    pub sessions: usize,
    /// Seconds until the machine is stopped, while nobody uses it.
    pub stops_in: Option<f64>,
    /// The directory of its machine's session, while there is one.
    pub session: Option<PathBuf>,
    /// Why its last start failed, if it did.
    pub failure: Option<String>,
    /// What the clients of this service have sent to Nix in the machine, in bytes.
    #[serde(default)]
    pub sent: u64,
    /// What Nix in the machine has sent back.
    #[serde(default)]
    pub received: u64,
    /// What the machine sees of the host's store, while it runs and may.
    #[serde(default)]
    pub host_store: Option<HostStoreStatus>,
}

/// What a machine sees of the host's store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostStoreStatus {
    /// So many paths.
    pub paths: usize,
    /// What they would be as archives, in bytes: none of it was copied.
    pub bytes: u64,
}

/// Where a builder's machine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MachineState {
    /// Nothing runs.
    Off,
    /// It is on its way.
    Starting,
    /// It builds, or could.
    Up,
    /// It is on its way down.
    Stopping,
}

impl MachineState {
    /// In one word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Starting => "starting",
            Self::Up => "up",
            Self::Stopping => "stopping",
        }
    }
}

/// A line, with its end.
pub(crate) fn line(value: &impl Serialize) -> Vec<u8> {
    // Our own types have string keys and no maps that could fail.
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood() {
        let status = Status {
            pid: 1,
            machine: MachineState::Up,
            sessions: 2,
            stops_in: None,
            session: Some("/run/machinist/x".into()),
            failure: None,
            sent: 1,
            received: 2,
            host_store: Some(HostStoreStatus { paths: 3, bytes: 4 }),
        };
        for said in [
            Said::Note {
                text: "a\nb".into(),
            },
            Said::Still,
            Said::Joined,
            Said::Status(status),
            Said::Failed { text: "no".into() },
        ] {
            let line = line(&said);
            assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            assert_eq!(serde_json::from_slice::<Said>(&line).unwrap(), said);
        }
        let stop: Asked = serde_json::from_str(r#"{ "ask": "stop", "force": true }"#).unwrap();
        assert_eq!(stop, Asked::Stop { force: true });
    }
}
