//! What is shown of events while a verb works. How an event reads is the report crate's matter;
//! here is only which events a verb shows, and where.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Stderr};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use machinist_events::{Event, What};
use machinist_report::{Hint, Junit, Options, Progress as Style, Summary, Terminal};
use machinist_session::{EventSink, Swept};

use crate::environment::is_build_log;
use crate::error::CliError;
use crate::ui;

/// How often bars move on.
const TICK: Duration = Duration::from_millis(100);

/// How tests are shown.
#[derive(Debug, Args)]
pub struct ProgressArgs {
    /// How to show what is going on
    #[arg(long, value_enum, default_value_t)]
    progress: ProgressArg,
    /// Show commands, their output, and the machines' consoles as they come
    #[arg(short, long)]
    verbose: bool,
}

/// `--progress`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum ProgressArg {
    /// Bars on a terminal, lines elsewhere and in Nix builds
    #[default]
    Auto,
    /// A bar for each running test
    Bar,
    /// Lines
    Plain,
    /// Results only
    None,
}

impl ProgressArg {
    fn style(self) -> Style {
        match self {
            Self::Auto if io::stderr().is_terminal() && !is_build_log() => Style::Bar,
            Self::Auto | Self::Plain => Style::Plain,
            Self::Bar => Style::Bar,
            Self::None => Style::None,
        }
    }
}

/// Where the events of tests go.
pub struct Plan<'a> {
    /// How they are shown.
    pub args: &'a ProgressArgs,
    /// The name of the suite, for JUnit.
    pub suite: String,
    /// The JUnit report.
    pub junit: Option<PathBuf>,
    /// Also as JSON lines on stdout.
    pub json: bool,
    /// The lab file, if the user named one.
    pub file: Option<PathBuf>,
    /// Where logs are kept, told at a failure.
    pub logs: Option<PathBuf>,
}

/// Shows tests, and collects them for JUnit.
pub struct Progress {
    readers: Arc<Mutex<Readers>>,
    junit: Option<PathBuf>,
    began: Instant,
    total: usize,
    ticking: tokio::task::JoinHandle<()>,
}

struct Readers {
    terminal: Terminal<Stderr>,
    junit: Junit,
    json: bool,
}

impl Readers {
    fn event(&mut self, event: &Event) {
        // A terminal that is gone ends no test.
        drop(self.terminal.event(event));
        self.junit.event(event);
        if self.json {
            ui::json_line(event);
        }
    }
}

fn locked(readers: &Mutex<Readers>) -> MutexGuard<'_, Readers> {
    readers.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Progress {
    /// Begins to show `total` tests. To be called inside the runtime.
    pub fn begin(plan: Plan<'_>, total: usize) -> Self {
        let options = options(plan.args.progress.style(), plan.args.verbose);
        let (file, logs) = (plan.file, plan.logs);
        let terminal = Terminal::new(io::stderr(), options)
            .with_hints(move |test| hints(test, file.as_deref(), logs.as_deref()));
        let readers = Arc::new(Mutex::new(Readers {
            terminal,
            junit: Junit::new(&plan.suite),
            json: plan.json,
        }));
        let ticking = tokio::spawn(tick(Arc::clone(&readers)));
        Self {
            readers,
            junit: plan.junit,
            began: Instant::now(),
            total,
            ticking,
        }
    }

    /// Gets the events.
    pub fn sink(&self) -> EventSink {
        let readers = Arc::clone(&self.readers);
        Arc::new(move |event| locked(&readers).event(event))
    }

    /// Gets an event that no session tells.
    pub fn tell(&self, event: &Event) {
        locked(&self.readers).event(event);
    }

    /// Says how all of it went, and writes the JUnit report.
    pub fn finish(self) -> Result<(), CliError> {
        self.ticking.abort();
        let mut readers = locked(&self.readers);
        let counts = readers.terminal.counts();
        let summary = Summary {
            seconds: self.began.elapsed().as_secs_f64(),
            not_run: self.total.saturating_sub(counts.run() + counts.skipped),
            hints: Vec::new(),
        };
        drop(readers.terminal.finish(&summary));
        let Some(path) = &self.junit else {
            return Ok(());
        };
        let junit = std::mem::replace(&mut readers.junit, Junit::new(""));
        let cannot = || format!("cannot write {}", path.display());
        let file =
            File::create(path).map_err(|error| CliError::machinery(error).context(cannot()))?;
        junit
            .finish(BufWriter::new(file))
            .map_err(|error| CliError::machinery(error).context(cannot()))
    }
}

async fn tick(readers: Arc<Mutex<Readers>>) {
    let mut interval = tokio::time::interval(TICK);
    loop {
        interval.tick().await;
        locked(&readers).terminal.tick();
    }
}

fn options(progress: Style, verbose: bool) -> Options {
    let stderr = io::stderr();
    let width = rustix::termios::tcgetwinsize(stderr.as_fd()).map_or(0, |size| size.ws_col);
    let colour = anstream::AutoStream::choice(&stderr) != anstream::ColorChoice::Never;
    Options {
        progress,
        width,
        colour,
        verbose,
    }
}

