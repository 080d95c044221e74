//! Going back in time.

use anyhow::Result;

use super::super::images::IMAGE;
use super::super::program::{Lab, Program, number};
use super::super::{Bench, Limit, Question, Sample, Unit};

/// Checkpoints of a lab of three VMs.
pub struct Checkpoint {
    program: Program,
}

impl Checkpoint {
    pub const fn new(program: Program) -> Self {
        Self { program }
    }
}

impl Bench for Checkpoint {
    fn questions(&self) -> Vec<Question> {
        let question = |name, limit, how| Question {
            name,
            peer: None,
            unit: Unit::Seconds,
            limits: vec![Limit::Within(limit)],
            how,
        };
        vec![
            question(
                "checkpoint of 3 VMs: standing still",
                0.3,
                "a lab of three VMs under emulation on one VLAN, 512 MB of memory each, restored from a snapshot, that \
                 have each written 24 MB and go on writing. The longest of five checkpoints, as the checkpoint itself says it.",
            ),
            question(
                "checkpoint of 3 VMs: restore",
                0.5,
                "the longest of five calls of `lab.restore(checkpoint)` in a script, one after each checkpoint, until all \
                 three run and answer.",
            ),
        ]
    }

    fn measure(&mut self) -> Result<Vec<Sample>> {
        let machine = |name| {
            format!(
                "[machine.{name}]\nimage = \"{IMAGE}\"\nkind = \"vm\"\nmemory = \"512M\"\nvlans = [1]\n"
            )
        };
        let reported = self.program.lab(&Lab {
            machines: &["a", "b", "c"].map(machine).concat(),
            script: include_str!("scripts/checkpoint.py"),
        })?;
        ["still", "restored"]
            .into_iter()
            .map(|what| number(&reported, what).map(Sample::alone))
            .collect()
    }
}
