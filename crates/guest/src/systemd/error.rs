//! What can go wrong with systemd.

use thiserror::Error;

use crate::error::GuestError;

/// Something did not work with the guest's systemd, or a unit is not as it should be.
#[derive(Debug, Error)]
pub enum SystemdError {
    /// The guest could not be asked.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// systemd refused, or its socket broke.
    #[error("systemd in the guest cannot be asked")]
    Bus(#[from] zbus::Error),
    /// There is no such user to have a manager.
    #[error("no user named {user} in the guest")]
    NoUser {
        /// The name.
        user: String,
    },
    /// The unit failed.
    #[error("unit \"{unit}\" reached state \"failed\"")]
    Failed {
        /// Its name.
        unit: String,
    },
    /// Nothing is about to start the unit.
    #[error("unit \"{unit}\" is inactive and there are no pending jobs")]
    Inactive {
        /// Its name.
        unit: String,
    },
    /// It did not happen in time.
    #[error("timed out while waiting for {what} ({state})")]
    TimedOut {
        /// What was waited for.
        what: String,
        /// How it was at the end.
        state: String,
    },
}

impl SystemdError {
    /// Whether the conversation broke off, so that another one may do better: a manager that
    /// executes itself anew drops its connections.
    pub(super) fn broke_off(&self) -> bool {
        matches!(self, Self::Bus(zbus::Error::InputOutput(_)))
    }
}
