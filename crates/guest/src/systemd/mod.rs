//! systemd in the guest, over D-Bus and through the agent.
//!
//! The conversation goes to the manager's private socket: it is there before a message bus is, and
//! it needs nothing installed. States come as signals, so that a change is seen when it happens.

mod bus;
mod error;
mod manager;
mod plain;
mod ready;
mod sender;
mod timers;
mod unit;

pub use error::SystemdError;
pub use manager::{Job, Manager};
pub use ready::SystemState;
pub use timers::Timer;
pub(crate) use timers::{job_message, state_message};
pub use unit::{UnitState, unit_name};
