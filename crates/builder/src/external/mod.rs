//! Builds that Nix gives to a program of its host's choice (`external-builders`, Nix 2.32 and newer).
//!
//! ```text
//! Nix's daemon (host)                        root's service (host)              the builder's machine
//!   machinist external-builder run  ──▶ socket ──▶ Broker ── nix copy ────────▶ store
//!     a build's user; log, exit code,      one Job for      ── a session's ───▶ Nix, in a store of the
//!     outputs restored here                each connection     command             build's own
//! ```
//!
//! The program runs as a build's user, who may not even ask Nix for a path, and it can be killed at any
//! moment. So it only carries; what it says is believed by nobody: the machine builds in namespaces of
//! the build's own, in which the closure is shown beside an empty database, and which are thrown away.
//! What a build does there, no other build sees.

mod asked;
#[cfg(target_os = "linux")]
mod broker;
mod client;
mod fixed;
mod frame;
#[cfg(target_os = "linux")]
mod job;
mod log_lines;
#[cfg(target_os = "linux")]
mod machine;
mod recipe;
mod unit;

pub use asked::{Asked, Build, Refusal};
#[cfg(target_os = "linux")]
pub use broker::{Access, Broker, BrokerError, socket};
pub use client::{Carried, RunError, run};
pub use fixed::Fixed;
pub use unit::{launchd, settings, systemd};

/// The first line of what Nix reads: from here on it is the build's log.
pub const BEGIN: &str = "\u{2}\n";
