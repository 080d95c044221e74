//! Running the selected tests, some side by side, and what all of it comes to.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use machinist_events::{Event, Outcome as TestOutcome, SkipReason, What};
use machinist_lab::Test;
use machinist_session::{Cancel, Engine, OnFailure, Settings, TestJob, run_test};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::Outcome;
use crate::environment::Environment;
use crate::exit::Exit;
use crate::interrupt::Interrupt;
use crate::lab_file::LabFile;
use crate::preflight;
use crate::progress::{self, Progress, ProgressArgs};

/// What to run, and how.
pub struct Plan<'a> {
    /// The tests, at least one.
    pub tests: Vec<Test>,
    /// How many side by side.
    pub jobs: usize,
    /// How machines start.
    pub settings: Settings,
    /// For all time limits.
    pub timeout_factor: f64,
    /// After which all is ended.
    pub global_timeout: Option<Duration>,
    /// What to do at a failure.
    pub on_failure: OnFailure,
    /// The JUnit file.
    pub junit: Option<PathBuf>,
    /// The lab file, if the user named one.
    pub named_file: Option<PathBuf>,
    /// Where logs are kept.
    pub logs: Option<PathBuf>,
    /// How to show it.
    pub progress: &'a ProgressArgs,
    /// Events as JSON lines on stdout.
    pub json: bool,
}

/// How one test of the plan ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Ran(TestOutcome),
    Skipped,
}

/// Runs them.
pub async fn run(environment: &Environment, file: &LabFile, plan: Plan<'_>) -> Outcome {
    let interrupt = Interrupt::listen()?;
    let shown = progress::Plan {
        args: plan.progress,
        suite: file.file.display().to_string(),
        junit: plan.junit.clone(),
        json: plan.json,
        file: plan.named_file.clone(),
        logs: plan.logs.clone(),
    };
    let progress = Progress::begin(shown, plan.tests.len());
    let engine = Engine::open(plan.settings.clone(), progress.sink()).await?;
    progress::swept(engine.swept());
    let timed_out = Cancel::new();
    if let Some(limit) = plan.global_timeout {
        let (cancel, timed_out) = (interrupt.cancel.clone(), timed_out.clone());
        tokio::spawn(async move {
            tokio::time::sleep(limit).await;
            timed_out.cancel();
            cancel.cancel();
        });
    }
    let ended = run_all(environment, file, &plan, &engine, &interrupt, &progress).await;
    progress.finish()?;
    if timed_out.is_cancelled() {
        crate::ui::warning("the global timeout has passed");
        return Ok(Exit::Timeout);
    }
    Ok(overall(&ended))
}

async fn run_all(
    environment: &Environment,
    file: &LabFile,
    plan: &Plan<'_>,
    engine: &Engine,
    interrupt: &Interrupt,
    progress: &Progress,
) -> Vec<Ended> {
    let slots = Arc::new(Semaphore::new(plan.jobs));
    let mut running = JoinSet::new();
    let mut ended = Vec::new();
    for test in &plan.tests {
        if let Some(reason) = lacking(environment, file, test) {
            progress.tell(&skipped(test, reason));
            ended.push(Ended::Skipped);
            continue;
        }
        // A closed semaphore is the only error, and nobody closes it.
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            break;
        };
        if interrupt.cancel.is_cancelled() {
            break;
        }
        let job = job(file, plan, test);
        let (engine, interrupt) = (engine.clone(), interrupt.clone());
        running.spawn(async move {
            let result = run_test(&engine, job, &interrupt.cancel, &interrupt.kill).await;
            drop(slot);
            result.outcome
        });
    }
    while let Some(result) = running.join_next().await {
        // A panic is ours: the machinery failed.
        ended.push(Ended::Ran(result.unwrap_or(TestOutcome::Error)));
    }
    if interrupt.cancel.is_cancelled() {
        ended.push(Ended::Ran(TestOutcome::Interrupted));
    }
    ended
}

fn job(file: &LabFile, plan: &Plan<'_>, test: &Test) -> TestJob {
    TestJob {
        lab: Arc::clone(&file.lab),
        file: file.file.clone(),
        base: file.base.clone(),
        test: test.name.clone(),
        on_failure: plan.on_failure,
        timeout_factor: plan.timeout_factor,
        keep_logs: plan
            .logs
            .as_deref()
            .map(|logs| logs.join(folder(&test.name))),
    }
}

/// A test's name as the name of a folder.
fn folder(name: &str) -> String {
    let plain = |c: char| {
        if c.is_alphanumeric() || "-_.".contains(c) {
            c
        } else {
            '-'
        }
    };
    let folder: String = name.chars().map(plain).collect();
    if Path::new(&folder).file_name().is_some() {
        folder
    } else {
        format!("test{folder}")
    }
}

/// What the host lacks for this test; where that is nothing, there is a cache after this.
fn lacking(environment: &Environment, file: &LabFile, test: &Test) -> Option<String> {
    let machines = test
        .machines
        .iter()
        .filter_map(|name| file.lab.machine(name.as_str()));
    let needs = preflight::of_test(machines, test, environment);
    let mut reasons = preflight::reasons(&needs, environment);
    if reasons.is_empty()
        && let Err(error) = environment.cache.check()
    {
        reasons.push(format!("{error}: {}", error.hints().join("; ")));
    }
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

fn skipped(test: &Test, text: String) -> Event {
    let what = What::TestSkipped(SkipReason { text });
    Event::now(Duration::ZERO, what).of_test(&test.name)
}

/// What all of it comes to. A failed test stays one whatever else happened; only the user's own
/// Ctrl-C comes before it, because then nothing is known of the rest.
fn overall(ended: &[Ended]) -> Exit {
    let any = |wanted: Ended| ended.contains(&wanted);
    if any(Ended::Ran(TestOutcome::Interrupted)) {
        Exit::Interrupted
    } else if any(Ended::Ran(TestOutcome::Failed)) || any(Ended::Ran(TestOutcome::TimedOut)) {
        Exit::TestFailed
    } else if any(Ended::Ran(TestOutcome::Error)) {
        Exit::Machinery
    } else if any(Ended::Skipped) {
        Exit::Host
    } else {
        Exit::Passed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_test_is_not_hidden() {
        use TestOutcome::{Error, Failed, Interrupted, Passed, TimedOut};
        let overall = |outcomes: &[TestOutcome]| {
            overall(
                &outcomes
                    .iter()
                    .map(|it| Ended::Ran(*it))
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(overall(&[Passed, Passed]), Exit::Passed);
        assert_eq!(overall(&[Error, Failed, Passed]), Exit::TestFailed);
        assert_eq!(overall(&[Passed, TimedOut]), Exit::TestFailed);
        assert_eq!(overall(&[Passed, Error]), Exit::Machinery);
        assert_eq!(overall(&[Failed, Interrupted]), Exit::Interrupted);
        assert_eq!(
            super::overall(&[Ended::Ran(Passed), Ended::Skipped]),
            Exit::Host
        );
    }

    #[test]
    fn folders_are_plain() {
        assert_eq!(folder("a b/c"), "a-b-c");
        assert_eq!(folder(".."), "test..");
    }
}
