//! What a person sees while tests run.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use anstyle::Style;
use machinist_events::{Event, Failure, Outcome, Stream, What, plain, plain_line};

use crate::bars::Bars;
use crate::failure::{FailureReport, Hint};
use crate::machine;
use crate::paint::{BAD, FAINT, GOOD, NAME, ODD, Paint, STRONG, seconds};
use crate::state::{Counts, Running};

/// After so many seconds a test is called slow.
const SLOW: f64 = 60.0;

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// A bar for each running test, drawn over and over: for a terminal.
    Bar,
    /// Lines, none of which changes.
    Plain,
    /// Nothing until a test has ended.
    None,
}

/// How the terminal is.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How progress is shown. What `auto` comes to is the caller's to find out.
    pub progress: Progress,
    /// Columns; 0 where lines have no end.
    pub width: u16,
    /// Whether it shows colours.
    pub colour: bool,
    /// Whether consoles, commands and their output are shown as they come.
    pub verbose: bool,
}

/// What is known at the end of a run, and of no single test.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// How long the run took, in seconds.
    pub seconds: f64,
    /// Tests that were to run but did not, since the run was ended.
    pub not_run: usize,
    /// Where to look, or what to do next.
    pub hints: Vec<Hint>,
}

/// Gives the hints for a failed test, by its name.
type Hints = Box<dyn Fn(&str) -> Vec<Hint> + Send>;

/// Writes events to a terminal, or to what stands for one.
pub struct Terminal<W> {
    out: Arc<Mutex<W>>,
    options: Options,
    paint: Paint,
    hints: Hints,
    bars: Option<Bars>,
    running: BTreeMap<String, Running>,
    counts: Counts,
    bad: Vec<(Outcome, String)>,
}

impl<W> std::fmt::Debug for Terminal<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("Terminal");
        debug
            .field("options", &self.options)
            .field("counts", &self.counts);
        debug.finish_non_exhaustive()
    }
}

