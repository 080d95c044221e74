//! `generate-driver-symbols`: the names that a test script has without importing them, for linters.

use crate::Outcome;
use crate::error::CliError;
use crate::exit::Exit;

/// What the program is called.
pub const PROGRAM: &str = "generate-driver-symbols";
/// The file that it writes, where it is called.
const FILE: &str = "driver-symbols";

/// The names, as the Python package has them: a test compares.
const SYMBOLS: &[&str] = &[
    "start_all",
    "test_script",
    "machines",
    "machines_qemu",
    "machines_nspawn",
    "vlans",
    "driver",
    "log",
    "os",
    "create_machine",
    "subtest",
    "run_tests",
    "join_all",
    "retry",
    "serial_stdout_off",
    "serial_stdout_on",
    "polling_condition",
    "Machine",
    "BaseMachine",
    "QemuMachine",
    "NspawnMachine",
    "MachineError",
    "RequestedAssertionFailed",
    "t",
    "debug",
    "dump_machine_ssh",
];

/// Writes the file.
pub fn write() -> Outcome {
    std::fs::write(FILE, SYMBOLS.join(","))
        .map_err(|error| CliError::machinery(error).context(format!("cannot write {FILE}")))?;
    Ok(Exit::Passed)
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
        let names = String::from_utf8(printed.stdout).unwrap();
        assert_eq!(names.trim(), SYMBOLS.join(","), "{}", printed.status);
    }
}
