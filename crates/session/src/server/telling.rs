//! Verbs that tell the session something, and those that tell the client what happens.

use std::sync::Arc;

use machinist_events::What;
use tokio::sync::mpsc::UnboundedReceiver;

use super::connection::Word;
use super::parts::Parts;
use crate::hub::{Hub, Script, Wait};
use crate::protocol::{ConsoleLines, Fault, Part, Verb};

pub(super) fn perform(hub: &Hub, verb: Verb) -> Result<(), Fault> {
    match verb {
        Verb::Log {
            text,
            machine,
            level,
        } => tell(hub, machine.as_deref(), What::Log { text, level })?,
        Verb::SectionStarted { name, machine } => {
            tell(hub, machine.as_deref(), What::SectionStarted { name })?;
        }
        Verb::SectionFinished {
            name,
            machine,
            seconds,
            ok,
        } => {
            let what = What::SectionFinished { name, seconds, ok };
            tell(hub, machine.as_deref(), what)?;
        }
        Verb::ShowConsoles { on } => hub.log.emit(What::ConsolesShown { on }),
        Verb::SubtestStarted { name } => hub.log.emit(What::SubtestStarted { name }),
        Verb::SubtestFinished {
            name,
            seconds,
            message,
        } => {
            let ok = message.is_none();
            hub.log.emit(What::SubtestFinished {
                name,
                ok,
                seconds,
                message,
            });
        }
        Verb::Report { failure } => {
            hub.script
                .send_replace(Script::Ended(failure.map(Box::new)));
        }
        Verb::Continue => {
            if !hub.paused.send_replace(false) {
                return Err(Fault::usage("no test is paused here"));
            }
        }
        Verb::Down => hub.down.cancel(),
        _ => return Err(Fault::usage("this cannot be asked here")),
    }
    Ok(())
}

/// Tells something, perhaps of a machine.
fn tell(hub: &Hub, machine: Option<&str>, what: What) -> Result<(), Fault> {
    match machine {
        Some(machine) => {
            hub.machine(machine)?;
            hub.log.emit_of(machine, what);
        }
        None => hub.log.emit(what),
    }
    Ok(())
}

pub(super) async fn stream(
    hub: &Hub,
    verb: Verb,
    parts: &Parts,
    words: UnboundedReceiver<Word>,
) -> Result<(), Fault> {
    match verb {
        Verb::Events {
            past,
            follow,
            machines,
        } => events(hub, past, follow, &machines, parts).await,
        Verb::Console {
            machine,
            from,
            waiting_for,
            only_past,
            timeout,
        } => {
            let console = hub.machine(&machine)?.console().await?;
            let mut reader = Reader::new(console.lines(), from);
            if only_past {
                return reader.past(parts).await;
            }
            let within = hub.limit(timeout)?;
            let wait = waiting_for.map(|what| Wait::begin(hub, &machine, &what));
            let seen = async {
                tokio::select! {
                    () = done(words) => Ok(()),
                    read = reader.follow(parts) => read,
                }
            };
            let ended = match within {
                None => seen.await,
                Some(within) => tokio::time::timeout(within, seen)
                    .await
                    .unwrap_or_else(|_| {
                        Err(Fault::test(format!(
                            "{machine}: waiting for the console timed out after {} s",
                            crate::hub::seconds(within)
                        )))
                    }),
            };
            if let Some(wait) = wait {
                wait.end(ended.is_ok());
            }
            ended
        }
        _ => Err(Fault::usage("this cannot be asked here")),
    }
}

pub(super) async fn done(mut words: UnboundedReceiver<Word>) {
    while let Some(word) = words.recv().await {
        if matches!(word, Word::Done) {
            return;
        }
    }
    // The client can say nothing any more; the request ends by being cancelled.
    std::future::pending::<()>().await;
}

async fn events(
    hub: &Hub,
    past: bool,
    follow: bool,
    machines: &[String],
    parts: &Parts,
) -> Result<(), Fault> {
    for machine in machines {
        hub.machine(machine)?;
    }
    let mut log = hub.log.follow(past).map_err(Fault::machinery)?;
    loop {
        let event = if follow {
            log.next().await
        } else {
            log.next_past()
        };
        let Some(event) = event.map_err(Fault::machinery)? else {
            return Ok(());
        };
        let wanted = machines.is_empty()
            || event
                .machine
                .as_ref()
                .is_some_and(|machine| machines.contains(machine));
        if wanted {
            parts.send(Part::Event(Box::new(event))).await?;
        }
    }
}

/// At most so many bytes of lines, and one line more, are one part. A byte can be six in JSON.
const PART: usize = 1024 * 1024;

/// A reader of a console that leaves out what comes before a line.
struct Reader {
    lines: machinist_machine::ConsoleLines,
    from: u64,
}

impl Reader {
    fn new(lines: machinist_machine::ConsoleLines, from: u64) -> Self {
        Self { lines, from }
    }

    /// What is there already.
    async fn past(&mut self, parts: &Parts) -> Result<(), Fault> {
        self.carry(None, parts).await
    }

    async fn follow(&mut self, parts: &Parts) -> Result<(), Fault> {
        self.past(parts).await?;
        while let Some(line) = self.lines.next().await {
            self.carry(Some(line), parts).await?;
        }
        Ok(())
    }

    /// Sends `first`, which has been read, and what is there after it.
    async fn carry(&mut self, first: Option<Arc<str>>, parts: &Parts) -> Result<(), Fault> {
        let (mut lines, mut bytes) = (Vec::new(), 0);
        let mut line = first.or_else(|| self.lines.try_next());
        while let Some(found) = line {
            if self.lines.position() > self.from {
                bytes += found.len();
                lines.push(found.to_string());
            }
            if bytes >= PART {
                self.send(std::mem::take(&mut lines), parts).await?;
                bytes = 0;
            }
            line = self.lines.try_next();
        }
        self.send(lines, parts).await
    }

    async fn send(&self, lines: Vec<String>, parts: &Parts) -> Result<(), Fault> {
        if lines.is_empty() {
            return Ok(());
        }
        let next = self.lines.position();
        parts
            .send(Part::Console(ConsoleLines { next, lines }))
            .await
    }
}
