//! How much is between a command in a fresh virtual machine and the bare minimum.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::images::{self, IMAGE, Kernel};
use super::program::Program;
use super::{Bench, Limit, Question, Sample, Unit, hand_made};
use crate::command;

/// `machinist run --kind vm` against the same kernel booted by hand.
pub struct VmStart {
    program: Program,
    floor: Option<Floor>,
}

struct Floor {
    kernel: Kernel,
    initrd: PathBuf,
    _place: TempDir,
}

impl VmStart {
    pub const fn new(program: Program) -> Self {
        Self {
            program,
            floor: None,
        }
    }

    fn ours(&self, version: &str) -> Result<f64> {
        let options = ["--image", IMAGE, "--kind", "vm", "--accel", "tcg", "--cold"];
        let mut run = self.program.command(&["run"]);
        run.args(options).args(["--", "uname", "-r"]);
        let begun = Instant::now();
        let said = command::stdout(&mut run)?;
        let took = begun.elapsed();
        ensure!(said.trim() == version, "another kernel: {said}");
        Ok(took.as_secs_f64())
    }
}

impl Floor {
    fn measure(&self) -> Result<f64> {
        let begun = Instant::now();
        let said = command::stdout(&mut hand_made::qemu(&self.kernel, &self.initrd))?;
        let took = begun.elapsed();
        ensure!(said.contains(&self.kernel.version), "no output: {said}");
        Ok(took.as_secs_f64())
    }
}

impl Bench for VmStart {
    fn questions(&self) -> Vec<Question> {
        vec![Question {
            name: "VM under emulation: one command, cold",
            peer: Some("QEMU by hand, busybox prints and powers off"),
            unit: Unit::Seconds,
            limits: vec![Limit::AtMost(1.3)],
            how: "from the start of `machinist run --kind vm --accel tcg -- uname -r` until it has ended, against the \
                  same kernel (Debian's bzImage) in QEMU's q35 without any device but a serial port, with an initrd \
                  of busybox that prints `uname -r` and powers off.",
        }]
    }

    fn prepare(&mut self) -> Result<()> {
        let kernel = images::cloud_kernel(&self.program)?;
        let place = tempfile::tempdir().context("cannot make a directory")?;
        let init = "busybox uname -r\nbusybox poweroff -f\n";
        let initrd = hand_made::initrd(place.path(), &kernel, &[], init)?;
        self.ours(&kernel.version)?;
        self.floor = Some(Floor {
            kernel,
            initrd,
            _place: place,
        });
        Ok(())
    }

    fn measure(&mut self) -> Result<Vec<Sample>> {
        let floor = self.floor.as_ref().context("nothing is prepared")?;
        let ours = self.ours(&floor.kernel.version)?;
        Ok(vec![Sample::pair(ours, floor.measure()?)])
    }
}
