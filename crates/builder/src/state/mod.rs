//! A builder's directory: all that it is and has.
//!
//! ```text
//! <builders>/NAME/       0700
//!     builder.json       what it was created with: `Config`
//!     lock               held by its service as long as that lives; the service's process id
//!     socket             0600, where `machinist connect` reaches the service
//!     lab.json           what its machine is, written at each start
//!     session            the directory of its machine's last session
//!     machine.json       what was found out about the machine at its last start: `Proven`
//!     log                what the service did
//!     console            what the machine's console has shown since its last start
//!     store/             a container's /nix
//!     host-store         the paths of the host's store that its Nix has been told of
//!     store.img          a VM's disk, sparse, with its /nix
//!     system/            what the machine of a NixOS system boots
//!     ssh/               keys and configuration, once somebody wants SSH
//! ```

mod lock;

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use machinist_sys::lock::Locked;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::config::{Config, FORMAT, Kind};
use crate::path_error::{At, PathError};

/// The longest path that fits into a socket's address, in bytes.
const LONGEST_SOCKET_PATH: usize = 107;

/// A builder's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    path: PathBuf,
}

/// What a machine has been seen to offer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proven {
    /// The features that its Nix offers, sorted.
    pub features: Vec<String>,
    /// The version of its Nix.
    pub nix: String,
}

/// A builder cannot be made, found or removed.
#[derive(Debug, Error)]
pub enum StateError {
    /// There is no such builder.
    #[error("there is no builder {name:?}")]
    Unknown {
        /// The name.
        name: String,
    },
    /// There is one already.
    #[error("there is a builder {name:?} already")]
    Exists {
        /// The name.
        name: String,
    },
    /// Its service runs.
    #[error("the builder {name:?} runs (process {pid})")]
    Runs {
        /// The name.
        name: String,
        /// Its service's process id.
        pid: String,
    },
    /// The socket's path would be too long for the system.
    #[error("{} is too long for a builder's directory: its socket's path may have {LONGEST_SOCKET_PATH} bytes", .0.display())]
    TooLong(PathBuf),
    /// It was made by another machinist.
    #[error("the builder {name:?} has format {found}, and this machinist knows {FORMAT}")]
    Format {
        /// The name.
        name: String,
        /// Its format.
        found: u32,
    },
    /// The file system refuses.
    #[error(transparent)]
    Path(#[from] PathError),
}

impl State {
    /// The builder `name` among those of the directory `builders`, whether it is there or not. A
    /// name with a slash is the path of a builder's directory.
    #[must_use]
    pub fn of(builders: &Path, name: &str) -> Self {
        // Joining an absolute path gives that.
        Self {
            path: builders.join(name),
        }
    }

    /// The builder `name`, which must be there.
    ///
    /// # Errors
    /// It is not.
    pub fn find(builders: &Path, name: &str) -> Result<Self, StateError> {
        let state = Self::of(builders, name);
        if state.config_file().is_file() {
            return Ok(state);
        }
        Err(StateError::Unknown {
            name: name.to_owned(),
        })
    }

    /// All builders in the directory `builders`, by name.
    ///
    /// # Errors
    /// It cannot be read. Where it does not exist, there are none.
    pub fn all(builders: &Path) -> Result<Vec<Self>, PathError> {
        let entries = match fs::read_dir(builders) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.at("list", builders)?,
        };
        let mut all = Vec::new();
        for entry in entries {
            let path = entry.at("list", builders)?.path();
            let state = Self { path };
            if state.config_file().is_file() {
                all.push(state);
            }
        }
        all.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(all)
    }

