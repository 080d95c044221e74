//! Commands that go on beside their client: it hears what they print, and says what they read.

use machinist_events::Stream;
use machinist_guest::Writer;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc::{self, UnboundedReceiver};

use super::{Run, STDERR_LAG, fault, start, status};
use crate::hub::Hub;
use crate::protocol::{Command, Data, Executed, Fault, Part, Started};
use crate::server::connection::Word;
use crate::server::output::{self, Teller, ToClient};
use crate::server::parts::Parts;

/// Runs a command whose output goes to the client as it comes, and that listens to the client.
pub(super) async fn spawn(
    hub: &Hub,
    machine: &str,
    command: &Command,
    parts: &Parts,
    mut words: UnboundedReceiver<Word>,
) -> Result<Executed, Fault> {
    // It gets a standard input, so that `send` works.
    let run = start(hub, machine, command, None, true).await?;
    let Run {
        mut told,
        control,
        text,
        stdin,
        stdout,
        stderr,
        mut process,
    } = run;
    parts
        .send(Part::Started(Started { command: told.id }))
        .await?;
    let teller = |stream| Teller::new(&hub.log, machine, told.id, stream);
    let sink = |part| ToClient { parts, part };
    let out = output::read(stdout, teller(Stream::Stdout), sink(Part::Stdout));
    let err = output::read(stderr, teller(Stream::Stderr), sink(Part::Stderr));
    let (input, queue) = mpsc::unbounded_channel();
    let mut input = Some(input);
    // Input has its own pace: a command that does not read must not keep us from reading it.
    let mut feeding = std::pin::pin!(feed(stdin, queue));
    let mut reading = std::pin::pin!(async { tokio::join!(out, err) });
    let (mut fed, mut read_all) = (false, false);
    let exit = loop {
        tokio::select! {
            exit = process.wait() => break exit,
            () = &mut feeding, if !fed => fed = true,
            _ = &mut reading, if !read_all => read_all = true,
            Some(word) = words.recv() => match word {
                Word::Input(data) => if let Some(input) = &input {
                    // What it does not read is lost, as in any pipe.
                    drop(input.send(data));
                },
                Word::CloseInput => input = None,
                Word::Signal(signal) => process.signal(signal),
                Word::Done => {}
            },
        }
    };
    let exit = match exit {
        Ok(exit) => exit,
        Err(error) => return Err(fault(&*control, &text, error).await),
    };
    if !read_all {
        // The rest of its own output is on its way; what the background prints is not waited for.
        drop(tokio::time::timeout(STDERR_LAG, reading).await);
    }
    let status = status(exit);
    Ok(Executed {
        status,
        stdout: Data::default(),
        stderr: Data::default(),
        seconds: told.end(status),
    })
}

/// Gives a command what comes from `queue`, and the end of its input when that ends.
async fn feed(mut stdin: Writer, mut queue: UnboundedReceiver<Vec<u8>>) {
    while let Some(data) = queue.recv().await {
        if stdin.write_all(&data).await.is_err() {
            return;
        }
    }
}
