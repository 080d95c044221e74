//! The life cycle of one machine, and what runs it: QEMU or systemd-nspawn.
//!
//! A [`MachineSpec`] says what a machine is to be, an [`Environment`] where it runs and whom it
//! tells; a [`Machine`] is the handle of one that may run. One task owns the state of each machine
//! (`task.rs`); what it decides is a state machine without any doing ([`lifecycle`]); what runs is
//! one of the backends (`qemu`, `nspawn`, or somebody's start script) behind one small interface
//! (`backend.rs`).
//!
//! See `docs/machines.md` for the life cycle, and for what hangs on what.

#![forbid(unsafe_code)]

mod agent;
mod backend;
pub mod checkpoint;
mod console;
pub mod devices;
mod environment;
mod error;
pub mod ground;
pub mod helper;
pub mod leftovers;
pub mod lifecycle;
mod machine;
mod mounts;
mod nspawn;
mod origin;
mod path_error;
mod picture;
pub mod probe;
mod publish;
mod qemu;
mod reach;
mod renewal;
pub mod rootless;
mod script;
mod search;
mod seeing;
mod snapshot;
mod spec;
mod supervised;
mod task;
mod tunables;
mod unique;
mod verdict;
mod words;
mod x11;

pub use console::{Console, ConsoleLines};
pub use environment::{
    AgentBinary, Attach, Environment, NoNetwork, Report, Reporter, Reserve, console_log,
};
pub use error::MachineError;
pub use lifecycle::{Refused, State};
pub use machine::{Machine, StartOptions, Status};
pub use path_error::PathError;
pub use qemu::PROGRAM as QEMU;
pub use qemu::qmp::{Qmp, QmpError, QmpEvents};
pub use script::{ScriptKind, ScriptSpec, Variables};
pub use snapshot::{
    Difference, Freed, Golden, Manifest, Part, Parts, ReadyPoint, Saved, SnapshotError,
    SnapshotInfo, SnapshotKey, SnapshotStore, Warm,
};
pub use spec::{
    Boot, Disk, DiskAccess, HostLine, Kind, MachineSpec, NicSpec, Publish, UPLINK_MAC, Volume,
};
pub use verdict::{Accel, Accelerator, Verdicts};
