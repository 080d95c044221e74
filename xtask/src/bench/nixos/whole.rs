//! A whole test, from the call of the driver until it has ended.

use anyhow::{Context, Result};

use super::super::program::Program;
use super::super::{Bench, Limit, Question, Sample, Unit};
use super::{Guests, Kind, PEER};

const SCRIPT: &str = include_str!("../scripts/nixos_quickstart.py");

/// A server and its client.
pub struct Whole {
    program: Program,
    mixed: Option<Guests>,
    containers: Option<Guests>,
}

impl Whole {
    pub const fn new(program: Program) -> Self {
        Self {
            program,
            mixed: None,
            containers: None,
        }
    }
}

impl Bench for Whole {
    fn questions(&self) -> Vec<Question> {
        let question = |name, limits, how| Question {
            name,
            peer: Some(PEER),
            unit: Unit::Seconds,
            limits,
            how,
        };
        vec![
            question(
                "NixOS test: containers",
                vec![Limit::AtMost(0.33)],
                "a server with nginx and an application, and their client, on one VLAN, ten waits and a \
                 dozen commands, the whole call of `nixos-test-driver`; against a model of NixOS' own driver (`xtask/src/bench/scripts/todays_driver.py`: \
                 it asks once a second, and enters a container by nsenter and a login's profile for each command), with \
                 the same start scripts, over the same image, and with the same test script. What the guests have to do \
                 is small (the largest piece makes an archive of `/usr/share/zoneinfo`): it takes the same on both \
                 sides. The runtime directory is in memory, as it is for whoever is logged in.",
            ),
            question(
                "NixOS test: VM under emulation, and container",
                Vec::new(),
                "the same with the server in a VM. Its boot is the same on both sides and most of either, so there is \
                 no limit here; the model has `vde_switch` and `vde_plug2tap` for the VLAN.",
            ),
            question(
                "NixOS test: VM under emulation, and container, warm",
                vec![Limit::AtMost(0.33)],
                "the same with `--warm`: an earlier run, which is not counted, has saved the VM. The model boots it, as \
                 in the row above.",
            ),
        ]
    }

    fn prepare(&mut self) -> Result<()> {
        let prepare = |server| {
            let machines = [("client", Kind::Container), ("server", server)];
            Guests::prepare(&self.program, &machines)
        };
        self.containers = Some(prepare(Kind::Container)?);
        let mixed = prepare(Kind::Vm)?;
        // The VM is saved.
        mixed.ours_warm(SCRIPT)?;
        self.mixed = Some(mixed);
        Ok(())
    }

    fn measure(&mut self) -> Result<Vec<Sample>> {
        fn there(guests: Option<&Guests>) -> Result<&Guests> {
            guests.context("nothing is prepared")
        }
        let (containers, mixed) = (
            there(self.containers.as_ref())?,
            there(self.mixed.as_ref())?,
        );
        let of_containers = containers.ours(SCRIPT)?.seconds;
        let of_containers = Sample::pair(of_containers, containers.theirs(SCRIPT)?.seconds);
        let (cold, warm) = (
            mixed.ours(SCRIPT)?.seconds,
            mixed.ours_warm(SCRIPT)?.seconds,
        );
        let theirs = mixed.theirs(SCRIPT)?.seconds;
        let of_mixed = [cold, warm].map(|ours| Sample::pair(ours, theirs));
        Ok([of_containers].into_iter().chain(of_mixed).collect())
    }
}
