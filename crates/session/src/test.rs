//! One test: a session of its own, from its start to nothing left.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use machinist_events::{Event, Failure, FailureKind, Outcome, What};
use machinist_lab::{Body, Lab, Test};

use crate::content::Content;
use crate::driver::DriverJob;
use crate::ended::{Ended, machinery};
use crate::hub;
use crate::protocol::{Command, ScriptReport};
use crate::script::{Script, ScriptError};
use crate::session::SessionError;
use crate::{Brief, Cancel, Engine, Session, chain, pause, server, steps};

/// How long it may take to read a unit's journal.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How long what else went wrong is looked for.
const LOOK_AROUND: Duration = Duration::from_secs(3);

/// How long machines may take to write what they hold.
const SYNC: Duration = Duration::from_secs(60);

/// What to do at a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFailure {
    /// End the test.
    #[default]
    Report,
    /// Stand still until a client says `continue` (`machinist attach`), then end the test.
    Pause,
}

/// A test to run.
#[derive(Debug, Clone)]
pub struct TestJob {
    /// The lab.
    pub lab: Arc<Lab>,
    /// The lab file, for people.
    pub file: PathBuf,
    /// The directory that relative paths of the lab are relative to. Absolute.
    pub base: PathBuf,
    /// The name of the test, one of the lab's.
    pub test: String,
    /// What to do at a failure.
    pub on_failure: OnFailure,
    /// All timeouts of the test are multiplied by this.
    pub timeout_factor: f64,
    /// Where to leave the event log, the consoles, and what the test copies out of machines; made
    /// where it is missing.
    pub keep_logs: Option<PathBuf>,
}

/// How a test ended. The events have told it already.
#[derive(Debug, Clone)]
pub struct TestResult {
    /// The test's name.
    pub test: String,
    /// How it ended.
    pub outcome: Outcome,
    /// How long it took, machines included.
    pub seconds: f64,
    /// What went wrong, unless it passed.
    pub failure: Option<Failure>,
}

impl TestResult {
    /// Of a test that the user ended before it began.
    fn not_run(test: &str) -> Self {
        Self {
            test: test.to_owned(),
            outcome: Outcome::Interrupted,
            seconds: 0.0,
            failure: None,
        }
    }
}

/// Runs a test to its end, and leaves nothing behind. `cancel` thrown: the test ends as
/// interrupted, and cleans up. `kill` thrown: cleaning up asks nobody, it kills.
pub async fn run_test(engine: &Engine, job: TestJob, cancel: &Cancel, kill: &Cancel) -> TestResult {
    run(engine, &Work::Lab(job), cancel, kill).await
}

/// One test, of whatever origin.
pub(crate) enum Work {
    Lab(TestJob),
    Driver(Arc<DriverJob>),
}

impl Work {
    fn name(&self) -> &str {
        match self {
            Self::Lab(job) => &job.test,
            Self::Driver(job) => &job.name,
        }
    }

    fn on_failure(&self) -> OnFailure {
        match self {
            Self::Lab(job) => job.on_failure,
            Self::Driver(job) => job.on_failure,
        }
    }

    fn content(&self) -> Content {
        match self {
            Self::Lab(job) => Content::Lab(Brief {
                test: Some(job.test.clone()),
                timeout_factor: job.timeout_factor,
                ..Brief::new(Arc::clone(&job.lab), job.file.clone(), job.base.clone())
            }),
            Self::Driver(job) => Content::Driver(Arc::clone(job)),
        }
    }
}

/// Runs one test, of whatever origin.
pub(crate) async fn run(
    engine: &Engine,
    work: &Work,
    cancel: &Cancel,
    kill: &Cancel,
) -> TestResult {
    let content = work.content();
    // It counts for no time limit, nor as the test's time.
    let admitted = tokio::select! {
        admitted = Session::admitted(engine, &content) => admitted.map_err(SessionError::from),
        () = cancel.cancelled() => return TestResult::not_run(work.name()),
    };
    let began = Instant::now();
    let opened = match admitted {
        Ok(usage) => Session::with(engine, content, usage).await,
        Err(error) => Err(error),
    };
    let (ended, seconds) = match opened {
        Ok(session) => {
            session.hub().log.emit(What::TestStarted);
            let ended = in_session(engine, work, &session, cancel, kill).await;
            let seconds = began.elapsed().as_secs_f64();
            session.hub().log.emit(finished(&ended, seconds));
            leave(work, &session, kill).await;
            (ended, seconds)
        }
        Err(error) => {
            // There is no log to write to; those who listen are told all the same.
            let ended = Ended::machinery(format!("cannot make a session: {}", chain::text(&error)));
            for what in [What::TestStarted, finished(&ended, 0.0)] {
                (engine.0.sink)(&Event::now(began.elapsed(), what).of_test(work.name()));
            }
            (ended, began.elapsed().as_secs_f64())
        }
    };
    TestResult {
        test: work.name().to_owned(),
        outcome: ended.outcome,
        seconds,
        failure: ended.failure,
    }
}

