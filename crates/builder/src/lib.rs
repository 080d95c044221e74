//! Builders: machines that build for Nix, and how Nix comes to know them.
//!
//! ```text
//! Options ──check──▶ Config ──create──▶ State        a builder's directory
//!   Service          listens there, runs the machine as a session, joins connections to its Nix
//!   Client           `machinist connect`, and what the verbs ask a service
//! machines_file      the lines by which Nix knows builders
//! ```
//!
//! See `docs/builders.md`.

#![forbid(unsafe_code)]
#![cfg_attr(
    not(target_os = "linux"),
    expect(
        dead_code,
        reason = "the service, which runs machines, is Linux's alone"
    )
)]

mod change;
mod config;
pub mod connect;
mod definition;
pub mod external;
#[cfg(target_os = "linux")]
mod host_store;
mod idle;
#[cfg(target_os = "linux")]
mod lab_file;
pub mod machines_file;
pub mod nix_conf;
mod protocol;
pub mod registration;
#[cfg(target_os = "linux")]
mod service;
mod ssh;
mod state;
mod system;
mod unit;

pub use change::ChangeError;
pub use config::{
    Accel, Config, FORMAT, Host, Kind, OptionError, Options, Places, Snapshots, check_name,
};
pub use connect::{Client, ConnectError, Launch};
pub use idle::{IdleTimeout, NoIdleTimeout};
use machinist_sys::path_error;
pub use machinist_sys::path_error::PathError;
pub use protocol::{Asked, HostStoreStatus, MachineState, Said, Status};
#[cfg(target_os = "linux")]
pub use service::{Listener, Service, ServiceError, is_listening};
pub use ssh::{Keys, KeysError};
pub use state::{Proven, State, StateError};
#[cfg(target_os = "linux")]
pub use system::LayError;
pub use system::{Kernel, NixError, System, SystemError, SystemOptions};
pub use unit::{UnitFile, launchd, systemd};

/// The features that a builder's Nix has wherever it runs. What a machine of one has been seen to
/// have is in [`State::proven`].
pub const FEATURES: &[&str] = &definition::FEATURES;
