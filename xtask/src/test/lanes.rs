//! Jobs side by side.
//!
//! ```text
//! lane 1, lane 2   each takes the next job as soon as it has ended one
//! cargo's lane     what compiles, one job after another: cargo would let only one run in any case
//! ```
//!
//! A test of real machines waits, or keeps one processor busy: two of them at once take little longer
//! than one. More would only be slower, each.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::Result;

use super::Stage;
use super::tally::Tally;

type Work = dyn FnOnce(&mut Tally) -> Result<()> + Send;

/// What runs by itself, of a stage.
pub struct Job {
    stage: Stage,
    name: String,
    work: Box<Work>,
}

/// A job that has run.
pub struct Ran {
    /// Whose it was.
    pub stage: Stage,
    /// How long it took.
    pub seconds: f64,
    /// How it went.
    pub tally: Tally,
}

impl Job {
    /// Does `work` when it is run.
    pub fn new(
        stage: Stage,
        name: impl Into<String>,
        work: impl FnOnce(&mut Tally) -> Result<()> + Send + 'static,
    ) -> Self {
        Self {
            stage,
            name: name.into(),
            work: Box::new(work),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs it, and tells of it.
    pub fn run(self) -> Ran {
        timed(self.stage, &self.name, self.work)
    }
}

/// Does `work` of a stage, and tells of it.
pub fn timed(stage: Stage, name: &str, work: impl FnOnce(&mut Tally) -> Result<()>) -> Ran {
    let begin = Instant::now();
    let mut tally = Tally::default();
    if let Err(error) = work(&mut tally) {
        let what = format!("{name}: could not be finished");
        tally.fail_saying(what, &format!("{error:#}"));
    }
    let seconds = begin.elapsed().as_secs_f64();
    let counts = match tally == Tally::default() {
        true => "done".to_owned(),
        false => tally.counts(),
    };
    println!("{name}: {counts} ({seconds:.1} s)");
    Ran {
        stage,
        seconds,
        tally,
    }
}

/// Runs all: `jobs` in two lanes, begun in their order, and those of `cargo` one after another.
pub fn run(jobs: Vec<Job>, cargo: Vec<Job>) -> Vec<Ran> {
    let two = Mutex::new(VecDeque::from(jobs));
    let one = Mutex::new(VecDeque::from(cargo));
    let next = |jobs: &Mutex<VecDeque<Job>>| {
        let mut jobs = jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.pop_front()
    };
    let all = Mutex::new(Vec::new());
    let lane = |jobs| {
        while let Some(job) = next(jobs) {
            let ran = job.run();
            all.lock().unwrap_or_else(PoisonError::into_inner).push(ran);
        }
    };
    thread::scope(|scope| {
        for jobs in [&two, &two, &one] {
            scope.spawn(move || lane(jobs));
        }
    });
    all.into_inner().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn two_run_at_once_and_none_is_lost() {
        let (say, hear) = mpsc::channel();
        let first = Job::new(Stage::Cli, "first", move |tally| {
            hear.recv_timeout(Duration::from_secs(60))?;
            tally.pass();
            Ok(())
        });
        let second = Job::new(Stage::Cli, "second", move |_| Ok(say.send(())?));
        let fails = |_: &mut Tally| anyhow::bail!("no");
        let ran = run(
            vec![first, second],
            vec![Job::new(Stage::Doc, "third", fails)],
        );
        let mut all = Tally::default();
        for ran in ran {
            all.add(ran.tally);
        }
        assert_eq!(all.counts(), "1 passed, 1 failed");
    }
}
