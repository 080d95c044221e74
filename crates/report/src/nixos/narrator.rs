//! From events to what is said of them.

use machinist_events::{Event, Level, Outcome, Stream, What, plain, plain_line, printed_line};

use super::{phrases, wrong};

/// How much of a command's output is told if it was to succeed and did not, in bytes.
const OUTPUT: usize = 64 << 10;

/// Something to show.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Entry {
    /// A line of the log, or a few.
    Line {
        machine: Option<String>,
        text: String,
        level: Level,
    },
    /// A line of a console.
    Serial { machine: String, text: String },
    /// A line that the script printed itself.
    Printed { stream: Stream, text: String },
    /// A line about a failure.
    Wrong { text: String },
    /// Something with a beginning and an end begins.
    Open {
        /// Unique.
        number: u64,
        machine: Option<String>,
        title: String,
    },
    /// It ends. Ends need not come in the order of beginnings.
    Close {
        number: u64,
        machine: Option<String>,
        title: String,
        seconds: f64,
        /// Nothing is said of the end of what failed: the failure is.
        ok: bool,
    },
}

/// What tells the beginnings of things apart.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Key {
    /// A command or a wait.
    Id(u64),
    /// A part of the log.
    Section(Option<String>, String),
    /// A part of the test.
    Subtest(String),
    /// All of it.
    Test,
}

/// Something that has begun and not ended.
#[derive(Debug)]
struct Begun {
    number: u64,
    key: Key,
    machine: Option<String>,
    title: String,
    /// The exit status that it must have.
    wanted: Option<Wanted>,
    output: String,
}

/// The exit status that a command must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Zero,
    NotZero,
}

impl Wanted {
    fn of(purpose: &str) -> Option<Self> {
        match purpose {
            "must succeed" => Some(Self::Zero),
            "must fail" => Some(Self::NotZero),
            _ => None,
        }
    }
}

/// Reads events in their order.
#[derive(Debug)]
pub(crate) struct Narrator {
    level: Level,
    consoles: bool,
    next: u64,
    begun: Vec<Begun>,
    /// The failure has been told, when the test paused.
    told: bool,
    /// Whether it takes root to attach.
    pub(crate) sudo: bool,
    /// Whether a person types, and no script runs to its end.
    pub(crate) interactive: bool,
}

impl Narrator {
    pub(crate) fn new(level: Level) -> Self {
        Self {
            level,
            consoles: true,
            next: 1,
            begun: Vec::new(),
            told: false,
            sudo: false,
            interactive: false,
        }
    }

    /// What an event comes to.
    pub(crate) fn read(&mut self, event: &Event) -> Vec<Entry> {
        let machine = event.machine.as_deref().map(plain_line);
        let machine = machine.as_deref();
        match &event.what {
            What::Console { line } => self.serial(machine, line),
            What::ConsolesShown { on } => {
                self.consoles = *on;
                Vec::new()
            }
            What::ScriptOutput { stream, line } => vec![Entry::Printed {
                stream: *stream,
                text: printed_line(line.as_bytes()),
            }],
            // What matters too little for this test is not sent: `log.log()` always matters.
            What::Log { text, level } => vec![line(machine, *level, text)],
            What::Warning { text } => {
                self.say(machine, Level::Warning, &format!("warning: {text}"))
            }
            What::CommandStarted { .. }
            | What::CommandOutput { .. }
            | What::CommandFinished { .. } => self.command(machine, &event.what),
            What::WaitStarted { .. } | What::WaitProgress { .. } | What::WaitFinished { .. } => {
                self.wait(machine, &event.what)
            }
            What::SectionStarted { .. }
            | What::SectionFinished { .. }
            | What::SubtestStarted { .. }
            | What::SubtestFinished { .. } => self.part(machine, &event.what),
            What::TestStarted if !self.interactive => {
                self.open(Key::Test, None, "run the VM test script", None)
            }
            What::TestPaused { .. } | What::TestResumed | What::TestFinished { .. } => {
                self.test(&event.what)
            }
            _ => self.life(machine, &event.what),
        }
    }

    /// A line of the log, unless it does not matter enough. What is said of a machine always does,
    /// unless it is for who looks for a mistake.
    pub(crate) fn say(&self, machine: Option<&str>, level: Level, text: &str) -> Vec<Entry> {
        let level_of_line = match (machine, level) {
            (Some(_), Level::Info) => Level::Error,
            _ => level,
        };
        if level_of_line < self.level {
            return Vec::new();
        }
        vec![line(machine, level, text)]
    }

