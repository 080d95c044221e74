//! Many small tests on one VM.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::super::images::IMAGE;
use super::super::program::Program;
use super::super::{Bench, Limit, Question, Sample, Unit};
use crate::command::{self, command};

const TESTS: f64 = 30.0;
/// The system's own: a version manager's need not have pytest.
const PYTHON: &str = "/usr/bin/python3";

/// Thirty tests that each find the VM as their module made it, against thirty boots.
pub struct Pytest {
    program: Program,
    place: Option<TempDir>,
    /// One boot and its test.
    boot: Option<f64>,
}

impl Pytest {
    pub const fn new(program: Program) -> Self {
        Self {
            program,
            place: None,
            boot: None,
        }
    }

    fn python(&self, args: &[&str]) -> Result<Command> {
        let place = self.place.as_ref().context("nothing is prepared")?;
        let mut python = command(PYTHON, args);
        python
            .arg(self.program.path())
            .current_dir(place.path())
            .env("PYTHONPATH", command::workspace()?.join("python"))
            .env("PYTHONDONTWRITEBYTECODE", "1");
        Ok(python)
    }

    fn module(&self) -> Result<f64> {
        let pytest = ["-m", "pytest", "-q", "-p", "no:cacheprovider"];
        let plugin = [
            "-p",
            "machinist.pytest_plugin",
            "test_thirty.py",
            "--machinist",
        ];
        let mut pytest = self.python(&[&pytest[..], &plugin].concat())?;
        let begun = Instant::now();
        let said = command::stdout(&mut pytest)?;
        let took = begun.elapsed();
        ensure!(said.contains("30 passed"), "{said}");
        Ok(took.as_secs_f64())
    }

    fn boot(&mut self) -> Result<f64> {
        if let Some(measured) = self.boot {
            return Ok(measured);
        }
        let script = include_str!("scripts/boot_for_one.py");
        let mut boot = self.python(&["-c", script])?;
        let said = command::stdout(boot.env("MACHINIST_COLD", "1"))?;
        let measured = said.trim().parse().context("no number of seconds")?;
        self.boot = Some(measured);
        Ok(measured)
    }
}

impl Bench for Pytest {
    fn questions(&self) -> Vec<Question> {
        vec![Question {
            name: "pytest: 30 tests on a VM under emulation, each from a checkpoint",
            peer: Some("30 times one boot"),
            unit: Unit::Seconds,
            limits: vec![Limit::AtMost(0.05)],
            how: "the whole call of pytest on a module of 30 tests with machinist's plugin, which restores the machine \
                  (512 MB, with a snapshot in the cache) for each of them; against thirty times the seconds from \
                  `machinist up` with `MACHINIST_COLD=1` until the commands of one such test are done in a VM whose \
                  systemd is up, measured once. Stopping the machine is counted for the module alone.",
        }]
    }

    fn prepare(&mut self) -> Result<()> {
        let place = tempfile::tempdir().context("cannot make a directory")?;
        let write = |name: &str, text: &str| {
            std::fs::write(place.path().join(name), text)
                .with_context(|| format!("cannot write {name}"))
        };
        let machine =
            format!("[machine.m]\nimage = \"{IMAGE}\"\nkind = \"vm\"\nmemory = \"512M\"\n");
        write("lab.toml", &machine)?;
        write("test_thirty.py", include_str!("scripts/test_thirty.py"))?;
        self.place = Some(place);
        // The first saves, where there is no snapshot.
        self.module().map(drop)
    }

    fn measure(&mut self) -> Result<Vec<Sample>> {
        let ours = self.module()?;
        Ok(vec![Sample::pair(ours, TESTS * self.boot()?)])
    }
}
