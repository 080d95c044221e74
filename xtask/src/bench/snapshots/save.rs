//! What the first start of a VM pays for all later ones.

use std::os::unix::fs::symlink;

use anyhow::{Context, Result};

use super::super::images;
use super::super::program::Program;
use super::super::{Bench, Limit, Question, Sample, Unit};
use super::{first_output, run};

/// What a VM boots, in a cache.
const BOOTED: [&str; 4] = ["images", "disks", "initrds", "kernels"];

/// The first start, which saves, against one that does not.
pub struct Save {
    program: Program,
}

impl Save {
    pub const fn new(program: Program) -> Self {
        Self { program }
    }

    /// A start without any snapshot to begin with.
    fn first(&self) -> Result<f64> {
        let cache = tempfile::tempdir().context("cannot make a directory")?;
        let images = images::directory(&self.program)?;
        let all = images.parent().context("no directory of the cache")?;
        // What both sides boot is there for both.
        for kind in BOOTED {
            symlink(all.join(kind), cache.path().join(kind))
                .with_context(|| format!("cannot link to {kind}"))?;
        }
        first_output(run(&self.program, &[]).env("MACHINIST_CACHE", cache.path()))
    }

    fn cold(&self) -> Result<f64> {
        first_output(&mut run(&self.program, &["--cold"]))
    }
}

impl Bench for Save {
    fn questions(&self) -> Vec<Question> {
        vec![Question {
            name: "VM under emulation: the first start, which saves",
            peer: Some("a start with `--cold`"),
            unit: Unit::Seconds,
            limits: vec![Limit::AtMost(1.1)],
            how: "from the start of `machinist run --kind vm --accel tcg --system -- uname -s` until its output is here, \
                  with no snapshots in the cache: a boot, the save, and a restore of it; against the same with \
                  `--cold`, a boot.",
        }]
    }

    fn prepare(&mut self) -> Result<()> {
        self.cold().map(drop)
    }

    fn measure(&mut self) -> Result<Vec<Sample>> {
        Ok(vec![Sample::pair(self.first()?, self.cold()?)])
    }
}
