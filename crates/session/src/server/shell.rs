//! A connection as the stream of a command.

use std::sync::Arc;

use machinist_guest::{self as guest, Reader, Running, Size, Socket, Writer};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader, ReadHalf, WriteHalf};
use tokio::sync::mpsc;

use super::commands::{fault, guest_command, status, text};
use crate::chain;
use crate::control::Control;
use crate::hub::Hub;
use crate::protocol::{self, Command, Fault, Pty, Reply, Verb};
use crate::stream::{self, Frame};

/// Output is read in pieces of this size, in bytes.
const PIECE: usize = 32 * 1024;

pub(super) async fn serve(
    hub: &Hub,
    id: u64,
    verb: Verb,
    mut reader: BufReader<ReadHalf<Socket>>,
    mut writer: WriteHalf<Socket>,
) {
    let Verb::Shell {
        machine,
        command,
        pty,
    } = verb
    else {
        return;
    };
    let started = tokio::select! {
        () = hub.over.cancelled() => return,
        started = start(hub, &machine, command.as_ref(), pty.as_ref()) => started,
    };
    let reply = match &started {
        Ok(_) => Reply::ok(id, serde_json::Value::Null),
        Err(fault) => Reply::error(id, fault.clone()),
    };
    let Ok(line) = protocol::encode(&reply) else {
        return;
    };
    // From here on errors of writing mean that the client has gone, and with it the command.
    if writer.write_all(&line).await.is_err() {
        return;
    }
    let Ok((control, process)) = started else {
        return;
    };
    let last = tokio::select! {
        () = hub.over.cancelled() => Frame::Failed("the session ends".to_owned()),
        last = carry(&*control, process, &mut reader, &mut writer) => match last {
            Some(last) => last,
            None => return,
        },
    };
    drop(stream::write(&mut writer, &last).await);
}

async fn start(
    hub: &Hub,
    machine: &str,
    command: Option<&Command>,
    pty: Option<&Pty>,
) -> Result<(Arc<dyn Control>, guest::Process), Fault> {
    let control = hub.machine(machine)?;
    let mut request = match command {
        Some(command) => guest_command(hub, &*control, command)?.stdin(),
        None => {
            // The user's own shell, as `login` would start it: bash where there is one.
            let shell = "cd; if [ -x /bin/bash ]; then exec /bin/bash -l; else exec /bin/sh -l; fi";
            let mut request = guest::Command::plain_shell(shell).stdin();
            for (name, value) in control.env() {
                request = request.env(name, value);
            }
            request
        }
    };
    if let Some(pty) = pty {
        let size = Size {
            rows: pty.rows,
            columns: pty.cols,
        };
        request = request.pty(size).env("TERM", &pty.term);
    }
    let agent = control.agent().await?;
    match agent.spawn(&request).await {
        Ok(process) => Ok((control, process)),
        Err(error @ guest::GuestError::Channel(_)) => {
            let what = command.map_or("the shell".into(), |command| text(&command.program));
            Err(fault(&*control, &what, error).await)
        }
        // The other errors name the program, or what it lacks.
        Err(error) => Err(Fault::test(chain::text(&error))),
    }
}

/// Carries frames until the command ends. `None`: the client has gone.
async fn carry(
    control: &dyn Control,
    process: guest::Process,
    reader: &mut BufReader<ReadHalf<Socket>>,
    writer: &mut WriteHalf<Socket>,
) -> Option<Frame> {
    let (stdin, stdout, stderr, mut process) = process.split();
    let (signals, mut told) = mpsc::unbounded_channel();
    let (output, mut waiting) = mpsc::channel(4);
    let mut incoming = std::pin::pin!(take_frames(reader, stdin, signals));
    let mut outgoing = std::pin::pin!(async {
        tokio::join!(
            pump(stdout, Frame::Output, output.clone()),
            pump(stderr, Frame::Error, output),
        )
    });
    let (mut exit, mut printed) = (None, false);
    loop {
        if let (Some(exit), true) = (exit, printed) {
            return Some(Frame::Exit(status(exit)));
        }
        tokio::select! {
            biased;
            Some(frame) = waiting.recv() => stream::write(writer, &frame).await.ok()?,
            _ = &mut outgoing, if !printed => {
                while let Ok(frame) = waiting.try_recv() {
                    stream::write(writer, &frame).await.ok()?;
                }
                printed = true;
            }
            Some(word) = told.recv() => tell(&process, word),
            ended = process.wait(), if exit.is_none() => match ended {
                Ok(ended) => exit = Some(ended),
                Err(error) => {
                    let fault = fault(control, "the shell", error).await;
                    return Some(Frame::Failed(fault.message));
                }
            },
            () = &mut incoming, if exit.is_none() => return None,
        }
    }
}

/// Something that a client says to a command beside its input.
enum ControlWord {
    Resize(Size),
    Signal(i32),
}

fn tell(process: &Running, word: ControlWord) {
    match word {
        ControlWord::Resize(size) => process.resize(size),
        ControlWord::Signal(number) => process.signal(number),
    }
}

/// Takes what the client sends. Ends when the client has gone.
async fn take_frames(
    reader: &mut BufReader<ReadHalf<Socket>>,
    stdin: Writer,
    words: mpsc::UnboundedSender<ControlWord>,
) {
    let mut stdin = Some(stdin);
    while let Ok(Some(frame)) = stream::read(reader).await {
        match frame {
            Frame::Input(bytes) if bytes.is_empty() => drop(stdin.take()),
            Frame::Input(bytes) => {
                if let Some(stdin) = &mut stdin {
                    // What the command does not read is lost, as in any pipe.
                    drop(stdin.write_all(&bytes).await);
                }
            }
            Frame::Resize { rows, cols } => {
                let columns = cols;
                drop(words.send(ControlWord::Resize(Size { rows, columns })));
            }
            Frame::Signal(number) => {
                drop(words.send(ControlWord::Signal(i32::from(number))));
            }
            // These come from us.
            Frame::Output(_) | Frame::Error(_) | Frame::Exit(_) | Frame::Failed(_) => return,
        }
    }
}

async fn pump(mut from: Reader, frame: impl Fn(Vec<u8>) -> Frame, to: mpsc::Sender<Frame>) {
    let mut buffer = vec![0; PIECE];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if to.send(frame(buffer[..count].to_vec())).await.is_err() {
            return;
        }
    }
}