    fn serial(&self, machine: Option<&str>, line: &str) -> Vec<Entry> {
        if !self.consoles {
            return Vec::new();
        }
        vec![Entry::Serial {
            machine: machine.unwrap_or("machine").to_owned(),
            text: printed_line(line.as_bytes()),
        }]
    }

    fn command(&mut self, machine: Option<&str>, what: &What) -> Vec<Entry> {
        match what {
            What::CommandStarted {
                id,
                command,
                purpose: Some(purpose),
            } => {
                let title = format!("{purpose}: {command}");
                self.open(Key::Id(*id), machine, &title, Wanted::of(purpose))
            }
            What::CommandOutput {
                id,
                stream: Stream::Stdout,
                line,
            } => {
                let begun = self
                    .begun
                    .iter_mut()
                    .find(|begun| begun.key == Key::Id(*id));
                if let Some(begun) = begun.filter(|begun| begun.wanted == Some(Wanted::Zero)) {
                    begun.keep(line);
                }
                Vec::new()
            }
            // In NixOS's guests standard error is the console.
            What::CommandOutput { line, .. } => self.serial(machine, line),
            What::CommandFinished {
                id,
                status,
                seconds,
            } => {
                let Some(begun) = self.take(|key| *key == Key::Id(*id)) else {
                    return Vec::new();
                };
                let ok = match begun.wanted {
                    Some(Wanted::Zero) => *status == 0,
                    Some(Wanted::NotZero) => *status != 0,
                    None => true,
                };
                let mut entries = Vec::new();
                if !ok && begun.wanted == Some(Wanted::Zero) {
                    let text = format!("output: {}", begun.output);
                    entries = self.say(machine, Level::Error, &text);
                }
                entries.push(begun.close(*seconds, ok));
                entries
            }
            _ => Vec::new(),
        }
    }

    fn wait(&mut self, machine: Option<&str>, what: &What) -> Vec<Entry> {
        match what {
            What::WaitStarted { id, what } => {
                self.open(Key::Id(*id), machine, &phrases::wait(what), None)
            }
            What::WaitProgress { id, state } => {
                let begun = self.begun.iter().find(|begun| begun.key == Key::Id(*id));
                begun.map_or(Vec::new(), |begun| {
                    self.say(machine, Level::Debug, &format!("{}: {state}", begun.title))
                })
            }
            What::WaitFinished { id, ok, seconds } => self.close(&Key::Id(*id), *seconds, *ok),
            _ => Vec::new(),
        }
    }

    fn part(&mut self, machine: Option<&str>, what: &What) -> Vec<Entry> {
        let section = |name: &str| Key::Section(machine.map(str::to_owned), name.to_owned());
        match what {
            What::SectionStarted { name } => self.open(section(name), machine, name, None),
            What::SectionFinished { name, seconds, ok } => {
                self.close(&section(name), *seconds, *ok)
            }
            What::SubtestStarted { name } => {
                let title = format!("subtest: {name}");
                self.open(Key::Subtest(name.clone()), machine, &title, None)
            }
            What::SubtestFinished {
                name,
                ok,
                seconds,
                message,
            } => {
                let mut entries = Vec::new();
                if !ok {
                    let message = message.as_deref().unwrap_or_default();
                    entries.extend(said_wrong(&format!(
                        "Test \"{name}\" failed with error: \"{message}\""
                    )));
                }
                entries.extend(self.close(&Key::Subtest(name.clone()), *seconds, *ok));
                entries
            }
            _ => Vec::new(),
        }
    }

    fn test(&mut self, what: &What) -> Vec<Entry> {
        match what {
            What::TestPaused {
                failure,
                attach,
                python,
                go_on,
            } => {
                let mut entries = Vec::new();
                if let Some(failure) = failure {
                    self.told = true;
                    entries.extend(
                        wrong::lines(failure)
                            .iter()
                            .flat_map(|line| said_wrong(line)),
                    );
                }
                let sudo = if self.sudo { "sudo " } else { "" };
                for (text, command) in [
                    ("Breakpoint reached. A shell in a machine", Some(attach)),
                    ("The Python prompt of the script", python.as_ref()),
                    ("To go on", Some(go_on)),
                ] {
                    if let Some(command) = command.filter(|command| !command.is_empty()) {
                        entries.extend(said_wrong(&format!("{text}: {sudo}{command}")));
                    }
                }
                entries
            }
            What::TestResumed => self.say(None, Level::Info, "the test goes on"),
            What::TestFinished {
                outcome,
                seconds,
                failure,
            } => {
                let mut entries = self.close(&Key::Test, *seconds, *outcome == Outcome::Passed);
                match outcome {
                    Outcome::Passed if !self.interactive => {
                        let text = format!("test script finished in {seconds:.2}s");
                        entries.extend(self.say(None, Level::Info, &text));
                    }
                    Outcome::TimedOut => {
                        let text = "timeout reached; test terminating...";
                        entries.extend(self.say(None, Level::Error, text));
                    }
                    Outcome::Passed | Outcome::Failed | Outcome::Error | Outcome::Interrupted => {}
                }
                if let Some(failure) = failure.as_ref().filter(|_| !self.told) {
                    entries.extend(
                        wrong::lines(failure)
                            .iter()
                            .flat_map(|line| said_wrong(line)),
                    );
                }
                entries
            }
            _ => Vec::new(),
        }
    }