    /// Makes a builder's directory, with an empty store.
    ///
    /// # Errors
    /// There is one, or the file system refuses. Then nothing is left.
    pub fn create(builders: &Path, config: &Config) -> Result<Self, StateError> {
        let state = Self::of(builders, &config.name);
        if state.socket().as_os_str().len() > LONGEST_SOCKET_PATH {
            return Err(StateError::TooLong(state.path));
        }
        let mut private = DirBuilder::new();
        private.mode(0o700);
        private
            .recursive(true)
            .create(builders)
            .at("make the directory", builders)?;
        // One at a time, so that what another is making is not taken for what is left of one.
        let held = File::open(builders).at("open", builders)?;
        let _held = Locked::exclusive(held).at("lock", builders)?;
        state.remove_rest()?;
        match private.recursive(false).create(&state.path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(StateError::Exists {
                    name: config.name.clone(),
                });
            }
            made => made.at("make the directory", &state.path)?,
        }
        match state.fill(config) {
            Ok(()) => Ok(state),
            Err(error) => {
                // The first error is the one to tell.
                drop(fs::remove_dir_all(&state.path));
                Err(error.into())
            }
        }
    }

    /// Removes what is left of a builder whose making or removal was killed: a directory that has at most a
    /// part of it, and that nobody holds.
    fn remove_rest(&self) -> Result<(), PathError> {
        if !self.path.is_dir() || self.config_file().exists() {
            return Ok(());
        }
        match self.lock()? {
            Some(_lock) => fs::remove_dir_all(&self.path).at("remove", &self.path),
            None => Ok(()),
        }
    }

    fn fill(&self, config: &Config) -> Result<(), PathError> {
        match config.kind {
            Kind::Container => {
                let store = self.store();
                fs::create_dir(&store).at("make the directory", &store)?;
                // Nix asks for it; the directory above is closed to others.
                let mode = fs::Permissions::from_mode(0o755);
                fs::set_permissions(&store, mode).at("change", &store)?;
            }
            Kind::Vm => {
                let disk = self.disk();
                let file = private_file().create_new(true).open(&disk);
                let file = file.at("make", &disk)?;
                file.set_len(config.disk).at("make", &disk)?;
            }
        }
        // Last: a directory with this file is a builder.
        self.write_json(&self.config_file(), config)
    }

    /// What it was created with.
    ///
    /// # Errors
    /// It cannot be read, or is another machinist's.
    pub fn config(&self) -> Result<Config, StateError> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let path = self.config_file();
        let Format { format } = self.read_json(&path)?;
        if format != FORMAT {
            return Err(StateError::Format {
                name: self.name(),
                found: format,
            });
        }
        Ok(self.read_json(&path)?)
    }

    pub(crate) fn set_config(&self, config: &Config) -> Result<(), PathError> {
        self.write_json(&self.config_file(), config)
    }

    /// What was found out about its machine, if it has ever run.
    #[must_use]
    pub fn proven(&self) -> Option<Proven> {
        self.read_json(&self.path.join("machine.json")).ok()
    }

    pub(crate) fn set_proven(&self, proven: &Proven) -> Result<(), PathError> {
        if self.proven().as_ref() == Some(proven) {
            return Ok(());
        }
        self.write_json(&self.path.join("machine.json"), proven)
    }

    /// The directory of its machine's last session.
    pub(crate) fn session(&self) -> Option<PathBuf> {
        let text = fs::read(self.path.join("session")).ok()?;
        Some(OsString::from_vec(text).into())
    }

    pub(crate) fn set_session(&self, session: &Path) -> Result<(), PathError> {
        self.write(&self.path.join("session"), session.as_os_str().as_bytes())
    }

    /// Removes it with all that it has built.
    ///
    /// # Errors
    /// Its service runs, or the file system refuses.
    pub fn destroy(self) -> Result<(), StateError> {
        let Some(lock) = self.lock()? else {
            return Err(StateError::Runs {
                name: self.name(),
                pid: self.pid().unwrap_or_default(),
            });
        };
        // Whatever happens now, it is no builder any more.
        let config = self.config_file();
        fs::remove_file(&config).at("remove", &config)?;
        fs::remove_dir_all(&self.path).at("remove", &self.path)?;
        drop(lock);
        Ok(())
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> String {
        let name = self.path.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where its service listens.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.path.join("socket")
    }

    /// What its service did.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// What its machine's console has shown since its last start.
    #[must_use]
    pub fn console(&self) -> PathBuf {
        self.path.join("console")
    }

    /// A container's /nix.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.path.join("store")
    }

    /// The paths of the host's store that its machine's Nix has been told of.
    pub(crate) fn host_store(&self) -> PathBuf {
        self.path.join("host-store")
    }

    /// What the machine of a NixOS system boots, and what keeps that on the host.
    pub(crate) fn system(&self) -> PathBuf {
        self.path.join("system")
    }

    /// A VM's disk.
    #[must_use]
    pub fn disk(&self) -> PathBuf {
        self.path.join("store.img")
    }

    /// The lab that its machine is of.
    #[must_use]
    pub fn lab(&self) -> PathBuf {
        self.path.join("lab.json")
    }

    fn config_file(&self) -> PathBuf {
        self.path.join("builder.json")
    }

    fn read_json<T: DeserializeOwned>(&self, path: &Path) -> Result<T, PathError> {
        let text = fs::read(path).at("read", path)?;
        let read = serde_json::from_slice(&text);
        read.map_err(io::Error::from).at("read", path)
    }

    fn write_json(&self, path: &Path, value: &impl Serialize) -> Result<(), PathError> {
        let mut text = serde_json::to_vec_pretty(value)
            .map_err(io::Error::from)
            .at("write", path)?;
        text.push(b'\n');
        self.write(path, &text)
    }

    /// Writes a file at once: nobody sees half of it. What it has already is not written: that takes
    /// the disk's time, which somebody waits for.
    pub(crate) fn write(&self, path: &Path, text: &[u8]) -> Result<(), PathError> {
        if fs::read(path).is_ok_and(|found| found == text) {
            return Ok(());
        }
        replace(path, text)
    }
}

