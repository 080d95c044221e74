//! A Python that has pytest.

use std::process::Command;

/// A Python of this host that has pytest. The first one of the path need not be the one that the
/// host's packages are for.
#[must_use]
pub fn python_with_pytest() -> Option<&'static str> {
    let has = |python: &&str| {
        let import = Command::new(python).args(["-c", "import pytest"]).output();
        import.is_ok_and(|output| output.status.success())
    };
    ["python3", "/usr/bin/python3"].into_iter().find(has)
}