    fn life(&mut self, machine: Option<&str>, what: &What) -> Vec<Entry> {
        let info = |text: &str| self.say(machine, Level::Info, text);
        match what {
            What::MachineStarting { backend, accel } => {
                let kind = if backend == "nspawn" {
                    "container"
                } else {
                    "vm"
                };
                let accel = accel.as_ref().map(|accel| format!(" ({accel})"));
                info(&format!("starting {kind}{}", accel.unwrap_or_default()))
            }
            What::MachineUp { seconds } => {
                let mut entries = info("connected to guest root shell");
                entries.extend(info(&format!("(connecting took {seconds:.2} seconds)")));
                entries
            }
            What::MachineRestored { seconds } => {
                info(&format!("restored from a snapshot ({seconds:.2} seconds)"))
            }
            What::SnapshotSaved { seconds } => {
                info(&format!("snapshot saved ({seconds:.2} seconds)"))
            }
            What::MachineCold { reason } => {
                info(&format!("not restored from a snapshot: {reason}"))
            }
            What::SnapshotDiscarded { reason } => {
                let text = format!("warning: the snapshot was thrown away: {reason}");
                self.say(machine, Level::Warning, &text)
            }
            What::MachineFailed { reason, last_words } => {
                let mut entries = self.say(machine, Level::Error, reason);
                // Who sees the consoles has seen them.
                for line in last_words.iter().filter(|_| !self.consoles) {
                    entries.extend(self.say(machine, Level::Error, line));
                }
                entries
            }
            What::AccelFallback { reason } => {
                let text = format!("warning: no hardware virtualization, emulating: {reason}");
                self.say(machine, Level::Warning, &text)
            }
            _ => Vec::new(),
        }
    }

    fn open(
        &mut self,
        key: Key,
        machine: Option<&str>,
        title: &str,
        wanted: Option<Wanted>,
    ) -> Vec<Entry> {
        let begun = Begun {
            number: self.next,
            key,
            machine: machine.map(str::to_owned),
            title: plain(title).into_owned(),
            wanted,
            output: String::new(),
        };
        self.next += 1;
        let entry = Entry::Open {
            number: begun.number,
            machine: begun.machine.clone(),
            title: begun.title.clone(),
        };
        self.begun.push(begun);
        vec![entry]
    }

    fn close(&mut self, key: &Key, seconds: f64, ok: bool) -> Vec<Entry> {
        let begun = self.take(|known| known == key);
        begun.map_or(Vec::new(), |begun| vec![begun.close(seconds, ok)])
    }

    /// The last one that began with such a key.
    fn take(&mut self, wanted: impl Fn(&Key) -> bool) -> Option<Begun> {
        let at = self.begun.iter().rposition(|begun| wanted(&begun.key))?;
        Some(self.begun.remove(at))
    }
}

impl Begun {
    fn keep(&mut self, line: &str) {
        if self.output.len() > OUTPUT {
            let half = self.output.ceil_char_boundary(OUTPUT / 2);
            self.output.replace_range(..half, "[...]\n");
        }
        self.output.push_str(line);
        self.output.push('\n');
    }

    fn close(self, seconds: f64, ok: bool) -> Entry {
        Entry::Close {
            number: self.number,
            machine: self.machine,
            title: self.title,
            seconds,
            ok,
        }
    }
}

fn line(machine: Option<&str>, level: Level, text: &str) -> Entry {
    Entry::Line {
        machine: machine.map(str::to_owned),
        text: plain(text).trim_end().to_owned(),
        level,
    }
}

/// Lines about a failure.
fn said_wrong(text: &str) -> Vec<Entry> {
    let text = plain(text);
    let mut lines: Vec<Entry> = text
        .lines()
        .map(|line| Entry::Wrong { text: line.into() })
        .collect();
    if lines.is_empty() {
        // A line between the frames and the error.
        lines.push(Entry::Wrong {
            text: String::new(),
        });
    }
    lines
}
