//! Files and trees between a file system and the records of the agent protocol.
//!
//! Both ends use it: what one packs the other unpacks. The [`Unpacker`] trusts nothing that comes
//! to it: every name is checked, and every directory on the way is opened without following
//! links, so that a tree can never reach out of the place where it is put.

#![forbid(unsafe_code)]

mod error;
mod pack;
mod path;
mod unpack;

pub use error::TreeError;
pub use pack::Packer;
pub use unpack::{Options, Unpacker};

#[cfg(test)]
mod tests;
