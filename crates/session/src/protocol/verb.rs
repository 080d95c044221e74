//! What a client asks.

use std::collections::BTreeMap;
use std::path::PathBuf;

use machinist_events::Level;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Command, Data, Pty, ScriptKind, ScriptReport, Until};

/// One line from a client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The client's own number for it, unique among those that have no end yet.
    pub id: u64,
    /// What is asked.
    #[serde(rename = "do")]
    pub verb: Verb,
}

/// What a client can ask for. Times are in seconds; a timeout that is left out is no limit. The
/// answer (`ok`) is named where it is more than `null`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Verb {
    /// The session and its machines: [`super::Status`].
    Status,
    /// Begins to start machines, all where none is named. With `wait` it ends when they are up.
    Start {
        /// Their names.
        #[serde(default)]
        machines: Vec<String>,
        /// Whether to wait until their agents answer.
        #[serde(default)]
        wait: bool,
        /// Whether a restart of the machine's own is one. Otherwise it switches the machine off.
        /// Left out: machines of a lab may restart, those of start scripts may not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        allow_reboot: Option<bool>,
    },
    /// Asks a machine's system to power off and waits until it has.
    Shutdown {
        /// The machine.
        machine: String,
        /// After which it is an error.
        #[serde(default)]
        timeout: Option<f64>,
    },
    /// Cuts a machine's power.
    Crash {
        /// The machine.
        machine: String,
    },
    /// Starts a running machine's system anew.
    Reboot {
        /// The machine.
        machine: String,
    },
    /// Waits until a machine is off.
    WaitShutdown {
        /// The machine.
        machine: String,
        /// After which it is an error.
        #[serde(default)]
        timeout: Option<f64>,
    },
    /// Waits until a machine's system says that its start has finished. Starts the machine.
    WaitReady {
        /// The machine.
        machine: String,
        /// After which it is an error.
        #[serde(default)]
        timeout: Option<f64>,
    },
    /// Runs a command to its end: [`super::Executed`]. Starts the machine, as all verbs below do.
    Execute {
        /// The machine.
        machine: String,
        /// The command.
        command: Command,
        /// End at once, with status -2, and leave the command running.
        #[serde(default, skip_serializing_if = "is_false")]
        detach: bool,
        /// What is wanted of it, such as `must succeed`: said in the log, before the command.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        purpose: Option<String>,
    },
    /// Repeats a command until it ends as wanted: [`super::Executed`] of the last time.
    Retry {
        /// The machine.
        machine: String,
        /// The command. Its own timeout is for one time.
        command: Command,
        /// How it has to end.
        until: Until,
        /// What is wanted of it, such as `waiting for success`. The log says it anyway.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        purpose: Option<String>,
        /// After which one last time is tried, and then it is an error.
        #[serde(default)]
        timeout: Option<f64>,
    },
    /// Runs a command whose output comes in parts, and that takes input:
    /// parts `started`, `stdout` and `stderr`; [`super::Executed`] without output.
    Spawn {
        /// The machine.
        machine: String,
        /// The command.
        command: Command,
    },
    /// Gives input to a spawned command.
    Send {
        /// The id of the request that spawned it, on this connection.
        of: u64,
        /// The input.
        data: Data,
    },
    /// Ends a spawned command's input.
    CloseInput {
        /// The id of the request that spawned it, on this connection.
        of: u64,
    },
    /// Sends a signal to a spawned command's process group.
    Signal {
        /// The id of the request that spawned it, on this connection.
        of: u64,
        /// The signal's number on Linux.
        signal: i32,
    },
    /// Ends a request: it is answered with an error of kind `cancelled`, and what it started in a
    /// machine is killed.
    Cancel {
        /// The id of the request, on this connection.
        of: u64,
    },
    /// Ends a `console` request well: the client has seen what it waited for.
    Done {
        /// The id of the request, on this connection.
        of: u64,
    },
    /// Waits until a systemd unit is active. A unit that failed, or that is inactive with no job
    /// pending, is an error.
    WaitUnit {
        /// The machine.
        machine: String,
        /// The unit, with its suffix or as a service.
        unit: String,
        /// Whose manager to ask; the system's where left out.
        #[serde(default)]
        user: Option<String>,
        /// After which it is an error.
        #[serde(default)]
        timeout: Option<f64>,
    },
    /// Waits until something listens on a TCP port, or nothing does.
    WaitPort {
        /// The machine.
        machine: String,
        /// The port.
        port: u16,
        /// The address or name, as seen inside.
        address: String,
        /// Which of the two.
        open: bool,
        /// After which it is an error.
        #[serde(default)]
        timeout: Option<f64>,
    },
    /// Waits until a path exists.
    WaitFile {
        /// The machine.
        machine: String,
        /// The path.
        path: String,
        /// After which it is an error.
        #[serde(default)]
        timeout: Option<f64>,
    },
    /// Waits until something listens on a Unix socket.
    WaitSocket {
        /// The machine.
        machine: String,
        /// Its path.
        path: String,
        /// For a datagram socket.
        #[serde(default)]
        datagram: bool,
        /// After which it is an error.
        #[serde(default)]
        timeout: Option<f64>,
    },
    /// The console, from a line on: parts `console` until `done` is asked.
    Console {
        /// The machine.
        machine: String,
        /// The first line wanted, counted from 0 over all starts of the machine in this session.
        #[serde(default)]
        from: u64,
        /// What the client waits for, to be told to the user.
        #[serde(default)]
        waiting_for: Option<String>,
        /// End with what is there instead of waiting for more.
        #[serde(default)]
        only_past: bool,
        /// After which it is an error.
        #[serde(default)]
        timeout: Option<f64>,
    },
    /// Kills a machine, and lets go of all that it holds on this host. It can be started again.
    Release {
        /// The machine.
        machine: String,
    },
    /// Starts a machine and waits until its agent answers.
    Connect {
        /// The machine.
        machine: String,
        /// Of one that goes to restart by itself: not before it has come up more often than this.
        #[serde(default)]
        after: Option<u64>,
        /// After which it is an error.
        #[serde(default)]
        timeout: Option<f64>,
    },
    /// Lets a machine that stands in its initrd go on to its own system, and waits until its agent
    /// answers there.
    SwitchRoot {
        /// The machine.
        machine: String,
        /// After which it is an error.
        #[serde(default)]
        timeout: Option<f64>,
    },
    /// What a machine is and how it is: [`super::Description`]. Does not start it.
    Describe {
        /// The machine.
        machine: String,
    },
    /// Adds a machine that a start script runs: [`super::Added`]. Does not start it.
    AddMachine {
        /// The script, or a command line for `sh` that begins with it.
        command: String,
        /// Its name; left out: from the script's name, `run-NAME-vm` or `run-NAME-nspawn`.
        #[serde(default)]
        name: Option<String>,
        /// Whether its state directory may hold something from before.
        #[serde(default)]
        keep_state: bool,
        /// What the script runs.
        #[serde(default)]
        kind: ScriptKind,
    },
    /// Sets variables for start scripts that run from now on; `null` takes one away.
    SetVariables {
        /// By their names.
        variables: BTreeMap<String, Option<String>>,
    },
    /// Gives a machine of a start script another state directory, as it is there: that of a machine
    /// which has installed its system, say. Only while it is off.
    SetStateDir {
        /// The machine.
        machine: String,
        /// The directory, an absolute path of the host.
        path: PathBuf,
    },
    /// Says something to the monitor of a VM's QEMU: what the monitor answers, as text.
    Monitor {
        /// The machine.
        machine: String,
        /// A command of QEMU's human monitor.
        command: String,
    },
    /// Takes a checkpoint of the whole lab, all machines at one moment. One of the same name is
    /// replaced: [`super::CheckpointStatus`].
    Checkpoint {
        /// Its name; left out: a new one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    },
    /// Goes back to a checkpoint: [`super::WentBack`].
    Restore {
        /// Its name.
        name: String,
    },
    /// The checkpoints, the oldest first: a list of [`super::CheckpointStatus`].
    Checkpoints,
    /// Forgets a checkpoint, and removes its files.
    DropCheckpoint {
        /// Its name.
        name: String,
    },
    /// Makes machines of one that runs, which is started if it is off: [`super::Cloned`].
    Clone {
        /// The machine.
        machine: String,
        /// How many.
        count: usize,
    },
    /// Runs a command of the QEMU machine protocol in a VM's QEMU: what it returns.
    Qmp {
        /// The machine.
        machine: String,
        /// The command.
        execute: String,
        /// Its arguments; left out: none.
        #[serde(default)]
        arguments: Value,
    },
    /// What the QEMU of a VM tells of itself: parts `qmp_event` until `done`.
    QmpEvents {
        /// The machine.
        machine: String,
    },
    /// Writes what a VM's screen shows to a file, as PNG.
    Screenshot {
        /// The machine.
        machine: String,
        /// The file, an absolute path of the host.
        host: PathBuf,
    },
    /// Types into a machine's serial console.
    ConsoleSend {
        /// The machine.
        machine: String,
        /// What to type.
        data: Data,
    },
    /// Pulls the cables of a machine, of a VLAN, or of a machine on a VLAN, or plugs them in.
    Link {
        /// The machine; left out: all.
        #[serde(default)]
        machine: Option<String>,
        /// The VLAN; left out: all.
        #[serde(default)]
        vlan: Option<u32>,
        /// Plugged in, or pulled.
        up: bool,
    },
    /// Listens on this host, and carries every connection into a machine, through its agent:
    /// [`super::Forwarded`]. Goes on until the session ends.
    Forward {
        /// The machine.
        machine: String,
        /// A port of this host's loopback to listen on; 0 is any free one.
        #[serde(default)]
        host_port: u16,
        /// A socket to listen on instead, an absolute path of the host.
        #[serde(default)]
        host_socket: Option<PathBuf>,
        /// The TCP port inside, on its loopback.
        #[serde(default)]
        guest_port: Option<u16>,
        /// The Unix socket inside, where it is no port.
        #[serde(default)]
        guest_socket: Option<String>,
    },
    /// The command line that logs in to a machine by SSH, from this host and without a network: a
    /// string. Its sshd must listen on port 22, or on the socket that systemd makes in containers.
    Ssh {
        /// The machine.
        machine: String,
    },
    /// Stands still until somebody asks for `continue`.
    Breakpoint {
        /// What went wrong, where something did.
        #[serde(default)]
        failure: Option<Box<ScriptReport>>,
    },
    /// Copies a file or a tree of the host into a machine.
    CopyIn {
        /// The machine.
        machine: String,
        /// An absolute path of the host.
        host: PathBuf,
        /// The target itself (not the directory around it).
        guest: String,
    },
    /// Copies a file or a tree out of a machine.
    CopyOut {
        /// The machine.
        machine: String,
        /// What to copy.
        guest: String,
        /// The target itself, an absolute path of the host.
        host: PathBuf,
    },
    /// Writes a line into the event log.
    Log {
        /// The text.
        text: String,
        /// The machine it is about.
        #[serde(default)]
        machine: Option<String>,
        /// How much it matters.
        #[serde(default)]
        level: Level,
    },
    /// A part of the log begins that has a title, and is no part of the test.
    SectionStarted {
        /// The title.
        name: String,
        /// The machine it is about.
        #[serde(default)]
        machine: Option<String>,
    },
    /// The last part of the log of this title, and of this machine, has ended.
    SectionFinished {
        /// The title.
        name: String,
        /// The machine it is about.
        #[serde(default)]
        machine: Option<String>,
        /// How long it took.
        seconds: f64,
        /// Whether it ended without an exception.
        #[serde(default = "yes")]
        ok: bool,
    },
    /// Shows lines of consoles from now on, or does not.
    ShowConsoles {
        /// Which of the two.
        on: bool,
    },
    /// A part of the test begins.
    SubtestStarted {
        /// Its name.
        name: String,
    },
    /// A part of the test has ended.
    SubtestFinished {
        /// Its name.
        name: String,
        /// How long it took.
        seconds: f64,
        /// What went wrong; left out where nothing did.
        #[serde(default)]
        message: Option<String>,
    },
    /// The script ends; left out report: it passed. Only for the script of a test.
    Report {
        /// What went wrong.
        #[serde(default)]
        failure: Option<ScriptReport>,
    },
    /// The event log: parts `event`.
    Events {
        /// Begin with what happened before.
        #[serde(default)]
        past: bool,
        /// Go on with what happens, until the session ends.
        #[serde(default)]
        follow: bool,
        /// Only events of these machines; all where empty.
        #[serde(default)]
        machines: Vec<String>,
    },
    /// Lets a paused test go on to its end.
    Continue,
    /// Ends the session; answered before it ends.
    Down,
    /// Turns the connection into the stream of a command: see [`crate::stream`]. With no command, a
    /// login shell. The only request that may be open on its connection.
    Shell {
        /// The machine.
        machine: String,
        /// What to run.
        #[serde(default)]
        command: Option<Command>,
        /// The terminal, where there is one.
        #[serde(default)]
        pty: Option<Pty>,
    },
    /// Turns the connection into one to a socket inside a machine: after the answer it carries
    /// bytes, both ways. The only request that may be open on its connection.
    Dial {
        /// The machine.
        machine: String,
        /// The TCP port inside, on its loopback.
        #[serde(default)]
        guest_port: Option<u16>,
        /// The Unix socket inside, where it is no port.
        #[serde(default)]
        guest_socket: Option<String>,
    },
}

fn yes() -> bool {
    true
}

fn is_false(value: &bool) -> bool {
    !*value
}
