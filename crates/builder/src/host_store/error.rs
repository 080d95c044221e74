//! What can go wrong with the host's store.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::path_error::PathError;

/// Paths of the host cannot be shown to the machine. Then they are copied, as they would be without.
#[derive(Debug, Error)]
pub(crate) enum HostStoreError {
    /// Nobody says which paths are valid.
    #[error("the Nix daemon of the host does not answer at {}", socket.display())]
    Daemon {
        /// Where it would.
        socket: PathBuf,
        /// What it said instead.
        #[source]
        source: io::Error,
    },
    /// The system does not let us.
    #[error("paths of the host's store cannot be mounted into the machine")]
    Mount(#[source] io::Error),
    /// Nix in the machine does not take them.
    #[error("the machine's Nix does not take paths of the host's store")]
    Register(#[source] io::Error),
    /// Nix in the machine does not let them go.
    #[error("the machine's Nix does not forget paths that the host does not have any more")]
    Forget(#[source] io::Error),
    /// The builder's directory.
    #[error(transparent)]
    Path(#[from] PathError),
}
