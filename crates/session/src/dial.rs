//! The hidden verb `__dial`: standard input and output as a connection into a machine. SSH calls it
//! (`ProxyCommand`), from whatever terminal.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::thread;

use tokio::io::BufReader;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use crate::directory;
use crate::protocol::Verb;
use crate::quote::quote;
use crate::{Client, ClientError};

const VERB: &str = "__dial";
/// Bytes that are carried at once.
const CHUNK: usize = 64 * 1024;
/// Where systemd makes a container's sshd listen beside its port, in the container.
const CONTAINER_SSH: &str = "/run/host/unix-export/ssh";

/// The command line, for a shell.
pub(crate) fn command_line(exe: &Path, session: &Path, machine: &str, port: u16) -> String {
    let word = |path: &Path| quote(&path.display().to_string());
    format!("{} {VERB} {} {machine} {port}", word(exe), word(session))
}

/// Carries the connection if that is what the arguments (with the program's own name) ask for. To
/// be called first in `main`.
#[must_use]
pub fn dispatch(args: &[OsString]) -> Option<ExitCode> {
    let [_, verb, session, machine, port] = args else {
        return None;
    };
    if verb != VERB {
        return None;
    }
    let (machine, port) = (machine.to_str()?, port.to_str()?.parse().ok()?);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build();
    let connect = async |session| {
        let (reader, writer) = connect(session, machine, port).await.ok()?;
        // What came with the answer has been read already.
        let early = reader.buffer().to_vec();
        let stream = reader.into_inner().reunite(writer).ok()?.into_std().ok()?;
        Some((early, stream))
    };
    let session = Path::new(session);
    let connected = runtime.map(|runtime| runtime.block_on(connect(session)));
    let done = connected.map(|connected| connected.map(|(early, stream)| carry(&early, stream)));
    // Its caller sees how the connection ends, and has no use for more.
    Some(match done {
        Ok(Some(Ok(()))) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// What comes from a machine, and what goes to it.
type Ends = (BufReader<OwnedReadHalf>, OwnedWriteHalf);

async fn connect(session: &Path, machine: &str, port: u16) -> Result<Ends, ClientError> {
    let socket = directory::socket(session);
    let dial = async |guest_port, guest_socket| {
        let client = Client::connect(&socket).await?;
        let machine = machine.to_owned();
        let dial = Verb::Dial {
            machine,
            guest_port,
            guest_socket,
        };
        client.dial(dial).await
    };
    match dial(Some(port), None).await {
        Err(first) => {
            let second = dial(None, Some(CONTAINER_SSH.to_owned())).await;
            second.map_err(|_| first)
        }
        connected => connected,
    }
}

/// Carries bytes until the machine ends the connection.
fn carry(early: &[u8], mut stream: UnixStream) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    let mut to_machine = stream.try_clone()?;
    // Nobody waits for this one: it ends with the process.
    thread::spawn(move || {
        drop(pass(&mut io::stdin().lock(), &mut to_machine));
        drop(to_machine.shutdown(Shutdown::Write));
    });
    // A file, not the locked one of `std::io`, which would keep bytes back until the end of a line.
    let mut stdout = std::fs::File::from(io::stdout().as_fd().try_clone_to_owned()?);
    stdout.write_all(early)?;
    pass(&mut stream, &mut stdout)
}

/// Copies to the end. Not by `io::copy`: between a socket and a pipe it splices, and the kernel holds
/// the pipe's lock while it waits for the socket, so that nobody can read what is in the pipe.
fn pass(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut bytes = vec![0; CHUNK];
    loop {
        match from.read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(length) => to.write_all(&bytes[..length])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
