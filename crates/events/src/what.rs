//! The kinds of happenings.

use serde::{Deserialize, Serialize};

use crate::Failure;

/// One of a command's two output streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stream {
    /// File descriptor 1.
    Stdout,
    /// File descriptor 2.
    Stderr,
}

/// How much a line of the script's log matters.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// For who looks for a mistake.
    Debug,
    /// As it goes on.
    #[default]
    Info,
    /// It should not be overlooked.
    Warning,
    /// Something is wrong.
    Error,
}

impl Level {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_yes(value: &bool) -> bool {
    *value
}

/// How a test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Everything held.
    Passed,
    /// Something that the test asked for did not hold.
    Failed,
    /// The machinery failed: a machine did not boot, an agent was lost, a VMM died.
    Error,
    /// The test's own time limit passed.
    TimedOut,
    /// The user ended the run.
    Interrupted,
}

/// Why a test was not run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkipReason {
    /// What the host lacks, or what the user chose, as one sentence.
    pub text: String,
}

/// What happened. Durations are in seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum What {
    /// A session began; `lab` is the file it was read from.
    SessionStarted {
        /// The session's name, unique on this host.
        session: String,
        /// machinist's version.
        version: String,
    },
    /// A session ended, and all that it held is gone.
    SessionFinished,
    /// An image is about to be built (it was not in the cache).
    ImageStarted {
        /// The image, as the lab names it.
        image: String,
    },
    /// A build step of an image began, such as `packages` or `erofs`.
    ImageStep {
        /// The image, as the lab names it.
        image: String,
        /// The step, a few words.
        step: String,
    },
    /// An image is ready.
    ImageFinished {
        /// The image, as the lab names it.
        image: String,
        /// How long the build took.
        seconds: f64,
    },
    /// A machine is being started.
    MachineStarting {
        /// What runs it: `qemu` or `nspawn`.
        backend: String,
        /// `kvm` or `tcg` for a VM.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        accel: Option<String>,
    },
    /// Hardware virtualization did not work, and the machine starts once more without.
    AccelFallback {
        /// What was seen, one sentence.
        reason: String,
    },
    /// A VM was restored from its snapshot instead of being booted.
    MachineRestored {
        /// Since the start was asked for.
        seconds: f64,
    },
    /// A VM has booted to its ready point and was saved, so that later starts restore it.
    SnapshotSaved {
        /// How long saving took, the boot not counted.
        seconds: f64,
    },
    /// A snapshot could not be restored, and was thrown away: the VM boots.
    SnapshotDiscarded {
        /// What was wrong with it, one sentence.
        reason: String,
    },
    /// A VM boots that would have been restored, or saved, elsewhere.
    MachineCold {
        /// Why, as half a sentence.
        reason: String,
    },
    /// A machine's agent answers.
    MachineUp {
        /// Since the start was asked for.
        seconds: f64,
    },
    /// A machine's system says that its start has finished.
    MachineReady {
        /// Since the start was asked for.
        seconds: f64,
    },
    /// A machine is off, because somebody wanted that.
    MachineStopped,
    /// A machine died, or could not be started.
    MachineFailed {
        /// What was seen, one sentence.
        reason: String,
        /// The end of its console, and of its VMM's own output.
        last_words: Vec<String>,
    },
    /// One line of a machine's console, without control sequences.
    Console {
        /// The line, without its end.
        line: String,
    },
    /// A command was given to a machine.
    CommandStarted {
        /// Unique in the session.
        id: u64,
        /// As the script wrote it.
        command: String,
        /// What the script expects of it, such as `must succeed`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        purpose: Option<String>,
    },
    /// One line that a command printed.
    CommandOutput {
        /// The command.
        id: u64,
        /// Where it printed it.
        stream: Stream,
        /// The line, without its end and without control sequences.
        line: String,
    },
    /// A command ended.
    CommandFinished {
        /// The command.
        id: u64,
        /// Exit status as a shell gives it: 128 + n for signal n, 124 for a time-out.
        status: i32,
        /// How long it ran.
        seconds: f64,
    },
    /// Somebody began to wait for something.
    WaitStarted {
        /// Unique in the session, from the same numbers as commands.
        id: u64,
        /// What for, such as `unit nginx.service`.
        what: String,
    },
    /// What a wait sees right now, said when it changes, or while it is slow.
    WaitProgress {
        /// The wait.
        id: u64,
        /// Such as `activating, 12 s`.
        state: String,
    },
    /// A wait ended.
    WaitFinished {
        /// The wait.
        id: u64,
        /// Whether it came true.
        ok: bool,
        /// How long it took.
        seconds: f64,
    },
    /// The script says something.
    Log {
        /// One or more lines.
        text: String,
        /// How much it matters.
        #[serde(default, skip_serializing_if = "Level::is_default")]
        level: Level,
    },
    /// A part of the script's log began that has a title, and is no part of the test. Parts may be
    /// nested.
    SectionStarted {
        /// The title.
        name: String,
    },
    /// The last part of this title, and of this machine, has ended.
    SectionFinished {
        /// The title.
        name: String,
        /// How long it took.
        seconds: f64,
        /// Whether it ended without an exception.
        #[serde(default = "yes", skip_serializing_if = "is_yes")]
        ok: bool,
    },
    /// From now on lines of consoles are shown, or are not.
    ConsolesShown {
        /// Which of the two.
        on: bool,
    },
    /// A part of a test began. Parts may be nested.
    SubtestStarted {
        /// As the script names it.
        name: String,
    },
    /// A part of a test ended.
    SubtestFinished {
        /// As the script names it.
        name: String,
        /// Whether it ended without an exception.
        ok: bool,
        /// How long it took.
        seconds: f64,
        /// What went wrong, where something did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
    },
    /// A test was not run.
    TestSkipped(SkipReason),
    /// A test began.
    TestStarted,
    /// A test stands still, at a failure or because its script asks for that, until somebody lets
    /// it go on.
    TestPaused {
        /// What went wrong, where something did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failure: Option<Failure>,
        /// The command line that gives a shell in one of its machines.
        attach: String,
        /// The command line that gives a Python prompt in its script, where there is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        python: Option<String>,
        /// The command line that lets it go on.
        #[serde(default)]
        go_on: String,
    },
    /// A test that stood still goes on.
    TestResumed,
    /// A test ended.
    TestFinished {
        /// How.
        outcome: Outcome,
        /// How long it took, machines included.
        seconds: f64,
        /// What went wrong, unless it passed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failure: Option<Failure>,
    },
    /// A line that a test's script printed itself.
    ScriptOutput {
        /// Where it printed it.
        stream: Stream,
        /// The line, without its end.
        line: String,
    },
    /// Something that the user should know, but that fails nothing.
    Warning {
        /// One sentence.
        text: String,
    },
}
