//! Tests on real machines, through the program as a user runs it.
//!
//! ```text
//! Case          one test; `run_cases` is the program of many
//! Bench         a place to work in: a directory for the lab, sessions and temporary files of its own
//!   Command     the program, about to run there
//!     Ran       how it ended, and what it said
//! OrdinaryUser  somebody who is not root, to run the program as
//! Need          what a test needs of the host; without it the test is skipped, visibly
//! nix::NixHost  a container with a real Nix, and its sandbox
//! Before        what the host looked like; afterwards nothing may be left
//! ```

#![forbid(unsafe_code)]

mod bench;
mod case;
pub mod images;
mod leftovers;
mod modules;
mod need;
pub mod nix;
mod ordinary_user;
mod processes;
mod program;
mod pytest;
mod ran;
mod reaper;
pub mod start_script;

pub use bench::{Bench, users_cache};
pub use case::{Case, causes, run_cases};
pub use leftovers::Before;
pub use modules::Modules;
pub use need::Need;
pub use ordinary_user::OrdinaryUser;
pub use processes::{Process, processes, wait_until};
pub use program::{Command, OTHER_PROGRAM, Running, machinist};
pub use pytest::python_with_pytest;
pub use ran::Ran;
pub use reaper::above_us;