fn finished(ended: &Ended, seconds: f64) -> What {
    What::TestFinished {
        outcome: ended.outcome,
        seconds,
        failure: ended.failure.clone(),
    }
}

/// Ends the session, and keeps what is to be kept of it.
async fn leave(work: &Work, session: &Session, kill: &Cancel) {
    if let Work::Lab(job) = work
        && let Some(keep) = &job.keep_logs
        && let Err(error) = crate::keep::keep(session.path(), keep).await
    {
        let text = format!("the logs are not kept: {}", chain::text(&error));
        session.hub().log.emit(What::Warning { text });
    }
    if let Err(error) = session.close(kill).await {
        // The log is gone with the directory, or closed; those who listen are told.
        let text = format!("something is left: {}", chain::text(&error));
        session.hub().log.emit(What::Warning { text });
    }
}

async fn in_session(
    engine: &Engine,
    work: &Work,
    session: &Session,
    cancel: &Cancel,
    kill: &Cancel,
) -> Ended {
    // Images first, and outside of the test's time: how long a build takes says nothing of a test.
    let prepared = tokio::select! {
        () = cancel.cancelled() => return Ended::interrupted(),
        prepared = session.prepare() => prepared,
    };
    let mut ended = match prepared {
        Err(fault) => Ended::fault(fault),
        Ok(()) => {
            let body = InTest {
                engine,
                session,
                kill,
            };
            body.run(work, cancel).await
        }
    };
    if cancel.is_cancelled() {
        return Ended::interrupted();
    }
    if let Some(failure) = &mut ended.failure {
        look_around(session, failure).await;
        if work.on_failure() == OnFailure::Pause {
            pause(session, failure, cancel).await;
        }
    }
    ended
}

/// Where the body of a test runs.
struct InTest<'a> {
    engine: &'a Engine,
    session: &'a Session,
    kill: &'a Cancel,
}

