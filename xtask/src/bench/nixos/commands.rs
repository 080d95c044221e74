//! A thousand commands.

use anyhow::{Context, Result};

use super::super::program::{Program, number};
use super::super::{Bench, Limit, Question, Sample, Unit};
use super::{Guests, Kind, PEER};

const SCRIPT: &str = include_str!("../scripts/nixos_commands.py");

/// `machine.succeed("true")`, a thousand times.
pub struct Commands {
    program: Program,
    vm: Option<Guests>,
    container: Option<Guests>,
}

impl Commands {
    pub const fn new(program: Program) -> Self {
        Self {
            program,
            vm: None,
            container: None,
        }
    }
}

impl Bench for Commands {
    fn questions(&self) -> Vec<Question> {
        let question = |name, how| Question {
            name,
            peer: Some(PEER),
            unit: Unit::Seconds,
            limits: vec![Limit::AtMost(0.2)],
            how,
        };
        vec![
            question(
                "NixOS test: 1000 commands on a container",
                "1000 times `machine.succeed(\"true\")` once the system has started, as the script itself measures \
                 it; the model enters the container by nsenter and reads its profile each time.",
            ),
            question(
                "NixOS test: 1000 commands on a VM under emulation",
                "the same on a VM, where the model has one shell on a console, and base64.",
            ),
        ]
    }

    fn prepare(&mut self) -> Result<()> {
        let prepare = |kind| Guests::prepare(&self.program, &[("one", kind)]);
        self.container = Some(prepare(Kind::Container)?);
        self.vm = Some(prepare(Kind::Vm)?);
        Ok(())
    }

    fn measure(&mut self) -> Result<Vec<Sample>> {
        [&self.container, &self.vm]
            .into_iter()
            .map(|guests| {
                let guests = guests.as_ref().context("nothing is prepared")?;
                let ours = number(&guests.ours(SCRIPT)?.reported, "seconds")?;
                let theirs = number(&guests.theirs(SCRIPT)?.reported, "seconds")?;
                Ok(Sample::pair(ours, theirs))
            })
            .collect()
    }
}
