//! What a command costs in a container that runs.

use std::path::PathBuf;

use anyhow::Result;

use super::images::{self, IMAGE};
use super::nspawn::Raw;
use super::program::{Lab, Program, number};
use super::{Bench, Limit, Question, Sample, Unit};
use crate::command::{command, stdout};

/// `machine.execute("true")` against nsenter.
pub struct CommandInContainer {
    program: Program,
    root: PathBuf,
}

impl CommandInContainer {
    pub const fn new(program: Program) -> Self {
        Self {
            program,
            root: PathBuf::new(),
        }
    }
}

impl Bench for CommandInContainer {
    fn questions(&self) -> Vec<Question> {
        vec![Question {
            name: "container: round trip of a command",
            peer: Some("`nsenter -a bash -c 'source /etc/profile; true'`"),
            unit: Unit::Seconds,
            limits: vec![Limit::AtMost(0.2), Limit::Within(0.002)],
            how: "the median of 500 times `machine.execute(\"true\")` in a Python script, against the median of 100 \
                  times nsenter into a raw systemd-nspawn of the same root by `subprocess.run` in a Python script, as \
                  today's NixOS test driver does it.",
        }]
    }

    fn prepare(&mut self) -> Result<()> {
        self.root = images::root(&self.program, &[])?;
        Ok(())
    }

    fn measure(&mut self) -> Result<Vec<Sample>> {
        let reported = self.program.lab(&Lab {
            machines: &format!("[machine.m]\nimage = \"{IMAGE}\"\nkind = \"container\"\n"),
            script: include_str!("scripts/round_trip.py"),
        })?;
        let raw = Raw::boot(&self.root, "bench")?;
        let script = include_str!("scripts/round_trip_nsenter.py");
        let theirs = stdout(&mut command("python3", ["-c", script, &raw.init()]))?;
        raw.stop()?;
        let ours = number(&reported, "seconds")?;
        Ok(vec![Sample::pair(ours, theirs.trim().parse()?)])
    }
}
