//! The program that is measured: a release build, called as a user calls it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::command::{self, cargo, command};

/// The built `machinist`.
#[derive(Debug, Clone)]
pub struct Program {
    path: PathBuf,
}

impl Program {
    /// Builds it as a user would.
    pub fn build() -> Result<Self> {
        println!("bench: building machinist for release");
        command::run(&mut cargo([
            "build",
            "--release",
            "--package",
            "machinist-cli",
        ]))?;
        let debug = command::machinist()?;
        let profiles = debug.parent().and_then(|dir| dir.parent());
        Ok(Self {
            path: profiles
                .context("no target directory")?
                .join("release/machinist"),
        })
    }

    /// One that is there.
    pub fn built(path: PathBuf) -> Result<Self> {
        let path = path
            .canonicalize()
            .with_context(|| format!("no program {}", path.display()))?;
        Ok(Self { path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// It with these arguments.
    pub fn command(&self, args: &[&str]) -> Command {
        command(&self.path.to_string_lossy(), args)
    }

    /// Runs a lab's one test, and gives what its script reported.
    pub fn lab(&self, lab: &Lab<'_>) -> Result<Value> {
        let place = lab.write()?;
        let mut test = self.test(&place);
        command::stdout(&mut test)?;
        reported(&place)
    }

    /// `machinist test` there. VMs are emulated, also where there is KVM.
    pub fn test(&self, place: &tempfile::TempDir) -> Command {
        let mut test = self.command(&["test", "--accel", "tcg"]);
        test.current_dir(place.path());
        test
    }
}

/// A lab file, and a script that it runs.
#[derive(Debug, Clone, Copy)]
pub struct Lab<'a> {
    /// Everything but the test.
    pub machines: &'a str,
    /// Python. It may call `report(anything)`, once.
    pub script: &'a str,
}

/// How a script reports.
const REPORT: &str = r#"
def report(result):
    import json, os
    with open(os.path.join(os.path.dirname(__file__), "result.json"), "w") as file:
        json.dump(result, file)

"#;

impl Lab<'_> {
    /// Writes both into a directory of their own.
    pub fn write(&self) -> Result<tempfile::TempDir> {
        let place = tempfile::tempdir().context("cannot make a directory")?;
        let write = |name: &str, text: String| {
            std::fs::write(place.path().join(name), text)
                .with_context(|| format!("cannot write {name}"))
        };
        let test = "[[test]]\nname = \"bench\"\nscript = \"bench.py\"\n";
        write("lab.toml", format!("{}\n{test}", self.machines))?;
        write("bench.py", format!("{REPORT}{}", self.script))?;
        Ok(place)
    }
}

/// What a script of a lab there has reported.
pub fn reported(place: &tempfile::TempDir) -> Result<Value> {
    let path = place.path().join("result.json");
    let text = std::fs::read_to_string(&path).context("the script reported nothing")?;
    serde_json::from_str(&text).context("the script reported no JSON")
}

/// A number out of what a script reported.
pub fn number(reported: &Value, key: &str) -> Result<f64> {
    let value = reported[key].as_f64();
    value.with_context(|| format!("the script reported no number as {key}"))
}
