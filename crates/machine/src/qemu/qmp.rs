//! The QEMU Machine Protocol, as far as we speak it: typed messages, and a connection.
//!
//! Our own types for a dozen messages instead of the generated ones for all: an event or a member
//! that a newer QEMU invents must be passed over, not end the conversation.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{broadcast, mpsc, oneshot};

/// A command, and what it returns.
pub(crate) trait Execute: Serialize {
    const NAME: &'static str;
    type Answer: DeserializeOwned;
}

macro_rules! command {
    ($(#[$doc:meta])* $name:ident = $wire:literal -> $answer:ty) => {
        $(#[$doc])*
        #[derive(Debug, Serialize)]
        pub(crate) struct $name {}
        impl Execute for $name {
            const NAME: &'static str = $wire;
            type Answer = $answer;
        }
    };
}

command!(
    /// Presses the ACPI power button.
    PowerDown = "system_powerdown" -> Nothing
);
command!(
    /// Ends QEMU in order, as by a pulled plug.
    Quit = "quit" -> Nothing
);
command!(
    /// Lets the virtual processors stand still.
    Stop = "stop" -> Nothing
);
command!(
    /// Lets them go on.
    Cont = "cont" -> Nothing
);
command!(
    /// What the machine does.
    QueryStatus = "query-status" -> Status
);

/// An answer without contents.
#[derive(Debug, Deserialize)]
pub(crate) struct Nothing {}

/// Answer to [`QueryStatus`].
#[derive(Debug, Deserialize)]
pub(crate) struct Status {
    /// Such as `running`, `paused`, `internal-error`, `guest-panicked`.
    pub(crate) status: String,
}

/// What QEMU says by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// The machine goes off.
    Shutdown { guest: bool, reason: String },
    /// The machine restarts.
    Reset,
    /// The guest's kernel gave up, and its panic device says so.
    GuestPanicked,
    /// The virtual processors stand still.
    Stop,
    /// They go on.
    Resume,
    /// The guest opened or closed a port.
    PortChange { id: String, open: bool },
    /// What we have no use for.
    Other,
}

/// Why QEMU did not do what it was told by its control socket.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum QmpError {
    /// It refused.
    #[error("QEMU refused {command}: {text} ({class})")]
    Refused {
        /// The command.
        command: String,
        /// Its kind of refusal, such as `CommandNotFound`.
        class: String,
        /// Its reason.
        text: String,
    },
    /// It said what nobody understands.
    #[error("QEMU answered {command} with something else")]
    Answer {
        /// The command.
        command: String,
        /// What is wrong with the answer.
        #[source]
        source: Arc<serde_json::Error>,
    },
    /// The socket is closed, as it is after QEMU's end.
    #[error("QEMU's control socket closed")]
    Closed,
}

/// One line from QEMU.
#[derive(Debug, Deserialize)]
struct Line {
    event: Option<String>,
    #[serde(default)]
    data: Value,
    #[serde(rename = "return")]
    returned: Option<Value>,
    error: Option<Refusal>,
    id: Option<u64>,
}

#[derive(Debug, PartialEq, Deserialize)]
struct Refusal {
    #[serde(default)]
    class: String,
    desc: String,
}

#[derive(Debug, Serialize)]
struct Request<'a, T> {
    execute: &'a str,
    arguments: &'a T,
    id: u64,
}

type Answered = oneshot::Sender<Result<Value, Refusal>>;

struct Question {
    text: Vec<u8>,
    id: u64,
    answered: Answered,
}

/// Ends the negotiation: before it QEMU takes nothing else. It has no number, so that nobody waits for
/// the answer; where QEMU refuses, it refuses all that comes after, too.
const NEGOTIATED: &[u8] = b"{\"execute\": \"qmp_capabilities\"}\n";

/// Events that a slow listener may be behind; older ones are lost to it.
const BEHIND: usize = 1024;

/// A connection to QEMU's control socket (QMP). Clones are the same one; it closes when QEMU ends.
#[derive(Debug, Clone)]
pub struct Qmp {
    ask: mpsc::UnboundedSender<Question>,
    ids: Arc<AtomicU64>,
    /// Never read: listeners are made from it.
    events: Arc<broadcast::Receiver<Arc<Value>>>,
    /// Somebody else than the machine's own backend has given it commands.
    touched: Arc<AtomicBool>,
}

/// What QEMU says by itself.
#[derive(Debug)]
pub struct QmpEvents(broadcast::Receiver<Arc<Value>>);

