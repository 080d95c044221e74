//! What is going on, as far as the events tell.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use machinist_events::{Event, Outcome, What, plain_line};

/// How many lines of each machine's console are kept for a failure.
const KEPT: usize = 30;

/// How many tests ended how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Everything held.
    pub passed: usize,
    /// Something that the test asked for did not hold.
    pub failed: usize,
    /// The machinery failed.
    pub errors: usize,
    /// The test's own time limit passed.
    pub timed_out: usize,
    /// Not run.
    pub skipped: usize,
    /// Ended by the user.
    pub interrupted: usize,
}

impl Counts {
    /// How many began and ended.
    #[must_use]
    pub fn run(&self) -> usize {
        self.passed + self.failed + self.errors + self.timed_out + self.interrupted
    }

    pub(crate) fn add(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Passed => self.passed += 1,
            Outcome::Failed => self.failed += 1,
            Outcome::Error => self.errors += 1,
            Outcome::TimedOut => self.timed_out += 1,
            Outcome::Interrupted => self.interrupted += 1,
        }
    }
}

/// A line of a console, for later.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) elapsed: f64,
    pub(crate) machine: String,
    pub(crate) text: String,
}

/// Something that has begun and not ended.
#[derive(Debug, Clone)]
struct Activity {
    since: f64,
    text: String,
    state: String,
    /// Whether lines say that it is in this state.
    told: bool,
}

/// What is over sooner is not worth a line, in seconds.
const WORTH_A_LINE: f64 = 1.0;

/// A test that runs, or, under the name "", what happens outside of tests.
#[derive(Debug, Default)]
pub(crate) struct Running {
    /// By the session's clock; none where it has not begun, or has ended and something of it is heard of late.
    pub(crate) started: Option<f64>,
    pub(crate) slow: bool,
    /// Its failure has been shown already, when it paused.
    pub(crate) reported: bool,
    activities: BTreeMap<u64, Activity>,
    booting: BTreeMap<String, (f64, &'static str)>,
    /// Machines whose last start was a restore.
    restored: BTreeSet<String>,
    image: Option<(String, String)>,
    consoles: BTreeMap<String, VecDeque<Line>>,
}

impl Running {
    pub(crate) fn read(&mut self, event: &Event) {
        let machine = plain_line(event.machine.as_deref().unwrap_or_default()).into_owned();
        match &event.what {
            What::ImageStarted { image } => self.image = Some((image.clone(), String::new())),
            What::ImageStep { image, step } => self.image = Some((image.clone(), step.clone())),
            What::ImageFinished { .. } => self.image = None,
            What::MachineStarting { .. } => {
                self.restored.remove(&machine);
                self.booting.insert(machine, (event.elapsed, "booting"));
            }
            What::SnapshotSaved { .. } => {
                if let Some((_, state)) = self.booting.get_mut(&machine) {
                    *state = "going on from its snapshot";
                }
            }
            What::MachineRestored { .. } => {
                self.restored.insert(machine);
            }
            What::MachineUp { .. } => {
                // Up but not ready: its services still start.
                if let Some((_, state)) = self.booting.get_mut(&machine) {
                    *state = "starting services";
                }
            }
            What::MachineReady { .. } | What::MachineStopped | What::MachineFailed { .. } => {
                self.booting.remove(&machine);
                if let What::MachineFailed { last_words, .. } = &event.what {
                    for line in last_words {
                        self.keep(event.elapsed, &machine, line);
                    }
                }
            }
            What::Console { line } => self.keep(event.elapsed, &machine, line),
            What::CommandStarted { id, command, .. } => {
                self.begin(
                    *id,
                    event.elapsed,
                    format!("{machine}: {}", plain_line(command)),
                );
            }
            What::WaitStarted { id, what } => {
                let text = format!("{machine}: waiting for {}", plain_line(what));
                self.begin(*id, event.elapsed, text);
            }
            What::WaitProgress { id, state } => {
                if let Some(activity) = self.activities.get_mut(id) {
                    activity.state = plain_line(state).into_owned();
                    activity.told = false;
                }
            }
            What::CommandFinished { id, .. } | What::WaitFinished { id, .. } => {
                self.activities.remove(id);
            }
            _ => {}
        }
    }

    /// Whether the machine that an event is about was restored, and not booted.
    pub(crate) fn was_restored(&self, event: &Event) -> bool {
        let name = plain_line(event.machine.as_deref().unwrap_or_default());
        self.restored.contains(name.as_ref())
    }

    fn begin(&mut self, id: u64, since: f64, text: String) {
        let activity = Activity {
            since,
            text,
            state: String::new(),
            told: true,
        };
        self.activities.insert(id, activity);
    }

    /// The waits whose state lines have not said yet, and that take long enough for one.
    pub(crate) fn untold(&mut self, now: f64) -> Vec<String> {
        self.activities
            .values_mut()
            .filter(|activity| !activity.told && now - activity.since >= WORTH_A_LINE)
            .map(|activity| {
                activity.told = true;
                format!("{} ({})", activity.text, activity.state)
            })
            .collect()
    }

    fn keep(&mut self, elapsed: f64, machine: &str, line: &str) {
        let text = plain_line(line).trim_end().to_owned();
        if text.is_empty() {
            return;
        }
        let lines = self.consoles.entry(machine.to_owned()).or_default();
        // Last words repeat the end of the console.
        if lines
            .iter()
            .any(|old| old.text == text && elapsed - old.elapsed < 2.0)
        {
            return;
        }
        if lines.len() == KEPT {
            lines.pop_front();
        }
        lines.push_back(Line {
            elapsed,
            machine: machine.to_owned(),
            text,
        });
    }

    /// What it is busy with, in a few words; none if it is not known.
    pub(crate) fn busy(&self) -> Option<String> {
        if let Some((image, step)) = &self.image {
            let step = if step.is_empty() {
                String::new()
            } else {
                format!(": {}", plain_line(step))
            };
            return Some(format!("building image {}{step}", plain_line(image)));
        }
        if let Some(activity) = self
            .activities
            .values()
            .max_by(|a, b| a.since.total_cmp(&b.since))
        {
            let state = &activity.state;
            return Some(if state.is_empty() {
                activity.text.clone()
            } else {
                format!("{} ({state})", activity.text)
            });
        }
        let machines: Vec<String> = self
            .booting
            .iter()
            .map(|(machine, (_, state))| format!("{machine}: {state}"))
            .collect();
        (!machines.is_empty()).then(|| machines.join(", "))
    }

    /// The last lines of all machines by one clock, at most so many in all, and of no machine less
    /// than its share.
    pub(crate) fn last_lines(&self, most: usize) -> Vec<Line> {
        let share = most.checked_div(self.consoles.len()).unwrap_or(0).max(1);
        let mut lines: Vec<Line> = Vec::new();
        let mut rest: Vec<Line> = Vec::new();
        for console in self.consoles.values() {
            let (old, new) = console.as_slices();
            let all: Vec<&Line> = old.iter().chain(new).collect();
            let split = all.len().saturating_sub(share);
            lines.extend(all[split..].iter().map(|line| (*line).clone()));
            rest.extend(all[..split].iter().map(|line| (*line).clone()));
        }
        // What one machine leaves of its share is for the newest lines of the others.
        rest.sort_by(|a, b| b.elapsed.total_cmp(&a.elapsed));
        rest.truncate(most.saturating_sub(lines.len()));
        lines.extend(rest);
        lines.sort_by(|a, b| a.elapsed.total_cmp(&b.elapsed));
        let extra = lines.len().saturating_sub(most);
        lines.split_off(extra)
    }
}