/// What to do about a failed test.
fn hints(test: &str, file: Option<&Path>, logs: Option<&Path>) -> Vec<Hint> {
    let hint = |label: &str, text: String| Hint {
        label: label.to_owned(),
        text,
    };
    let mut again = "machinist test".to_owned();
    if let Some(file) = file {
        again = format!("{again} -f {}", ui::quoted(&file.display().to_string()));
    }
    again = format!("{again} {}", ui::quoted(&format!("={test}")));
    let logs = match logs {
        Some(logs) => hint("logs", logs.display().to_string()),
        None => hint("logs", format!("{again} --logs DIR")),
    };
    vec![
        hint("again", again.clone()),
        hint("look", format!("{again} --on-failure pause")),
        logs,
    ]
}

/// Tells what earlier sessions had left behind.
pub fn swept(swept: &[Swept]) {
    for session in swept {
        let path = session.path.display();
        if session.left.is_empty() {
            ui::status(format_args!(
                "swept {path}, which a session had left behind"
            ));
        }
        for left in &session.left {
            ui::warning(format_args!("of {path} is left: {left}"));
        }
    }
}

/// Shows what makes the user wait for machines that run no test: builds above all. A command that
/// runs in a machine has the terminal for itself, so nothing more is said than needs to be.
pub struct Boot {
    terminal: Arc<Mutex<Option<Terminal<Stderr>>>>,
}

impl Boot {
    /// Begins to show.
    pub fn begin() -> Self {
        let style = ProgressArg::Auto.style();
        let terminal = Terminal::new(io::stderr(), options(style, false));
        Self {
            terminal: Arc::new(Mutex::new(Some(terminal))),
        }
    }

    /// Gets the events.
    pub fn sink(&self) -> EventSink {
        let terminal = Arc::clone(&self.terminal);
        let bars = ProgressArg::Auto.style() == Style::Bar;
        Arc::new(move |event| {
            let mut terminal = terminal.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(terminal) = terminal.as_mut()
                && (bars || matters(&event.what))
            {
                drop(terminal.event(event));
            }
        })
    }

    /// From now on the terminal is the command's.
    pub fn finish(&self) {
        let mut terminal = self.terminal.lock().unwrap_or_else(PoisonError::into_inner);
        *terminal = None;
    }
}

/// Whether somebody who only wants a command's output should see it.
fn matters(what: &What) -> bool {
    matches!(
        what,
        What::ImageStarted { .. }
            | What::ImageFinished { .. }
            | What::AccelFallback { .. }
            | What::SnapshotDiscarded { .. }
            | What::Warning { .. }
    )
}

/// An event as one line of a log; none for what says nothing to people.
pub fn line(event: &Event) -> Option<String> {
    let text = match &event.what {
        What::Console { line } | What::ScriptOutput { line, .. } => line.clone(),
        What::CommandOutput { line, .. } => format!("| {line}"),
        What::CommandStarted { command, .. } => format!("$ {command}"),
        What::CommandFinished {
            status, seconds, ..
        } => {
            format!("exit status {status} after {seconds:.3} s")
        }
        What::Log { text, .. } | What::Warning { text } => text.clone(),
        What::MachineStarting { backend, .. } => format!("starting by {backend}"),
        What::MachineUp { seconds } => format!("up after {seconds:.3} s"),
        What::MachineRestored { seconds } => {
            format!("restored from its snapshot in {seconds:.3} s")
        }
        What::SnapshotSaved { seconds } => format!("its snapshot was saved in {seconds:.3} s"),
        What::SnapshotDiscarded { reason } => {
            format!("its snapshot was thrown away, it boots: {reason}")
        }
        What::MachineCold { reason } => format!("boots: {reason}"),
        What::MachineReady { seconds } => format!("ready after {seconds:.3} s"),
        What::MachineStopped => "off".to_owned(),
        What::MachineFailed { reason, .. } => reason.clone(),
        What::AccelFallback { reason } => format!("emulating: {reason}"),
        What::WaitStarted { what, .. } => format!("waiting for {what}"),
        What::WaitProgress { state, .. } => state.clone(),
        What::ImageStarted { image } => format!("building image {image}"),
        What::ImageStep { image, step } => format!("image {image}: {step}"),
        What::ImageFinished { image, seconds } => format!("built image {image} in {seconds:.1} s"),
        What::SubtestStarted { name } => format!("subtest: {name}"),
        What::SectionStarted { name } => name.clone(),
        What::TestPaused { attach, .. } => format!("the test stands still: {attach}"),
        What::TestResumed => "the test goes on".to_owned(),
        _ => return None,
    };
    let who = event.machine.as_deref().unwrap_or("machinist");
    Some(format!(
        "{:>9.3} {who}: {}",
        event.elapsed,
        machinist_events::plain_line(&text)
    ))
}
