//! Other options for a builder that is there, as declarations of whole systems need them.

use std::fs::OpenOptions;

use machinist_lab::Bytes;
use thiserror::Error;

use crate::config::{Config, Kind};
use crate::path_error::{At, PathError};
use crate::state::{State, StateError};

/// A builder cannot be changed so.
#[derive(Debug, Error)]
pub enum ChangeError {
    /// Its directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// The store of the one is none for the other.
    #[error("the builder {name:?} is a {before}: its store is of no use to a {after}")]
    Kind {
        /// The builder.
        name: String,
        /// What it is.
        before: Kind,
        /// What was asked for.
        after: Kind,
    },
    /// Its store may need all of it.
    #[error("the disk of the builder {name:?} has {before}: it can grow, but not become {after}")]
    Smaller {
        /// The builder.
        name: String,
        /// What it has.
        before: Bytes,
        /// What was asked for.
        after: Bytes,
    },
    /// The file system refuses.
    #[error(transparent)]
    Path(#[from] PathError),
}

impl State {
    /// Gives the builder these options, which hold from the next start of its service. Its store
    /// stays; a VM's disk can grow.
    ///
    /// # Errors
    /// They need another store, or the file system refuses.
    pub fn change(&self, config: &Config) -> Result<(), ChangeError> {
        let before = self.config()?;
        if before.kind != config.kind {
            return Err(ChangeError::Kind {
                name: self.name(),
                before: before.kind,
                after: config.kind,
            });
        }
        if config.kind == Kind::Vm {
            if config.disk < before.disk {
                return Err(ChangeError::Smaller {
                    name: self.name(),
                    before: Bytes(before.disk),
                    after: Bytes(config.disk),
                });
            }
            let disk = self.disk();
            let file = OpenOptions::new().write(true).open(&disk);
            let file = file.at("open", &disk)?;
            file.set_len(config.disk).at("grow", &disk)?;
        }
        self.set_config(config)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Options};

    fn config(kind: Kind, disk: u64) -> Config {
        let options = Options {
            kind: Some(kind),
            disk: Some(disk),
            ..Options::default()
        };
        config::tests::config("linux", &options)
    }

    #[test]
    fn a_disk_grows_and_its_bytes_stay() {
        let builders = tempfile::tempdir().unwrap();
        let small = config(Kind::Vm, 10 << 30);
        let state = State::create(builders.path(), &small).unwrap();
        let large = config(Kind::Vm, 20 << 30);
        state.change(&large).unwrap();
        assert_eq!(state.config().unwrap(), large);
        assert_eq!(std::fs::metadata(state.disk()).unwrap().len(), 20 << 30);
        let smaller = state.change(&small).unwrap_err();
        assert!(smaller.to_string().contains("has 20G"), "{smaller}");
        let other = state.change(&config(Kind::Container, 20 << 30));
        assert!(matches!(other, Err(ChangeError::Kind { .. })));
        assert_eq!(state.config().unwrap(), large);
    }
}
