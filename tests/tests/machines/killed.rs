//! The engine is killed, at any moment: nothing may be left, and nobody has to clean up.

use std::time::Duration;

use anyhow::{Context, Result};
use machinist_tests::{Bench, Need, processes, wait_until};
use rustix::process::{Pid, Signal, kill_process};

use crate::Case;
use crate::labs::{IMAGE, run, until_told};

pub const CASES: &[Case] = &[
    Case {
        name: "killed::the_engine_at_20_random_moments",
        needs: &[Need::Container, Need::Vm],
        run: at_random_moments,
    },
    Case {
        name: "killed::the_engine_and_its_guard_as_by_a_power_cut",
        needs: &[Need::Container],
        run: power_cut,
    },
];

const LAB: &str = r#"
[machine.c]
kind = "container"
image = "small"
[machine.d]
kind = "container"
image = "small"
[machine.v]
kind = "vm"
image = "small"
memory = "256M"
[[test]]
name = "endless"
steps = [
  { machine = "c", run = "sleep 1000" },
]
"#;

fn at_random_moments(bench: &Bench) -> Result<()> {
    bench.write("lab.toml", &format!("{IMAGE}{LAB}"))?;
    let mut random = Random::new()?;
    for n in 0..20 {
        // From before the session's directory is there to well into the boot of the VM. The
        // first moments are the busiest ones: half of the kills are within 600 ms.
        let most = if n % 2 == 0 { 600 } else { 3500 };
        let moment = Duration::from_millis(random.below(most));
        let running = bench.machinist(&["test"]).start()?;
        std::thread::sleep(moment);
        running.signal(Signal::KILL);
        let ran = running.wait()?;
        bench
            .nothing_left()
            .with_context(|| format!("kill {n}, after {moment:?}: {ran}"))?;
    }
    Ok(())
}

/// Kills the engine and its guard at one moment: the next start sweeps, and touches no other
/// session.
fn power_cut(bench: &Bench) -> Result<()> {
    let other = bench.machinist(&until_told()).start()?;
    let session = sessions(bench, 1).context("the first session")?;
    let victim = bench.machinist(&run(&[], &["sleep", "1000"])).start()?;
    let both = sessions(bench, 2).context("the second session")?;
    let lost = both
        .into_iter()
        .find(|name| !session.contains(name))
        .context("a second session")?;
    for process in processes() {
        if process.command.contains("__guard") && process.command.contains(&lost) {
            kill(process.pid);
        }
    }
    victim.signal(Signal::KILL);
    victim.wait()?;
    let path = bench.runtime().join(&lost);
    anyhow::ensure!(
        path.exists(),
        "nothing was left to be swept: the test tests nothing"
    );
    bench.machinist(&run(&[], &["true"])).run()?.exits(0)?;
    anyhow::ensure!(!path.exists(), "{} was not swept", path.display());
    bench.write("go", "")?;
    other.wait()?.exits(0)?.says("still here")?;
    Ok(())
}

/// The names of the live sessions, as soon as there are so many.
fn sessions(bench: &Bench, count: usize) -> Option<Vec<String>> {
    wait_until(Duration::from_secs(120), || {
        let ps = bench
            .machinist(&["ps", "--format", "json"])
            .run()
            .ok()?
            .json()
            .ok()?;
        let names: Vec<String> = ps
            .as_array()?
            .iter()
            .filter(|session| {
                session["machines"][0]["state"] == "up"
                    || session["machines"][0]["state"] == "ready"
            })
            .filter_map(|session| session["session"].as_str().map(str::to_owned))
            .collect();
        (names.len() == count).then_some(names)
    })
}

fn kill(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // It may have ended in the meantime.
        _ = kill_process(pid, Signal::KILL);
    }
}

/// Numbers that differ from run to run: xorshift from the kernel's random numbers.
struct Random(u64);

impl Random {
    fn new() -> Result<Self> {
        use std::io::Read as _;
        let mut seed = [0; 8];
        std::fs::File::open("/dev/urandom")?.read_exact(&mut seed)?;
        Ok(Self(u64::from_ne_bytes(seed) | 1))
    }

    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }
}