impl InTest<'_> {
    async fn run(&self, work: &Work, cancel: &Cancel) -> Ended {
        match work {
            Work::Lab(job) => self.lab(job, cancel).await,
            Work::Driver(job) => self.driver(job, cancel).await,
        }
    }

    async fn lab(&self, job: &TestJob, cancel: &Cancel) -> Ended {
        let Some(test) = job.lab.tests.iter().find(|test| test.name == job.test) else {
            return Ended::machinery(format!("the lab has no test {:?}", job.test));
        };
        let limit = test.timeout.mul_f64(job.timeout_factor);
        // The script is ended the same way by the user and by the clock.
        let stop = Cancel::new();
        let body = self.body(job, test, &stop);
        self.within(Some(limit), cancel, &stop, body).await
    }

    /// Runs the script of a driver. At the end of its time machines are killed first, as NixOS'
    /// driver does, so that nothing that the script does then can keep it.
    async fn driver(&self, job: &DriverJob, cancel: &Cancel) -> Ended {
        let stop = Cancel::new();
        let out = Some(job.out_dir.clone());
        let script = self.script(&job.test_script, &job.cwd, out, job.interactive, &stop);
        let limit = job.global_timeout.filter(|_| !job.interactive);
        let body = async {
            let mut body = pin!(script);
            tokio::select! {
                ended = &mut body => return ended,
                () = stop.cancelled() => {}
            }
            let (ended, ()) = tokio::join!(body, self.session.end_machines(None));
            ended
        };
        let ended = self.within(limit, cancel, &stop, body).await;
        if ended.failure.is_none() && !job.interactive && !cancel.is_cancelled() {
            self.sync().await;
        }
        ended
    }

    /// Has all VMs that are up write what they hold. A container's files are the host's, which shows
    /// them as they are, and its `sync` would wait for all that the host has to write.
    async fn sync(&self) {
        let hub = self.session.hub();
        let machines = hub.all();
        let up = machines.iter().filter(|(_, control)| {
            control.kind() != "container" && matches!(control.state(), "up" | "ready")
        });
        let syncs = up.map(|(name, _)| async move {
            let mut sync = Command::shell("sync");
            sync.timeout = Some(SYNC.as_secs_f64());
            drop(server::execute(hub, name, &sync).await);
        });
        let syncs = futures_util::future::join_all(syncs);
        drop(tokio::time::timeout(SYNC, syncs).await);
    }

    /// Runs the body of a test within the test's time.
    async fn within(
        &self,
        limit: Option<Duration>,
        cancel: &Cancel,
        stop: &Cancel,
        body: impl Future<Output = Ended>,
    ) -> Ended {
        let mut body = pin!(body);
        let over = async {
            match limit {
                Some(limit) => tokio::time::sleep(limit).await,
                None => std::future::pending().await,
            }
        };
        let is_over = tokio::select! {
            ended = &mut body => return ended,
            () = cancel.cancelled() => false,
            () = self.session.down_asked() => false,
            () = over => true,
        };
        stop.cancel();
        let last = body.await;
        if !is_over || cancel.is_cancelled() {
            return Ended::interrupted();
        }
        let limit = limit.map(hub::seconds).unwrap_or_default();
        let message = format!("the test took longer than {limit} s");
        Ended::timed_out(message, last.failure)
    }

    async fn body(&self, job: &TestJob, test: &Test, stop: &Cancel) -> Ended {
        match &test.body {
            Body::Steps(all) => {
                let work = async {
                    let ready = self.session.ready(&[]).await;
                    ready.map_err(|fault| steps::failure(fault.to_string(), fault))?;
                    let (base, file) = (&job.base, &job.file);
                    steps::run(self.session.hub(), base, file, &test.name, all).await
                };
                tokio::select! {
                    () = stop.cancelled() => Ended::interrupted(),
                    done = work => done.map_or_else(Ended::failed, |()| Ended::passed()),
                }
            }
            Body::Script(path) => {
                let out = job.keep_logs.as_ref().map(|logs| logs.join("out"));
                let path = job.base.join(path);
                self.script(&path, &job.base, out, false, stop).await
            }
        }
    }

    async fn script(
        &self,
        path: &Path,
        cwd: &Path,
        out: Option<PathBuf>,
        terminal: bool,
        stop: &Cancel,
    ) -> Ended {
        let hub = self.session.hub();
        let script = Script {
            path,
            cwd,
            session: self.session.path(),
            socket: self.session.socket(),
            out: out.as_deref(),
            search: &self.engine.0.settings.search,
            log: &hub.log,
            processes: self.session.processes(),
            terminal,
        };
        let ran = script.run(stop, self.kill).await;
        let report = match &*hub.script.borrow() {
            hub::Script::Silent => None,
            hub::Script::Ended(report) => Some(report.clone()),
        };
        match (ran, report) {
            (Err(error @ ScriptError::Path(_)), _) => Ended::failed(Failure {
                kind: FailureKind::Test,
                ..machinery(chain::text(&error))
            }),
            (Err(error), _) => Ended::machinery(chain::text(&error)),
            (Ok(_), Some(Some(report))) => Ended::failed(reported(*report)),
            (Ok(status), Some(None)) if status.success() => Ended::passed(),
            (Ok(status), said) => {
                let said = said.map_or("", |_| ", after it had come to its end");
                Ended::failed(Failure {
                    kind: FailureKind::Test,
                    ..machinery(format!("the script's Python ended with {status}{said}"))
                })
            }
        }
    }
}

/// What a script told, as a failure.
pub(crate) fn reported(report: ScriptReport) -> Failure {
    // A failed assertion speaks for itself; of anything else it matters what it was.
    let plain = [
        "RequestedAssertionFailed",
        "AssertionError",
        "SystemExit",
        "MachineError",
    ];
    let message = if plain.contains(&report.exception.as_str()) && !report.message.is_empty() {
        report.message
    } else if report.message.is_empty() {
        report.exception.clone()
    } else {
        format!("{}: {}", report.exception, report.message)
    };
    Failure {
        kind: if report.machinery {
            FailureKind::Machinery
        } else {
            FailureKind::Test
        },
        message,
        exception: Some(report.exception),
        traceback: report.traceback,
        frames: report.frames,
        command: report.command,
        also: Vec::new(),
    }
}

/// Adds what else went wrong: the last words of a unit that was waited for, and failed units.
async fn look_around(session: &Session, failure: &mut Failure) {
    let hub = session.hub();
    let words = server::missed_unit(hub, LAST_WORDS);
    if let Ok(words) = tokio::time::timeout(LAST_WORDS, words).await {
        failure.also.extend(words);
    }
    let looks = hub.all().into_iter().map(|(machine, _)| async move {
        let units = server::failed_units(hub, &machine, LOOK_AROUND).await;
        units
            .into_iter()
            .map(|unit| format!("{machine}: unit {unit} has failed"))
            .collect::<Vec<_>>()
    });
    let looks = futures_util::future::join_all(looks);
    if let Ok(found) = tokio::time::timeout(LOOK_AROUND, looks).await {
        failure.also.extend(found.into_iter().flatten());
    }
}

/// Stands still until somebody lets the test go on, or ends the session.
async fn pause(session: &Session, failure: &Failure, cancel: &Cancel) {
    tokio::select! {
        () = cancel.cancelled() => {}
        () = session.down_asked() => {}
        () = pause::stand_still(session.hub(), Some(failure.clone())) => {}
    }
}
