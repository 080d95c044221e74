//! What is shown of a driver's test, and where.

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use machinist_events::Level;
use machinist_report::DriverReport;
use machinist_session::{DriverJob, EventSink};

use super::breakpoint::Breakpoint;
use super::call::Call;
use crate::environment::DriverEnvironment;
use crate::error::CliError;

/// Shows a test on the terminal, in the XML log, and as JUnit.
pub struct Shown {
    readers: Arc<Mutex<Readers>>,
    junit: Option<PathBuf>,
}

struct Readers {
    report: DriverReport,
    breakpoint: Breakpoint,
}

fn locked(readers: &Mutex<Readers>) -> MutexGuard<'_, Readers> {
    readers.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shown {
    /// Begins to show.
    pub fn begin(
        call: &Call,
        job: &DriverJob,
        environment: &DriverEnvironment,
    ) -> Result<Self, CliError> {
        let stderr = io::stderr();
        let colour = anstream::AutoStream::choice(&stderr) != anstream::ColorChoice::Never;
        let mut report = DriverReport::new(call.level)
            .in_build(environment.in_build)
            .interactive(job.interactive)
            .with_terminal(stderr, io::stdout(), colour);
        if let Some(path) = &environment.logfile {
            let cannot = |error| {
                let context = format!("cannot write LOGFILE {}", path.display());
                CliError::machinery(error).context(context)
            };
            let file = File::create(path).map_err(cannot)?;
            report = report.with_xml(file).map_err(cannot)?;
        }
        let junit = call.junit.as_ref().map(|path| job.out_dir.join(path));
        if junit.is_some() {
            report = report.with_junit();
        }
        let breakpoint = Breakpoint::new(call.debug_hook.clone(), &environment.common);
        Ok(Self {
            readers: Arc::new(Mutex::new(Readers { report, breakpoint })),
            junit,
        })
    }

    /// Gets the events.
    pub fn sink(&self) -> EventSink {
        let readers = Arc::clone(&self.readers);
        Arc::new(move |event| {
            let mut readers = locked(&readers);
            let said = readers.breakpoint.event(event);
            // A terminal that is gone ends no test.
            drop(readers.report.event(event));
            if let Some(said) = said {
                drop(readers.report.say(Level::Error, &said));
            }
        })
    }

    /// Says something that no event tells.
    pub fn say(&self, text: &str) {
        drop(locked(&self.readers).report.say(Level::Info, text));
    }

    /// Ends the XML log, and writes the JUnit report.
    pub fn finish(&self) -> Result<(), CliError> {
        let mut readers = locked(&self.readers);
        readers.breakpoint.end();
        let ended = readers.report.finish();
        if let Some(path) = &self.junit {
            write_junit(&mut readers.report, path)?;
        }
        ended.map_err(|error| CliError::machinery(error).context("cannot write LOGFILE"))
    }
}

fn write_junit(report: &mut DriverReport, path: &Path) -> Result<(), CliError> {
    let cannot = || format!("cannot write {}", path.display());
    let file = path.parent().map_or(Ok(()), std::fs::create_dir_all);
    let file = file.and_then(|()| File::create(path));
    let file = file.map_err(|error| CliError::machinery(error).context(cannot()))?;
    report
        .junit(BufWriter::new(file))
        .map_err(|error| CliError::machinery(error).context(cannot()))
}
