//! Finding and reading the lab file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use machinist_lab::Lab;

use crate::environment::Environment;
use crate::error::{CliError, Kind};

const NAME: &str = "lab.toml";

/// Which lab file.
#[derive(Debug, Args)]
pub struct LabArgs {
    /// The lab file, TOML or (by its ending) JSON; else lab.toml here or in a directory above
    #[arg(short, long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub file: Option<PathBuf>,
}

/// A lab, and where it was read from.
#[derive(Debug, Clone)]
pub struct LabFile {
    /// What it says.
    pub lab: Arc<Lab>,
    /// The file, as the user knows it.
    pub file: PathBuf,
    /// The directory that its relative paths are relative to.
    pub base: PathBuf,
}

impl LabArgs {
    /// Finds, reads and checks it.
    pub fn load(&self, environment: &Environment) -> Result<LabFile, CliError> {
        let file = match &self.file {
            Some(file) => file.clone(),
            None => find(&environment.here)?,
        };
        let path = environment.here.join(&file);
        let text = std::fs::read_to_string(&path).map_err(|error| {
            let cannot = format!("cannot read the lab file {}", file.display());
            CliError::new(Kind::Lab, error).context(cannot)
        })?;
        let name = file.display().to_string();
        let lab = if path.extension().is_some_and(|ending| ending == "json") {
            Lab::parse_json(&text, &name)?
        } else {
            Lab::parse_toml(&text, &name)?
        };
        let base = path.parent().unwrap_or(Path::new("/")).to_owned();
        Ok(LabFile {
            lab: Arc::new(lab),
            file,
            base,
        })
    }
}

/// The nearest `lab.toml`, here or above, as a path that is short to read.
fn find(here: &Path) -> Result<PathBuf, CliError> {
    let found = here
        .ancestors()
        .map(|dir| dir.join(NAME))
        .find(|path| path.is_file());
    match found {
        Some(path) if path.parent() == Some(here) => Ok(NAME.into()),
        Some(path) => Ok(path),
        None => Err(CliError::new(
            Kind::Lab,
            format!("there is no {NAME} in {} or above", here.display()),
        )
        .hint("name one with --file, or see examples/quickstart/lab.toml for how to write one")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lab_file_above_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join("a/b");
        std::fs::create_dir_all(&below).unwrap();
        std::fs::write(dir.path().join(NAME), "").unwrap();
        assert_eq!(find(&below).unwrap(), dir.path().join(NAME));
        assert_eq!(find(dir.path()).unwrap(), Path::new(NAME));
    }
}