impl QmpEvents {
    /// The next event, as QEMU says it (`event`, `data`, `timestamp`); none when QEMU has ended.
    pub async fn next(&mut self) -> Option<Arc<Value>> {
        loop {
            match self.0.recv().await {
                Ok(event) => return Some(event),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

impl Qmp {
    /// Speaks on `socket`. Returns the handle, and what QEMU says by itself.
    pub(crate) fn start(socket: UnixStream) -> (Self, mpsc::UnboundedReceiver<Event>) {
        let (ask, questions) = mpsc::unbounded_channel();
        let (tell, events) = mpsc::unbounded_channel();
        let (read, write) = socket.into_split();
        let (shout, heard) = broadcast::channel(BEHIND);
        let told = Tell { tell, shout };
        // It ends with QEMU, whose other end of the socket it reads.
        drop(tokio::spawn(converse(read, write, questions, told)));
        let qmp = Self {
            ask,
            ids: Arc::default(),
            events: Arc::new(heard),
            touched: Arc::default(),
        };
        (qmp, events)
    }

    /// What QEMU says by itself, from now on.
    #[must_use]
    pub fn events(&self) -> QmpEvents {
        QmpEvents(self.events.resubscribe())
    }

    /// Executes the command `name`. `arguments` is an object, or null for none.
    ///
    /// # Errors
    /// QEMU refuses, or has ended.
    pub async fn execute(&self, name: &str, arguments: &Value) -> Result<Value, QmpError> {
        let empty = Value::Object(serde_json::Map::new());
        let arguments = if arguments.is_null() {
            &empty
        } else {
            arguments
        };
        self.touched.store(true, Ordering::Relaxed);
        self.ask(name, arguments).await
    }

    /// Whether somebody has [`execute`](Self::execute)d commands: the guest may have been typed to.
    pub(crate) fn touched(&self) -> bool {
        self.touched.load(Ordering::Relaxed)
    }

    /// Executes a command without arguments that changes nothing.
    pub(crate) async fn query(&self, name: &str) -> Result<Value, QmpError> {
        self.ask(name, &serde_json::Map::new()).await
    }

    /// Executes a command that we know.
    pub(crate) async fn perform<C: Execute>(&self, command: &C) -> Result<C::Answer, QmpError> {
        let answer = self.ask(C::NAME, command).await?;
        serde_json::from_value(answer).map_err(|source| QmpError::Answer {
            command: C::NAME.to_owned(),
            source: Arc::new(source),
        })
    }

    async fn ask(&self, name: &str, arguments: &impl Serialize) -> Result<Value, QmpError> {
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let request = Request {
            execute: name,
            arguments,
            id,
        };
        let failed = |source| QmpError::Answer {
            command: name.to_owned(),
            source: Arc::new(source),
        };
        let mut text = serde_json::to_vec(&request).map_err(failed)?;
        text.push(b'\n');
        let (answered, answer) = oneshot::channel();
        let question = Question { text, id, answered };
        self.ask.send(question).map_err(|_| QmpError::Closed)?;
        match answer.await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(refusal)) => Err(QmpError::Refused {
                command: name.to_owned(),
                class: refusal.class,
                text: refusal.desc,
            }),
            Err(_) => Err(QmpError::Closed),
        }
    }
}

/// Whom events are told.
struct Tell {
    /// Who owns the machine.
    tell: mpsc::UnboundedSender<Event>,
    /// Whoever listens. It ends with QEMU, and so do they.
    shout: broadcast::Sender<Arc<Value>>,
}

impl Tell {
    /// Whether anybody may still want events.
    fn tell(&self, event: Event, raw: Value) -> bool {
        let told = self.tell.send(event).is_ok();
        let heard = self.shout.send(Arc::new(raw)).is_ok();
        told || heard
    }
}

async fn converse(
    read: OwnedReadHalf,
    mut write: OwnedWriteHalf,
    mut questions: mpsc::UnboundedReceiver<Question>,
    tell: Tell,
) {
    if write_all(&mut write, NEGOTIATED).await.is_err() {
        return;
    }
    let mut lines = BufReader::new(read).lines();
    let mut open: HashMap<u64, Answered> = HashMap::new();
    loop {
        tokio::select! {
            line = lines.next_line() => {
                let Ok(Some(line)) = line else { return };
                match parse(&line) {
                    Some(Said::Event(event, raw)) => {
                        tell.tell(event, raw);
                    }
                    Some(Said::Answer(id, answer)) => {
                        if let Some(asker) = open.remove(&id) {
                            // Who asked may have given up.
                            drop(asker.send(answer));
                        }
                    }
                    None => {}
                }
            }
            question = questions.recv() => {
                let Some(question) = question else {
                    // Nobody asks any more, but events go on until QEMU ends.
                    drain(&mut lines, &tell).await;
                    return;
                };
                open.insert(question.id, question.answered);
                if write_all(&mut write, &question.text).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn drain(lines: &mut tokio::io::Lines<BufReader<OwnedReadHalf>>, tell: &Tell) {
    while let Ok(Some(line)) = lines.next_line().await {
        if let Some(Said::Event(event, raw)) = parse(&line)
            && !tell.tell(event, raw)
        {
            return;
        }
    }
}

async fn write_all(write: &mut OwnedWriteHalf, text: &[u8]) -> io::Result<()> {
    write.write_all(text).await
}

#[derive(Debug, PartialEq)]
enum Said {
    /// And the same as QEMU said it.
    Event(Event, Value),
    Answer(u64, Result<Value, Refusal>),
}

/// Reads one line. The greeting, and what is no QMP at all, is `None`.
fn parse(line: &str) -> Option<Said> {
    let raw: Value = serde_json::from_str(line).ok()?;
    let line = Line::deserialize(&raw).ok()?;
    if let Some(name) = line.event {
        return Some(Said::Event(event(&name, &line.data), raw));
    }
    let answer = match (line.returned, line.error) {
        (Some(value), _) => Ok(value),
        (None, Some(refusal)) => Err(refusal),
        (None, None) => return None,
    };
    Some(Said::Answer(line.id?, answer))
}

fn event(name: &str, data: &Value) -> Event {
    let flag = |key: &str| data.get(key).and_then(Value::as_bool).unwrap_or(false);
    let text = |key: &str| {
        let value = data.get(key).and_then(Value::as_str);
        value.unwrap_or_default().to_owned()
    };
    match name {
        "SHUTDOWN" => Event::Shutdown {
            guest: flag("guest"),
            reason: text("reason"),
        },
        "RESET" => Event::Reset,
        "GUEST_PANICKED" => Event::GuestPanicked,
        "STOP" => Event::Stop,
        "RESUME" => Event::Resume,
        "VSERPORT_CHANGE" => Event::PortChange {
            id: text("id"),
            open: flag("open"),
        },
        _ => Event::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standing_still_and_going_on_are_told_apart() {
        assert_eq!(event("STOP", &Value::Null), Event::Stop);
        assert_eq!(event("RESUME", &Value::Null), Event::Resume);
    }

    #[test]
    fn what_qemu_10_says() {
        let greeting = r#"{"QMP": {"version": {"qemu": {"micro": 2, "minor": 0, "major": 10}, "package": "Debian"}, "capabilities": ["oob"]}}"#;
        assert_eq!(parse(greeting), None);
        let said = |text| match parse(text).unwrap() {
            Said::Event(event, raw) => {
                assert_eq!(raw, serde_json::from_str::<Value>(text).unwrap());
                Said::Event(event, Value::Null)
            }
            answer @ Said::Answer(..) => answer,
        };
        assert_eq!(
            said(
                r#"{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-shutdown"}}"#
            ),
            Said::Event(
                Event::Shutdown {
                    guest: true,
                    reason: "guest-shutdown".into()
                },
                Value::Null
            )
        );
        assert_eq!(
            said(r#"{"event": "VSERPORT_CHANGE", "data": {"open": true, "id": "agent"}}"#),
            Said::Event(
                Event::PortChange {
                    id: "agent".into(),
                    open: true
                },
                Value::Null
            )
        );
        assert_eq!(
            said(r#"{"event": "OF_THE_FUTURE", "data": {"x": [1]}}"#),
            Said::Event(Event::Other, Value::Null)
        );
        assert_eq!(
            said(r#"{"return": {"status": "running", "running": true}, "id": 3}"#),
            Said::Answer(
                3,
                Ok(serde_json::json!({"status": "running", "running": true}))
            )
        );
        assert_eq!(
            said(r#"{"error": {"class": "GenericError", "desc": "no"}, "id": 4}"#),
            Said::Answer(
                4,
                Err(Refusal {
                    class: "GenericError".into(),
                    desc: "no".into()
                })
            )
        );
        assert_eq!(parse("nonsense"), None);
    }

    #[tokio::test]
    async fn questions_meet_their_answers() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (qmp, mut events) = Qmp::start(ours);
        let fake = tokio::spawn(async move {
            let (read, mut write) = theirs.into_split();
            let mut lines = BufReader::new(read).lines();
            write.write_all(b"{\"QMP\": {}}\n").await.unwrap();
            let first = lines.next_line().await.unwrap().unwrap();
            assert!(first.contains("qmp_capabilities"), "{first}");
            write.write_all(b"{\"return\": {}}\n").await.unwrap();
            while let Some(line) = lines.next_line().await.unwrap() {
                let asked: Value = serde_json::from_str(&line).unwrap();
                let answer = match asked["execute"].as_str().unwrap() {
                    "query-status" => {
                        serde_json::json!({"return": {"status": "internal-error", "running": false}, "id": asked["id"]})
                    }
                    _ => {
                        serde_json::json!({"error": {"class": "x", "desc": "never"}, "id": asked["id"]})
                    }
                };
                let text = format!("{{\"event\": \"STOP\"}}\n{answer}\n");
                write.write_all(text.as_bytes()).await.unwrap();
            }
        });
        let status = qmp.perform(&QueryStatus {}).await.unwrap();
        assert_eq!(status.status, "internal-error");
        assert_eq!(events.recv().await, Some(Event::Stop));
        let refused = qmp.perform(&PowerDown {}).await.unwrap_err();
        assert_eq!(
            refused.to_string(),
            "QEMU refused system_powerdown: never (x)"
        );
        fake.abort();
        drop(fake.await);
        let closed = qmp.perform(&PowerDown {}).await.unwrap_err();
        assert!(matches!(closed, QmpError::Closed));
    }
}
