//! A command in a VM that was booted before.

use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::super::program::Program;
use super::super::{Bench, Limit, Question, Sample, Unit};
use super::by_hand::{Golden, PEER};
use super::{COMMAND, COMMAND_SAYS, MEBIBYTES, first_output, run};

/// `machinist run`, warm, against a restore by hand and against a boot.
pub struct WarmStart {
    program: Program,
    golden: Option<Golden>,
}

impl WarmStart {
    pub const fn new(program: Program) -> Self {
        let golden = None;
        Self { program, golden }
    }

    fn ours(&self, options: &[&str]) -> Result<f64> {
        first_output(&mut run(&self.program, options))
    }
}

fn by_hand(golden: &Golden) -> Result<f64> {
    let begun = Instant::now();
    let said = golden.restore()?.run(COMMAND)?;
    ensure!(said == COMMAND_SAYS, "it said {said}");
    Ok(begun.elapsed().as_secs_f64())
}

impl Bench for WarmStart {
    fn questions(&self) -> Vec<Question> {
        let question = |name, peer, limit, how| Question {
            name,
            peer: Some(peer),
            unit: Unit::Seconds,
            limits: vec![Limit::AtMost(limit)],
            how,
        };
        vec![
            question(
                "VM under emulation, warm: start to first output",
                PEER,
                1.2,
                "from the start of `machinist run --kind vm --accel tcg --system -- uname -s` until its output is here, \
                 with a snapshot in the cache. By hand: the same disk, kernel, systemd and memory were booted in QEMU \
                 with the memory in a file, and saved by `migrate` with `x-ignore-shared`; measured is from the start \
                 of a QEMU with `-incoming defer` that maps the file privately until a bash that waits on its console \
                 has run `uname -s`. It has no network card, and nobody sets its clock, names or random numbers.",
            ),
            question(
                "VM under emulation, warm: against cold",
                "the same with `--cold`",
                0.05,
                "the same start against one that boots, until its systemd is up, and runs the command.",
            ),
        ]
    }

    fn prepare(&mut self) -> Result<()> {
        // The first saves, where there is no snapshot.
        self.ours(&[])?;
        self.ours(&[])?;
        let golden = Golden::make(&self.program, MEBIBYTES)?;
        by_hand(&golden)?;
        self.golden = Some(golden);
        Ok(())
    }

    fn measure(&mut self) -> Result<Vec<Sample>> {
        let golden = self.golden.as_ref().context("nothing is prepared")?;
        let warm = self.ours(&[])?;
        let by_hand = by_hand(golden)?;
        let cold = self.ours(&["--cold"])?;
        Ok(vec![Sample::pair(warm, by_hand), Sample::pair(warm, cold)])
    }
}
