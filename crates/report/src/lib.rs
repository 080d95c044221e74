//! Readers of events: the terminal, and JUnit.
//!
//! Both are fed one [`Event`](machinist_events::Event) after another and know nothing else. Neither
//! looks at a clock, the environment, or a terminal: the writer, its width and whether it has
//! colours are the caller's to know.

#![forbid(unsafe_code)]

mod bars;
mod failure;
mod junit;
mod paint;
mod state;
mod terminal;
#[cfg(test)]
mod tests;

pub use failure::{Hint, MAX_LINES};
pub use junit::{Junit, JunitError};
pub use state::Counts;
pub use terminal::{Options, Progress, Summary, Terminal};
