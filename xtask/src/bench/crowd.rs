//! Many containers at once.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};

use super::images::{self, IMAGE};
use super::nspawn::Raw;
use super::program::{Lab, Program};
use super::{Bench, Question, Sample, Unit, memory};
use crate::command;

const CONTAINERS: usize = 24;

/// A lab of 24 containers against 24 times systemd-nspawn.
pub struct Crowd {
    program: Program,
    root: PathBuf,
}

impl Crowd {
    pub const fn new(program: Program) -> Self {
        Self {
            program,
            root: PathBuf::new(),
        }
    }

    fn ours(&self) -> Result<()> {
        let machine = format!(
            "[machine.m]\nimage = \"{IMAGE}\"\nkind = \"container\"\ncount = {CONTAINERS}\nvlans = []\n"
        );
        let place = Lab {
            machines: &machine,
            script: include_str!("scripts/crowd.py"),
        }
        .write()?;
        command::stdout(&mut self.program.test(&place)).map(drop)
    }

    fn theirs(&self) -> Result<()> {
        let one = |number: usize| {
            let raw = Raw::boot(&self.root, &format!("bench-{number}"))?;
            raw.enter(&["true"])?;
            raw.stop()
        };
        thread::scope(|scope| {
            let all: Vec<_> = (0..CONTAINERS)
                .map(|number| scope.spawn(move || one(number)))
                .collect();
            all.into_iter()
                .try_for_each(|it| it.join().map_err(|_| anyhow!("a thread has failed"))?)
        })
    }
}

fn timed(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let begun = Instant::now();
    work()?;
    Ok(begun.elapsed().as_secs_f64())
}

impl Bench for Crowd {
    fn questions(&self) -> Vec<Question> {
        let question = |name, unit, how| Question {
            name,
            peer: Some("24 times `systemd-nspawn -b`, nsenter"),
            unit,
            limits: Vec::new(),
            how,
        };
        vec![
            question(
                "24 containers: start, a command, stop",
                Unit::Seconds,
                "the whole of `machinist test` on a lab of 24 containers, each of which becomes ready, runs `true` and \
                 is shut down, all at once; against 24 threads that each boot a raw systemd-nspawn of the same root, \
                 enter it once for `true` when its systemd is up, and stop it.",
            ),
            question(
                "24 containers: peak memory",
                Unit::Bytes,
                "in another round of the same: the most that the proportional set sizes of all processes of either \
                 side, containers included, came to, looked at ten times a second.",
            ),
        ]
    }

    fn prepare(&mut self) -> Result<()> {
        self.root = images::root(&self.program, &[])?;
        Ok(())
    }

    fn measure(&mut self) -> Result<Vec<Sample>> {
        let _room = Inotify::raise()?;
        let time = Sample::pair(timed(|| self.ours())?, timed(|| self.theirs())?);
        let memory = Sample::pair(
            memory::peak(|| self.ours())?,
            memory::peak(|| self.theirs())?,
        );
        Ok(vec![time, memory])
    }
}

/// Room for 24 systemds, each with dozens of inotify instances, until it is dropped.
struct Inotify {
    before: String,
}

impl Inotify {
    const PATH: &str = "/proc/sys/fs/inotify/max_user_instances";
    const ENOUGH: u32 = 8192;

    fn raise() -> Result<Self> {
        let path = Path::new(Self::PATH);
        let before = std::fs::read_to_string(path).context(Self::PATH)?;
        if before
            .trim()
            .parse::<u32>()
            .is_ok_and(|it| it < Self::ENOUGH)
        {
            std::fs::write(path, Self::ENOUGH.to_string()).context(Self::PATH)?;
        }
        Ok(Self { before })
    }
}

impl Drop for Inotify {
    fn drop(&mut self) {
        drop(std::fs::write(Self::PATH, &self.before));
    }
}
