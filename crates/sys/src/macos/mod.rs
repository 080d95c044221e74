//! What a Mac does in its own way.

pub mod process;
