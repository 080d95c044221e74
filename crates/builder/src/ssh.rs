//! SSH to a builder, for those who want it: keys that are made here and nowhere else, and what `ssh`
//! and Nix have to be told.
//!
//! ```text
//! <builder>/ssh/        0700
//!     key, key.pub      who may come in; 0600
//!     host_key, .pub    the machine's own, which whoever comes in expects
//!     known_hosts       the same, for `ssh`
//!     port              where the service listens on 127.0.0.1. Last to be made
//! ```

use std::fs::{self, DirBuilder};
use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;

use crate::path_error::{At, PathError};
use crate::state::{State, private_file};

/// Where the machine's sshd looks for them.
const GUEST_HOST_KEY: &str = "/etc/machinist/host_key";
const GUEST_AUTHORIZED: &str = "/etc/machinist/authorized_keys";

/// A builder's keys, and its port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    name: String,
    directory: PathBuf,
    port: u16,
}

/// Keys cannot be made.
#[derive(Debug, Error)]
pub enum KeysError {
    /// The program for it.
    #[error("cannot run ssh-keygen")]
    Program(#[source] io::Error),
    /// It says no.
    #[error("ssh-keygen failed: {0}")]
    Refused(String),
    /// Somebody else listens there.
    #[error("cannot listen at 127.0.0.1:{port}")]
    Port {
        /// The port.
        port: u16,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file system.
    #[error(transparent)]
    Path(#[from] PathError),
}

impl Keys {
    /// Those of a builder; `None` where it has none.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn of(state: &State) -> Result<Option<Self>, PathError> {
        let directory = state.path().join("ssh");
        let path = directory.join("port");
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text.at("read", &path)?,
        };
        let port = text.trim().parse().map_err(io::Error::other);
        Ok(Some(Self {
            name: state.name(),
            directory,
            port: port.at("read", &path)?,
        }))
    }

    /// Makes those of a builder that has none, with a free port where none is named. One that has
    /// some keeps them; a port that is named is its port from now on.
    ///
    /// # Errors
    /// There is no `ssh-keygen`, the port is taken, or the file system refuses.
    pub fn make(state: &State, port: Option<u16>) -> Result<Self, KeysError> {
        let before = Self::of(state)?;
        if let Some(keys) = &before
            && port.is_none_or(|port| port == keys.port)
        {
            return Ok(keys.clone());
        }
        let keys = Self {
            name: state.name(),
            directory: state.path().join("ssh"),
            port: free(port.unwrap_or(0))?,
        };
        if before.is_none() {
            keys.generate()?;
        }
        let known = format!("{} {}\n", keys.alias(), keys.host_key()?);
        keys.write("known_hosts", &known)?;
        keys.write("port", &format!("{}\n", keys.port))?;
        Ok(keys)
    }

    fn generate(&self) -> Result<(), KeysError> {
        let directory = &self.directory;
        // What an earlier try has left: nobody has been told of it.
        match fs::remove_dir_all(directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).at("remove", directory).map_err(KeysError::from);
            }
            _ => {}
        }
        let made = DirBuilder::new().mode(0o700).create(directory);
        made.at("make the directory", directory)?;
        for (file, comment) in [("key", "client"), ("host_key", "host")] {
            let output = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-C"])
                .arg(format!("machinist-{}-{comment}", self.name))
                .arg("-f")
                .arg(directory.join(file))
                .stdin(Stdio::null())
                .output()
                .map_err(KeysError::Program)?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                return Err(KeysError::Refused(said));
            }
        }
        Ok(())
    }

    fn write(&self, file: &str, text: &str) -> Result<(), PathError> {
        let path = self.directory.join(file);
        let opened = private_file().create(true).truncate(true).open(&path);
        let written = opened.and_then(|mut file| file.write_all(text.as_bytes()));
        written.at("write", &path)
    }

    fn read(&self, file: &str) -> Result<String, PathError> {
        let path = self.directory.join(file);
        fs::read_to_string(&path).at("read", &path)
    }

    /// The port of 127.0.0.1 where the service listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The client's private key.
    #[must_use]
    pub fn private(&self) -> PathBuf {
        self.directory.join("key")
    }

    /// The public half of the machine's own key: its type, itself, and a comment.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn host_key(&self) -> Result<String, PathError> {
        Ok(self.read("host_key.pub")?.trim().to_owned())
    }

    fn alias(&self) -> String {
        format!("machinist-{}", self.name)
    }

    /// What the machine's sshd needs: paths in it, and what is to be there.
    pub(crate) fn of_the_guest(&self) -> Result<[(&'static str, String); 2], PathError> {
        Ok([
            (GUEST_HOST_KEY, self.read("host_key")?),
            (GUEST_AUTHORIZED, self.read("key.pub")?),
        ])
    }

    /// What a file like `~/.ssh/config` says of it.
    #[must_use]
    pub fn config(&self) -> String {
        let alias = self.alias();
        let quoted = |path: &Path| format!("\"{}\"", path.display());
        format!(
            "Host {alias}
    HostName 127.0.0.1
    Port {}
    User root
    IdentityFile {}
    IdentitiesOnly yes
    HostKeyAlias {alias}
    UserKnownHostsFile {}
    GlobalKnownHostsFile /dev/null
    StrictHostKeyChecking yes
",
            self.port,
            quoted(&self.private()),
            quoted(&self.directory.join("known_hosts")),
        )
    }

    /// The machine line by which Nix reaches it by SSH, with its host key pinned.
    ///
    /// # Errors
    /// The key cannot be read.
    pub fn machine_line(
        &self,
        systems: &[String],
        jobs: u32,
        features: &[String],
    ) -> Result<String, PathError> {
        // Not `localhost`, for which Nix runs no ssh.
        Ok(format!(
            "ssh-ng://root@127.0.0.1:{} {} {} {jobs} 1 {} - {}",
            self.port,
            systems.join(","),
            self.private().display(),
            features.join(","),
            STANDARD.encode(self.host_key()?),
        ))
    }
}

