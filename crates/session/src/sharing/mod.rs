//! What the machines of one process share of the host: its memory and its processors.
//!
//! ```text
//! cost      what a lab's machines cost: pure
//! ledger    who has how much of the memory, who waits for some: pure
//! memory    the ledger, with those who wait
//! usage     what one session has of it
//! places    as many machines start at once as there are processors
//! ```
//!
//! Memory is granted to a session as a whole, before its first machine starts, and in the order in
//! which sessions asked. So nobody holds some of it and waits for more, and nobody waits for ever.

mod cost;
mod ledger;
mod memory;
mod places;
mod usage;

pub(crate) use cost::Costs;
pub use cost::memory_needed;
pub use ledger::TooMuch;
pub(crate) use memory::Memory;
pub(crate) use places::{Gate, Places, Until};
pub(crate) use usage::Usage;
