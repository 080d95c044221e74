//! A running lab and the socket that scripts talk to.
//!
//! ```text
//! Engine          what all sessions of a process share: settings, image cache, event sink
//!   Session       one running lab: directory, guard, event log, VLANs, machines, socket
//!     run_test    a session for one test: its machines, its steps or script, its outcome
//! Client          the same session, from another process
//! ```
//!
//! Nothing here prints, reads the environment, or ends the process. What happens is told as events.

#![forbid(unsafe_code)]

mod cancel;
mod chain;
mod checkpoints;
mod client;
mod content;
mod control;
pub mod dial;
mod directory;
mod driver;
mod elsewhere;
mod ended;
mod engine;
pub mod guard;
mod hardware;
mod hub;
mod images;
mod keep;
mod leftovers;
mod log;
mod machines;
mod network;
mod pause;
mod plan;
pub mod protocol;
mod python;
mod quote;
mod readiness;
mod script;
mod scripted;
mod server;
mod session;
mod sharing;
mod snapshots;
mod state;
mod steps;
pub mod stream;
mod sweep;
mod test;
#[cfg(test)]
mod tests;

pub use cancel::Cancel;
pub use client::{Client, ClientError, Shell, ShellReader, ShellWriter, connect};
pub use directory::{Card, Found, live_session, live_sessions};
pub use driver::{DriverJob, Scripted, run_driver};
pub use elsewhere::sessions_elsewhere;
pub use engine::{Accel, Engine, EngineError, EventSink, IMAGES, Settings, Snapshots};
pub use guard::GuardError;
pub use log::Follower;
pub use machinist_machine::UPLINK_MAC;
use machinist_sys::path_error;
pub use machinist_sys::path_error::PathError;
pub use plan::asked as devices_asked;
pub use session::{Brief, Session, SessionError};
pub use sharing::{TooMuch, memory_needed};
pub use sweep::{Swept, sweep};
pub use test::{OnFailure, TestJob, TestResult, run_test};
