//! The Python package: its own tests, run against a server here.

use std::path::Path;
use std::process::Stdio;

use super::Here;

#[tokio::test(flavor = "multi_thread")]
async fn the_packages_own_tests_pass() {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../python");
    let here = Here::new().await;
    let ran = tokio::process::Command::new("python3")
        .args([
            "-m",
            "unittest",
            "discover",
            "-s",
            "tests",
            "-p",
            "test_session*.py",
        ])
        .current_dir(&python)
        .env("MACHINIST_TEST_SESSION", &here.socket)
        .env("PYTHONPATH", &python)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{said}");
    assert!(!said.contains("skipped"), "{said}");
}
