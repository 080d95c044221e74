//! The Python packages, carried in this program: one file is all that a user needs.

use std::fs;
use std::path::Path;

use crate::path_error::{At, PathError};

macro_rules! files {
    ($($name:literal)*) => {
        &[$(($name, include_str!(concat!("../../../python/", $name)))),*]
    };
}

/// Path and text of every file: of our package, and of that under whose names scripts of NixOS
/// import it.
const FILES: &[(&str, &str)] = files![
    "machinist/__init__.py"
    "machinist/_arguments.py"
    "machinist/_checkpoint.py"
    "machinist/_commands.py"
    "machinist/_configuration.py"
    "machinist/_connection.py"
    "machinist/_console.py"
    "machinist/_debug.py"
    "machinist/_display.py"
    "machinist/_driver.py"
    "machinist/_efi.py"
    "machinist/_errors.py"
    "machinist/_failure.py"
    "machinist/_files.py"
    "machinist/_firmware.py"
    "machinist/_handle.py"
    "machinist/_interact.py"
    "machinist/_interactive.py"
    "machinist/_keys.py"
    "machinist/_life.py"
    "machinist/_logger.py"
    "machinist/_machine.py"
    "machinist/_network.py"
    "machinist/_ocr.py"
    "machinist/_polling.py"
    "machinist/_process.py"
    "machinist/_prompt.py"
    "machinist/_qmp.py"
    "machinist/_retry.py"
    "machinist/_script.py"
    "machinist/_seeing.py"
    "machinist/_terminal.py"
    "machinist/_units.py"
    "machinist/_variables.py"
    "machinist/_viewer.py"
    "machinist/_vlan.py"
    "machinist/_waits.py"
    "machinist/py.typed"
    "machinist/pytest_plugin.py"
    "machinist/run.py"
    "machinist/symbols.py"
    "test_driver/__init__.py"
    "test_driver/config.py"
    "test_driver/debug.py"
    "test_driver/driver.py"
    "test_driver/duration.py"
    "test_driver/efi.py"
    "test_driver/errors.py"
    "test_driver/logger.py"
    "test_driver/machine/__init__.py"
    "test_driver/machine/qmp.py"
    "test_driver/polling_condition.py"
    "test_driver/py.typed"
    "test_driver/qmp.py"
    "test_driver/vlan.py"
];

/// Writes the packages into `directory`, which is made, so that `directory` can go into
/// `PYTHONPATH`.
pub(crate) fn write(directory: &Path) -> Result<(), PathError> {
    for (name, text) in FILES {
        let path = directory.join(name);
        let package = path.parent().unwrap_or(directory);
        fs::create_dir_all(package).at("make the directory", package)?;
        fs::write(&path, text).at("write", &path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every file under `directory`, by its path under `root`.
    fn walk(root: &Path, directory: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.ends_with("__pycache__") {
                continue;
            }
            if path.is_dir() {
                walk(root, &path, found);
            } else {
                let name = path.strip_prefix(root).unwrap();
                found.push(name.to_str().unwrap().to_owned());
            }
        }
    }

    #[test]
    fn no_file_is_forgotten() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../python");
        let mut names = Vec::new();
        for package in ["machinist", "test_driver"] {
            walk(&root, &root.join(package), &mut names);
        }
        names.sort();
        let carried: Vec<&str> = FILES.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, carried);
    }
}
