//! Readers of events: the terminal, JUnit, and what users of NixOS tests know.
//!
//! Both are fed one [`Event`](machinist_events::Event) after another and know nothing else. Neither
//! looks at a clock, the environment, or a terminal: the writer, its width and whether it has
//! colours are the caller's to know.

#![forbid(unsafe_code)]

mod bars;
mod failure;
mod junit;
mod machine;
mod nixos;
mod paint;
mod state;
mod terminal;
#[cfg(test)]
mod tests;

pub use failure::{Hint, MAX_LINES};
pub use junit::{Junit, JunitError};
pub use nixos::DriverReport;
pub use state::Counts;
pub use terminal::{Options, Progress, Summary, Terminal};
