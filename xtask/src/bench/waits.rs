//! How soon a script knows that what it waits for has come.

use anyhow::Result;

use super::images::IMAGE;
use super::program::{Lab, Program, number};
use super::{Bench, Limit, Question, Sample, Unit};

/// Waits in a container, against the moment at which what they wait for came to be.
pub struct Waits {
    program: Program,
}

impl Waits {
    pub const fn new(program: Program) -> Self {
        Self { program }
    }
}

impl Bench for Waits {
    fn questions(&self) -> Vec<Question> {
        let question = |name, how| Question {
            name,
            peer: None,
            unit: Unit::Seconds,
            limits: vec![Limit::Within(0.02)],
            how,
        };
        vec![
            question(
                "container: `wait_for_unit` after the unit is active",
                "from systemd's own `ActiveEnterTimestampMonotonic` until `wait_for_unit` has returned in a Python \
                 script; the median of 15. A container has the host's clocks.",
            ),
            question(
                "container: `wait_for_file` after the file is there",
                "from a look at the clock in the container just before it makes the file; the median of 15.",
            ),
            question(
                "container: `wait_for_open_port` after something listens",
                "from a look at the clock in the container just before it listens; the median of 15.",
            ),
        ]
    }

    fn measure(&mut self) -> Result<Vec<Sample>> {
        let reported = self.program.lab(&Lab {
            machines: &format!("[machine.m]\nimage = \"{IMAGE}\"\nkind = \"container\"\n"),
            script: include_str!("scripts/waits.py"),
        })?;
        ["unit", "file", "port"]
            .into_iter()
            .map(|what| number(&reported, what).map(Sample::alone))
            .collect()
    }
}
