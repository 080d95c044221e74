//! The examples, each run as a user runs it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use machinist_tests::python_with_pytest;

use super::tally::Tally;
use crate::command::{command, machinist};

/// Runs the `machinist test` that is built in each folder of `examples/` that has a lab, pytest in
/// those with modules of it, and counts.
pub fn run(tally: &mut Tally) -> Result<()> {
    let program = machinist()?;
    let mut folders = Vec::new();
    for entry in std::fs::read_dir("examples").context("cannot read examples")? {
        let path = entry.context("cannot read examples")?.path();
        if path.join("lab.toml").is_file() {
            folders.push(path);
        }
    }
    folders.sort();
    for folder in folders {
        let name = folder.display().to_string();
        let mut test = if !has_modules(&folder)? {
            command(&program.to_string_lossy(), ["test"])
        } else if let Some(python) = python_with_pytest() {
            pytest(python, &program)?
        } else {
            tally.skip(format!("{name}: no Python has pytest"));
            continue;
        };
        tally.command(name, test.current_dir(&folder))?;
    }
    Ok(())
}

/// Whether a folder has modules of pytest.
fn has_modules(folder: &Path) -> Result<bool> {
    let entries = std::fs::read_dir(folder).context("cannot read examples")?;
    let names = entries.flatten().map(|entry| entry.file_name());
    let is_module = |name: &str| name.starts_with("test_") && name.ends_with(".py");
    Ok(names
        .into_iter()
        .any(|name| name.to_str().is_some_and(is_module)))
}

/// pytest with the plugin of this checkout, and the program of this build.
fn pytest(python: &str, program: &Path) -> Result<Command> {
    let packages = Path::new("python").canonicalize();
    let mut pytest = command(python, ["-m", "pytest", "-p", "no:cacheprovider"]);
    pytest
        .args(["-p", "machinist.pytest_plugin", "--machinist"])
        .arg(program)
        .env("PYTHONPATH", packages.context("there is no python/")?);
    Ok(pytest)
}
