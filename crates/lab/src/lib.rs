//! The lab file: types, parsing, validation, schema.
//!
//! A lab file is TOML, or JSON of the same shape. Reading one goes in three steps, and none of
//! them touches the file system:
//!
//! 1. `source`: the text becomes one tree of values with their places.
//! 2. `shape`: the tree is held against the one description of all keys.
//! 3. `read`: the tree becomes a [`Lab`], and what does not go together is told.
//!
//! All three collect what is wrong, so that [`LabErrors`] has everything at once.

#![forbid(unsafe_code)]

mod problem;
mod read;
mod shape;
mod source;
mod syntax;
#[cfg(test)]
mod tests;
mod types;
mod units;

pub use problem::{LabErrors, Problem};
pub use syntax::SyntaxError;
pub use types::{
    Action, AddedFile, Body, CdiName, Checkpoint, ContainerLimits, DEFAULT_MEMORY, DEFAULT_TIMEOUT,
    Device, Disk, DiskContents, Expect, FileContents, Gpu, Image, Kind, Lab, MAX_MACHINES, Machine,
    MachineName, Program, Publish, Ready, RunsAs, Source, Step, Test, Vlan, VlanId, Volume,
    WaitFor,
};
pub use units::{Bytes, format_duration, parse_duration};

use source::Value;

impl Lab {
    /// Reads a lab file in TOML. `file_name` is for messages only.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse_toml(text: &str, file_name: &str) -> Result<Self, LabErrors> {
        finish(text, file_name, source::parse_toml(text))
    }

    /// Reads a lab file in JSON. `file_name` is for messages only.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse_json(text: &str, file_name: &str) -> Result<Self, LabErrors> {
        finish(text, file_name, source::parse_json(text))
    }
}

fn finish(
    text: &str,
    file_name: &str,
    (root, syntax): (Value, Vec<Problem>),
) -> Result<Lab, LabErrors> {
    // After a mistake of syntax the tree has holes, and complaints about them would mislead.
    if !syntax.is_empty() {
        return Err(LabErrors::new(file_name, text, syntax));
    }
    let (lab, problems) = read::read(text, &root);
    if problems.is_empty() {
        Ok(lab)
    } else {
        Err(LabErrors::new(file_name, text, problems))
    }
}

/// The JSON schema of the lab file, draft 2020-12.
#[must_use]
pub fn json_schema() -> serde_json::Value {
    shape::schema()
}
