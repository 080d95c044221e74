//! How soon a container does what it is for.

use std::io::Read;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::images::{self, IMAGE};
use super::nspawn::Raw;
use super::program::Program;
use super::{Bench, Limit, Question, Sample, Unit};

/// `machinist run` against `systemd-nspawn -b`.
pub struct ContainerStart {
    program: Program,
    root: PathBuf,
}

impl ContainerStart {
    pub const fn new(program: Program) -> Self {
        Self {
            program,
            root: PathBuf::new(),
        }
    }

    /// From the start of our program until the output of its command is here.
    fn first_output(&self, options: &[&str]) -> Result<f64> {
        let mut run = self.program.command(&["run", "--image", IMAGE]);
        run.args(options).args(["--", "echo", "here"]);
        let begun = Instant::now();
        let mut child = run.stdout(Stdio::piped()).spawn()?;
        let mut output = [0; 4];
        let mut stdout = child.stdout.take().context("no standard output")?;
        let read = stdout.read_exact(&mut output);
        let took = begun.elapsed();
        let status = child.wait()?;
        read.with_context(|| format!("no output: {status}"))?;
        ensure!(status.success() && output == *b"here", "{status}");
        Ok(took.as_secs_f64())
    }
}

impl Bench for ContainerStart {
    fn questions(&self) -> Vec<Question> {
        let question = |name, how| Question {
            name,
            peer: Some("`systemd-nspawn -b`, until its systemd is up"),
            unit: Unit::Seconds,
            limits: vec![Limit::AtMost(1.2)],
            how,
        };
        vec![
            question(
                "container: start to first output",
                "from the start of `machinist run -- echo here` until `here` is on its standard output, against raw \
                 systemd-nspawn with the same root and an overlay in memory until its systemd reports `READY=1`.",
            ),
            question(
                "container: start to first output with systemd up",
                "the same with `machinist run --system`, which waits for the container's systemd first.",
            ),
        ]
    }

    fn prepare(&mut self) -> Result<()> {
        self.root = images::root(&self.program, &[])?;
        // Both sides' files are in memory then.
        self.first_output(&["--system"])?;
        Raw::boot(&self.root, "bench")?.stop()
    }

    fn measure(&mut self) -> Result<Vec<Sample>> {
        let ours = self.first_output(&[])?;
        let up = self.first_output(&["--system"])?;
        let raw = Raw::boot(&self.root, "bench")?;
        let theirs = raw.took.as_secs_f64();
        raw.stop()?;
        Ok(vec![Sample::pair(ours, theirs), Sample::pair(up, theirs)])
    }
}
