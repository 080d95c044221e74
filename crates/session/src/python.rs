//! The Python package, carried in this program: one file is all that a user needs.

use std::fs;
use std::path::Path;

use crate::path_error::{At, PathError};

macro_rules! files {
    ($($name:literal)*) => {
        &[$(($name, include_str!(concat!("../../../python/machinist/", $name)))),*]
    };
}

/// Name and text of every file of the package.
const FILES: &[(&str, &str)] = files![
    "__init__.py"
    "_arguments.py"
    "_connection.py"
    "_driver.py"
    "_errors.py"
    "_machine.py"
    "_process.py"
    "_retry.py"
    "py.typed"
    "run.py"
    "symbols.py"
];

/// Writes the package into `directory`, which is made, so that `directory` can go into
/// `PYTHONPATH`.
pub(crate) fn write(directory: &Path) -> Result<(), PathError> {
    let package = directory.join("machinist");
    fs::create_dir_all(&package).at("make the directory", &package)?;
    for (name, text) in FILES {
        let path = package.join(name);
        fs::write(&path, text).at("write", &path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_file_is_forgotten() {
        let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../python/machinist");
        let mut names: Vec<String> = fs::read_dir(package)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "__pycache__")
            .collect();
        names.sort();
        let carried: Vec<&str> = FILES.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, carried);
    }
}