impl<W: Write + Send + 'static> Terminal<W> {
    /// A terminal that writes to `out`.
    pub fn new(out: W, options: Options) -> Self {
        let out = Arc::new(Mutex::new(out));
        let bars = (options.progress == Progress::Bar)
            .then(|| Bars::new(Arc::clone(&out), options.width, options.colour));
        Self {
            out,
            options,
            paint: Paint {
                colour: options.colour,
            },
            hints: Box::new(|_| Vec::new()),
            bars,
            running: BTreeMap::new(),
            counts: Counts::default(),
            bad: Vec::new(),
        }
    }

    /// With what to say at the end of a failed test's report, asked by the test's name.
    #[must_use]
    pub fn with_hints(mut self, hints: impl Fn(&str) -> Vec<Hint> + Send + 'static) -> Self {
        self.hints = Box::new(hints);
        self
    }

    /// How many tests ended how so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Shows what an event means for a person.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn event(&mut self, event: &Event) -> io::Result<()> {
        let test = event.test.as_deref().unwrap_or("").to_owned();
        let running = self.running.entry(test.clone()).or_default();
        running.read(event);
        if matches!(event.what, What::TestStarted) {
            running.started = Some(event.elapsed);
        }
        match &event.what {
            What::TestFinished {
                outcome,
                seconds,
                failure,
            } => self.finished(&test, *outcome, *seconds, failure.as_ref())?,
            What::TestSkipped(reason) => {
                self.counts.skipped += 1;
                let reason = format!("({})", plain_line(&reason.text));
                let line = format!("{} {}", plain_line(&test), self.paint.paint(FAINT, &reason));
                self.status(ODD, "SKIP", "", &line)?;
                self.end(&test);
            }
            What::TestPaused {
                failure,
                attach,
                python,
                go_on,
            } => {
                let hints = [
                    Some(("attach", attach)),
                    python.as_ref().map(|python| ("python", python)),
                    Some(("continue", go_on)),
                ];
                self.paused(&test, event, failure.as_ref(), hints)?;
            }
            what => {
                if let Some(text) = machine::warning(what) {
                    self.status(ODD, "WARNING", "", &about(event, &text))?;
                } else if self.options.verbose {
                    self.verbose(event)?;
                }
                self.progress(event)?;
            }
        }
        self.slow(&test, event)?;
        self.show(&test, event)
    }

    /// Lets the bars move on. Call it about ten times a second.
    pub fn tick(&mut self) {
        if let Some(bars) = &self.bars {
            bars.tick();
        }
    }

    /// Takes the bars away and says how it all went.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn finish(&mut self, summary: &Summary) -> io::Result<()> {
        if let Some(bars) = &mut self.bars {
            bars.clear()?;
        }
        self.bars = None;
        let counts = self.counts;
        let good = self.bad.is_empty() && summary.not_run == 0;
        let mut parts = vec![format!("{} passed", counts.passed)];
        for (number, word) in [
            (counts.failed, "failed"),
            (counts.errors, "with errors"),
            (counts.timed_out, "timed out"),
            (counts.interrupted, "interrupted"),
            (counts.skipped, "skipped"),
            (summary.not_run, "not run"),
        ] {
            if number > 0 {
                parts.push(format!("{number} {word}"));
            }
        }
        let tests = if counts.run() == 1 { "test" } else { "tests" };
        let text = format!("{} {tests} run: {}", counts.run(), parts.join(", "));
        self.line(&self.paint.paint(FAINT, "────────────"))?;
        let style = if good { GOOD } else { BAD };
        self.status(style, "Summary", &clock(summary.seconds), &text)?;
        for (outcome, name) in std::mem::take(&mut self.bad) {
            let (style, word) = word(outcome);
            self.status(style, word, "", &name)?;
        }
        for hint in &summary.hints {
            self.status(STRONG, &hint.label, "", &plain_line(&hint.text))?;
        }
        self.lock().flush()
    }

    fn finished(
        &mut self,
        test: &str,
        outcome: Outcome,
        seconds: f64,
        failure: Option<&Failure>,
    ) -> io::Result<()> {
        self.counts.add(outcome);
        let (style, word) = word(outcome);
        self.status(style, word, &clock(seconds), &plain_line(test))?;
        if outcome != Outcome::Passed {
            self.bad.push((outcome, plain_line(test).into_owned()));
        }
        let reported = self
            .running
            .get(test)
            .is_some_and(|running| running.reported);
        if let Some(failure) = failure.filter(|_| !reported) {
            let hints = (self.hints)(test);
            self.report(test, seconds, failure, &hints)?;
        }
        self.end(test);
        Ok(())
    }

    fn paused(
        &mut self,
        test: &str,
        event: &Event,
        failure: Option<&Failure>,
        hints: [Option<(&str, &String)>; 3],
    ) -> io::Result<()> {
        let since = self.running.get_mut(test).map_or(0.0, |running| {
            running.reported |= failure.is_some();
            running.started.unwrap_or_default()
        });
        self.status(ODD, "PAUSED", "", &plain_line(test))?;
        let mut hints: Vec<Hint> = hints
            .into_iter()
            .flatten()
            .filter(|(_, text)| !text.is_empty())
            .map(|(label, text)| Hint {
                label: label.to_owned(),
                text: text.clone(),
            })
            .collect();
        let Some(failure) = failure else {
            for hint in &hints {
                self.status(ODD, &hint.label, "", &plain_line(&hint.text))?;
            }
            return Ok(());
        };
        hints.extend((self.hints)(test));
        self.report(test, event.elapsed - since, failure, &hints)
    }

    fn report(
        &mut self,
        test: &str,
        seconds: f64,
        failure: &Failure,
        hints: &[Hint],
    ) -> io::Result<()> {
        let none = Running::default();
        let report = FailureReport {
            test,
            seconds,
            failure,
            running: self.running.get(test).unwrap_or(&none),
            hints,
            paint: self.paint,
            width: usize::from(self.options.width),
        };
        let lines = report.lines();
        lines.iter().try_for_each(|line| self.line(line))
    }

    fn end(&mut self, test: &str) {
        self.running.remove(test);
        if let Some(bars) = &mut self.bars {
            bars.remove(test);
        }
    }

    /// Says once of a test that it takes long, and what it waits for.
    fn slow(&mut self, test: &str, event: &Event) -> io::Result<()> {
        let Some(running) = self.running.get_mut(test) else {
            return Ok(());
        };
        let is_slow = |started: f64| event.elapsed - started >= SLOW;
        if running.slow || !running.started.is_some_and(is_slow) {
            return Ok(());
        }
        running.slow = true;
        let busy = running
            .busy()
            .map(|busy| format!(" ({busy})"))
            .unwrap_or_default();
        let line = format!("{}{}", plain_line(test), self.paint.paint(FAINT, &busy));
        self.status(ODD, "SLOW", &format!("[>{SLOW:>8.3}s]"), &line)
    }

    /// Brings the test's bar up to date.
    fn show(&mut self, test: &str, event: &Event) -> io::Result<()> {
        let (Some(bars), Some(running)) = (&mut self.bars, self.running.get(test)) else {
            return Ok(());
        };
        let busy = running.busy();
        if running.started.is_none() && busy.is_none() {
            bars.remove(test);
        } else if !matches!(event.what, What::SessionFinished) {
            bars.show(&plain_line(test), busy.as_deref().unwrap_or("running"));
        }
        Ok(())
    }

    /// What plain progress says of an event; with bars, the bars say it.
    fn progress(&mut self, event: &Event) -> io::Result<()> {
        if self.options.progress == Progress::None {
            return Ok(());
        }
        let bars = self.options.progress == Progress::Bar;
        if !bars {
            let test = event.test.as_deref().unwrap_or("");
            let untold = self.running.get_mut(test);
            for text in untold.map_or(Vec::new(), |test| test.untold(event.elapsed)) {
                self.status(FAINT, "Waiting", "", &text)?;
            }
        }
        match &event.what {
            What::ImageFinished { image, seconds } => self.status(
                STRONG,
                "Built",
                &clock(*seconds),
                &format!("image {}", plain_line(image)),
            ),
            What::Log { text, .. } => self.prefixed(event, text),
            What::ScriptOutput { line, .. } => self.prefixed(event, line),
            _ if bars => Ok(()),
            What::ImageStarted { image } => self.status(
                STRONG,
                "Building",
                "",
                &format!("image {}", plain_line(image)),
            ),
            What::ImageStep { image, step } => self.status(
                FAINT,
                "Building",
                "",
                &plain_line(&format!("image {image}: {step}")),
            ),
            What::TestStarted => {
                let test = event.test.clone().unwrap_or_default();
                self.status(STRONG, "Running", "", &plain_line(&test))
            }
            What::MachineFailed { reason, .. } => {
                self.status(BAD, "Machine", "", &about(event, reason))
            }
            what => {
                let test = event.test.as_deref().unwrap_or("");
                let running = self.running.get(test);
                let restored = running.is_some_and(|it| it.was_restored(event));
                match machine::start(what, restored) {
                    Some(text) => self.status(FAINT, "Machine", "", &about(event, &text)),
                    None => Ok(()),
                }
            }
        }
    }

    fn verbose(&mut self, event: &Event) -> io::Result<()> {
        let text = match &event.what {
            What::Console { line } => line.clone(),
            What::CommandStarted { command, .. } => format!("$ {command}"),
            What::CommandOutput { stream, line, .. } => match stream {
                Stream::Stdout => format!("| {line}"),
                Stream::Stderr => format!("! {line}"),
            },
            What::CommandFinished {
                status,
                seconds: took,
                ..
            } => {
                format!("exit status {status} after {}", seconds(*took))
            }
            What::WaitStarted { what, .. } => format!("waiting for {what}"),
            What::WaitFinished {
                ok, seconds: took, ..
            } => {
                let end = if *ok {
                    "came true"
                } else {
                    "did not come true"
                };
                format!("{end} after {}", seconds(*took))
            }
            What::MachineReady { seconds: took } => format!("ready after {}", seconds(*took)),
            What::MachineStopped => "off".to_owned(),
            What::SubtestStarted { name } => format!("subtest: {name}"),
            What::SectionStarted { name } => name.clone(),
            What::SubtestFinished {
                name,
                ok,
                seconds: took,
                ..
            } => {
                let end = if *ok { "passed" } else { "failed" };
                format!("subtest: {name} {end} after {}", seconds(*took))
            }
            _ => return Ok(()),
        };
        self.prefixed(event, &text)
    }

    /// Each line with who it is of in front.
    fn prefixed(&mut self, event: &Event, text: &str) -> io::Result<()> {
        let who = event
            .machine
            .as_deref()
            .or(event.test.as_deref())
            .unwrap_or("machinist");
        let who = self.paint.paint(NAME, &plain_line(who));
        for line in plain(text).lines() {
            self.line(&format!("{who}: {}", plain_line(line)))?;
        }
        Ok(())
    }

    /// A status word, right-aligned, and what it is about.
    fn status(&mut self, style: Style, word: &str, time: &str, text: &str) -> io::Result<()> {
        let word = self.paint.paint(style, &format!("{word:>12}"));
        let gap = if time.is_empty() { "" } else { " " };
        self.line(&format!("{word} {time}{gap}{text}"))
    }

    fn line(&self, line: &str) -> io::Result<()> {
        match &self.bars {
            Some(bars) => bars.print(line),
            None => writeln!(self.lock(), "{line}"),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, W> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `machine: text`, harmless and on one line.
fn about(event: &Event, text: &str) -> String {
    let text = plain_line(text);
    match &event.machine {
        Some(machine) => format!("{}: {text}", plain_line(machine)),
        None => text.into_owned(),
    }
}

/// `[   3.214s]`.
fn clock(seconds: f64) -> String {
    format!("[{seconds:>9.3}s]")
}

fn word(outcome: Outcome) -> (Style, &'static str) {
    match outcome {
        Outcome::Passed => (GOOD, "PASS"),
        Outcome::Failed => (BAD, "FAIL"),
        Outcome::Error => (BAD, "ERROR"),
        Outcome::TimedOut => (BAD, "TIMEOUT"),
        Outcome::Interrupted => (ODD, "INTERRUPTED"),
    }
}