/// `port`, or any where that is 0, if nobody listens there now.
fn free(port: u16) -> Result<u16, KeysError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    let bound = listener.and_then(|listener| listener.local_addr());
    bound
        .map(|address| address.port())
        .map_err(|source| KeysError::Port { port, source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::machines_file::Machine;

    #[test]
    fn keys_are_made_once_and_are_private() {
        let place = tempfile::tempdir().unwrap();
        let state = State::of(place.path(), "linux");
        fs::create_dir(state.path()).unwrap();
        assert_eq!(Keys::of(&state).unwrap(), None);
        let keys = match Keys::make(&state, None) {
            // Not every host that builds machinist has it.
            Err(KeysError::Program(_)) => return,
            keys => keys.unwrap(),
        };
        assert_eq!(Keys::of(&state).unwrap(), Some(keys.clone()));
        let private = fs::read(keys.private()).unwrap();
        for file in ["key", "host_key", "port", "known_hosts"] {
            let mode = fs::metadata(keys.directory.join(file)).unwrap().mode();
            assert_eq!(mode & 0o077, 0, "{file}");
        }
        assert_eq!(Keys::make(&state, None).unwrap(), keys);
        let other = Keys::make(&state, Some(free(0).unwrap())).unwrap();
        assert_ne!(other.port(), keys.port());
        assert_eq!(fs::read(other.private()).unwrap(), private);
        assert!(other.config().contains(&format!("Port {}\n", other.port())));
    }

    #[test]
    fn the_machine_line_is_one_that_nix_reads() {
        let place = tempfile::tempdir().unwrap();
        let keys = Keys {
            name: "linux".into(),
            directory: place.path().to_owned(),
            port: 31022,
        };
        keys.write("host_key.pub", "ssh-ed25519 AAAA host\n")
            .unwrap();
        let features = ["big-parallel".to_owned(), "kvm".to_owned()];
        let line = keys.machine_line(&["x86_64-linux".into()], 4, &features);
        let machine = Machine::parse(&line.unwrap(), "x86_64-linux").unwrap();
        assert_eq!(machine.max_jobs, 4);
        let key = STANDARD.encode("ssh-ed25519 AAAA host");
        assert_eq!(machine.host_key, Some(key));
    }
}