/// Puts a file with this text in the place of one, at once, when it is on the disk.
pub(crate) fn replace(path: &Path, text: &[u8]) -> Result<(), PathError> {
    let new = path.with_extension("new");
    let file = private_file().create(true).truncate(true).open(&new);
    file.and_then(|mut file| {
        file.write_all(text)?;
        file.sync_all()
    })
    .at("write", &new)?;
    fs::rename(&new, path).at("write", path)
}

/// For files that are only their owner's.
pub(crate) fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    options
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::config::{self, Options};

    pub(super) fn config(name: &str, kind: Kind) -> Config {
        let options = Options {
            kind: Some(kind),
            ..Options::default()
        };
        config::tests::config(name, &options)
    }

    #[test]
    fn a_builder_is_made_found_and_removed() {
        let place = tempfile::tempdir().unwrap();
        let builders = place.path().join("builders");
        assert_eq!(State::all(&builders).unwrap(), []);
        let wanted = config("linux", Kind::Container);
        let state = State::create(&builders, &wanted).unwrap();
        assert_eq!(state.config().unwrap(), wanted);
        assert_eq!(fs::metadata(state.path()).unwrap().mode() & 0o777, 0o700);
        assert_eq!(State::find(&builders, "linux").unwrap(), state);
        assert_eq!(
            State::find(&builders, &state.path().display().to_string()).unwrap(),
            state
        );
        let again = State::create(&builders, &wanted);
        assert!(matches!(again, Err(StateError::Exists { .. })));
        let vm = State::create(&builders, &config("vm", Kind::Vm)).unwrap();
        let disk = fs::metadata(vm.disk()).unwrap();
        assert_eq!((disk.len(), disk.blocks()), (100 << 30, 0));
        assert_eq!(State::all(&builders).unwrap().len(), 2);
        state.destroy().unwrap();
        assert!(matches!(
            State::find(&builders, "linux"),
            Err(StateError::Unknown { .. })
        ));
    }

    #[test]
    fn what_is_left_of_a_killed_removal_is_in_nobodys_way() {
        let place = tempfile::tempdir().unwrap();
        let wanted = config("linux", Kind::Container);
        let state = State::create(place.path(), &wanted).unwrap();
        fs::write(state.store().join("built"), "").unwrap();
        fs::remove_file(state.config_file()).unwrap();
        let removes = state.lock().unwrap().unwrap();
        let early = State::create(place.path(), &wanted);
        assert!(matches!(early, Err(StateError::Exists { .. })));
        drop(removes);
        let state = State::create(place.path(), &wanted).unwrap();
        assert_eq!(state.config().unwrap(), wanted);
        assert!(!state.store().join("built").exists());
    }

    #[test]
    fn another_format_is_named() {
        let place = tempfile::tempdir().unwrap();
        let state = State::create(place.path(), &config("linux", Kind::Container)).unwrap();
        fs::write(state.config_file(), r#"{ "format": 9, "new": true }"#).unwrap();
        assert!(matches!(
            state.config(),
            Err(StateError::Format { found: 9, .. })
        ));
    }
}
