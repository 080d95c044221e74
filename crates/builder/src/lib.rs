//! Builders: machines that build for Nix, and how Nix comes to know them.

#![forbid(unsafe_code)]

pub mod machines_file;
