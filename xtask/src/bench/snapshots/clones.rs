//! Many VMs that are one.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, anyhow, ensure};

use super::super::images::IMAGE;
use super::super::program::{self, Lab, Program, number};
use super::super::{Bench, Limit, Question, Sample, Unit, memory};
use super::by_hand::{Golden, Machine, PEER};
use super::{COMMAND, COMMAND_SAYS};

const CLONES: usize = 24;
const MEBIBYTES: u32 = 384;

/// A lab of 24 VMs, warm, against 24 restores by hand and against 24 boots.
pub struct Clones {
    program: Program,
    golden: Option<Golden>,
    /// They take minutes, so they are booted once, whatever else is measured more often.
    boots: Option<Crowd>,
}

/// What 24 machines took.
#[derive(Debug, Clone, Copy)]
struct Crowd {
    /// From the start until all had answered.
    seconds: f64,
    /// When all had answered.
    bytes: f64,
}

impl Clones {
    pub const fn new(program: Program) -> Self {
        Self {
            program,
            golden: None,
            boots: None,
        }
    }

    /// `machinist test` of a lab of them.
    fn ours(&self, options: &[&str]) -> Result<Crowd> {
        let machines = format!(
            "[defaults]\ntimeout = \"60m\"\n[machine.m]\nimage = \"{IMAGE}\"\nkind = \"vm\"\nmemory = \"{MEBIBYTES}M\"\ncount = {CLONES}\nvlans = []\n"
        );
        let place = Lab {
            machines: &machines,
            script: include_str!("scripts/clones.py"),
        }
        .write()?;
        let begun = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        let mut test = self.program.test(&place);
        let log = File::create(place.path().join("log")).context("cannot make a log")?;
        test.args(options).stdout(Stdio::null()).stderr(log);
        let test = test.spawn();
        let mut test = test.context("cannot run machinist")?;
        let answered = until(&place.path().join("all-answered"), &mut test);
        answered.with_context(|| {
            std::fs::read_to_string(place.path().join("log")).unwrap_or_default()
        })?;
        let bytes = memory::below(std::process::id());
        std::fs::write(place.path().join("measured"), "").context("cannot write a file")?;
        let status = test.wait()?;
        ensure!(status.success(), "machinist test: {status}");
        let last = number(&program::reported(&place)?, "last")?;
        #[expect(clippy::cast_precision_loss, reason = "a measurement")]
        Ok(Crowd {
            seconds: last - begun.as_secs_f64(),
            bytes: bytes as f64,
        })
    }

    fn boots(&mut self) -> Result<Crowd> {
        if let Some(measured) = self.boots {
            return Ok(measured);
        }
        let measured = self.ours(&["--cold"])?;
        self.boots = Some(measured);
        Ok(measured)
    }
}

/// As many at a time as there are processors, which is quickest; all stay until the last has
/// answered.
fn by_hand(golden: &Golden) -> Result<f64> {
    let begun = Instant::now();
    let begun_so_far = AtomicUsize::new(0);
    let machines = Mutex::new(Vec::new());
    let one_after_the_other = || -> Result<()> {
        while begun_so_far.fetch_add(1, Ordering::Relaxed) < CLONES {
            let mut machine: Machine = golden.restore()?;
            let said = machine.run(COMMAND)?;
            ensure!(said == COMMAND_SAYS, "it said {said}");
            let mut machines = machines
                .lock()
                .map_err(|_| anyhow!("a thread has failed"))?;
            machines.push(machine);
        }
        Ok(())
    };
    let at_a_time = thread::available_parallelism().context("no processors")?;
    thread::scope(|scope| {
        let all: Vec<_> = (0..at_a_time.get())
            .map(|_| scope.spawn(one_after_the_other))
            .collect();
        all.into_iter()
            .try_for_each(|it| it.join().map_err(|_| anyhow!("a thread has failed"))?)
    })?;
    Ok(begun.elapsed().as_secs_f64())
}

/// Looks until the file is there, or the program has ended.
fn until(path: &Path, program: &mut Child) -> Result<()> {
    while !path.exists() {
        if let Some(status) = program.try_wait()? {
            // It may have been the last thing it did.
            ensure!(path.exists(), "machinist test: {status}");
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

impl Bench for Clones {
    fn questions(&self) -> Vec<Question> {
        let question = |name, peer, unit, limit, how| Question {
            name,
            peer: Some(peer),
            unit,
            limits: vec![Limit::AtMost(limit)],
            how,
        };
        vec![
            question(
                "24 clones of a VM: start to all outputs",
                PEER,
                Unit::Seconds,
                1.2,
                "from the start of `machinist test` on a lab with `count = 24` and 384 MB of memory each, until a script \
                 has the output of `uname -s` of each, with a snapshot in the cache. By hand: 24 restores as in the row \
                 about warm starts, as many at a time as there are processors, which is quickest, each of which runs \
                 `uname -s`.",
            ),
            question(
                "24 clones of a VM: against 24 boots",
                "the same with `--cold`",
                Unit::Seconds,
                0.05,
                "the same against 24 that boot until their systemd is up, and run the command. These were measured once.",
            ),
            question(
                "24 clones of a VM: memory",
                "the same with `--cold`",
                Unit::Bytes,
                0.17,
                "the proportional set sizes of all processes of machinist's, QEMU and the script included, when all \
                 have answered.",
            ),
        ]
    }

    fn prepare(&mut self) -> Result<()> {
        // The first saves, where there is no snapshot.
        self.ours(&[])?;
        let golden = Golden::make(&self.program, MEBIBYTES)?;
        by_hand(&golden)?;
        self.golden = Some(golden);
        Ok(())
    }

    fn measure(&mut self) -> Result<Vec<Sample>> {
        let ours = self.ours(&[])?;
        let golden = self.golden.as_ref().context("nothing is prepared")?;
        let by_hand = by_hand(golden)?;
        let boots = self.boots()?;
        Ok(vec![
            Sample::pair(ours.seconds, by_hand),
            Sample::pair(ours.seconds, boots.seconds),
            Sample::pair(ours.bytes, boots.bytes),
        ])
    }
}
