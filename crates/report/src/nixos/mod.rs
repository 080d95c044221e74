//! What users of NixOS tests know: the same lines on the terminal, the same XML log, the same JUnit
//! cases.
//!
//! ```text
//! Event -> Narrator -> Entry -> Lines      the terminal
//!                            -> XmlLog     the file that LOGFILE names
//!                            -> Cases      JUnit, a case for each subtest
//! ```

mod cases;
mod lines;
mod narrator;
mod phrases;
mod wrong;
mod xml;

use std::fs::File;
use std::io::{self, Write};

use machinist_events::{Event, Level};

use cases::Cases;
use lines::Lines;
pub(crate) use narrator::Entry;
use narrator::Narrator;
use xml::XmlLog;

use crate::JunitError;

/// Reads the events of a test that a NixOS test driver runs, and shows them as one.
#[derive(Debug)]
pub struct DriverReport {
    narrator: Narrator,
    lines: Option<Lines>,
    xml: Option<XmlLog<File>>,
    cases: Option<Cases>,
}

impl DriverReport {
    /// One that shows nothing. What matters less than `level` is left out everywhere.
    #[must_use]
    pub fn new(level: Level) -> Self {
        Self {
            narrator: Narrator::new(level),
            lines: None,
            xml: None,
            cases: None,
        }
    }

    /// Inside of a build: only root gets in there from outside, so the command lines that attach to a
    /// breakpoint begin with `sudo`.
    #[must_use]
    pub fn in_build(mut self, in_build: bool) -> Self {
        self.narrator.sudo = in_build;
        self
    }

    /// A person types: how long that took, and that all went well, is nothing to be told.
    #[must_use]
    pub fn interactive(mut self, interactive: bool) -> Self {
        self.narrator.interactive = interactive;
        self
    }

    /// With a terminal: what happens goes to `log`, what the script prints to `out`.
    #[must_use]
    pub fn with_terminal(
        mut self,
        log: impl Write + Send + 'static,
        out: impl Write + Send + 'static,
        colour: bool,
    ) -> Self {
        self.lines = Some(Lines::new(Box::new(log), Box::new(out), colour));
        self
    }

    /// With an XML log. The file is whole XML after every event, wherever the run is killed, unless
    /// it cannot be sought in.
    ///
    /// # Errors
    /// Those of the file.
    pub fn with_xml(mut self, file: File) -> io::Result<Self> {
        self.xml = Some(XmlLog::begin(file)?);
        Ok(self)
    }

    /// With what [`DriverReport::junit`] writes.
    #[must_use]
    pub fn with_junit(mut self) -> Self {
        self.cases = Some(Cases::default());
        self
    }

    /// Shows what an event means for a person.
    ///
    /// # Errors
    /// Those of the terminal. Files get the event all the same; theirs are told at the end.
    pub fn event(&mut self, event: &Event) -> io::Result<()> {
        let entries = self.narrator.read(event);
        if let Some(cases) = &mut self.cases {
            cases.event(event, &entries);
        }
        self.tell(&entries)
    }

    /// Says something that is no event of the session.
    ///
    /// # Errors
    /// As [`DriverReport::event`].
    pub fn say(&mut self, level: Level, text: &str) -> io::Result<()> {
        let entries = self.narrator.say(None, level, text);
        if let Some(cases) = &mut self.cases {
            cases.say(&entries);
        }
        self.tell(&entries)
    }

    fn tell(&mut self, entries: &[Entry]) -> io::Result<()> {
        if let Some(xml) = &mut self.xml {
            xml.tell(entries);
        }
        self.lines
            .as_mut()
            .map_or(Ok(()), |lines| lines.tell(entries))
    }

    /// Ends the XML log.
    ///
    /// # Errors
    /// Those of the file.
    pub fn finish(&mut self) -> io::Result<()> {
        self.xml.as_mut().map_or(Ok(()), XmlLog::end)
    }

    /// Writes the JUnit report, if there is one.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn junit(&mut self, out: impl Write) -> Result<(), JunitError> {
        let cases = self.cases.take();
        cases.map_or(Ok(()), |cases| cases.write(out))
    }
}
