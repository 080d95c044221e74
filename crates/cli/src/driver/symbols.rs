//! `generate-driver-symbols`: the names that a test script has without importing them, for linters.

use crate::Outcome;
use crate::error::CliError;
use crate::exit::Exit;

/// What the program is called.
pub const PROGRAM: &str = "generate-driver-symbols";
/// The file that it writes, where it is called.
const FILE: &str = "driver-symbols";

/// Where they are defined: lists with a name in each line.
const DEFINED: &str = include_str!("../../../../python/machinist/symbols.py");

/// Writes the file: the names of NixOS' driver, and behind them those that only we have.
pub fn write() -> Outcome {
    std::fs::write(FILE, names().join(","))
        .map_err(|error| CliError::machinery(error).context(format!("cannot write {FILE}")))?;
    Ok(Exit::Passed)
}

fn names() -> Vec<&'static str> {
    let lines = DEFINED.lines();
    let names = lines.filter_map(|line| line.strip_prefix("    \"")?.strip_suffix("\","));
    names.collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    use super::*;

    #[test]
    fn they_are_those_of_the_python_package() {
        let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../python");
        let printed = Command::new("python3")
            .args(["-m", "machinist.symbols"])
            .current_dir(package)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .output()
            .unwrap();
        let printed = String::from_utf8(printed.stdout).unwrap();
        assert_eq!(printed, names().join(","));
        assert!(printed.starts_with("start_all,") && printed.ends_with(",dump_machine_ssh"));
    }
}
