//! systemd's manager, told of timers.

use std::fs::{self, FileTimes};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant, SystemTime};

use machinist_wire::renewal::DueTimers;

const SOCKET: &str = "/run/systemd/private";
const STAMPS: &str = "/var/lib/systemd/timers";

/// What opens a conversation between two that need no bus: we are root, in hexadecimal, and wait
/// for no answer to that.
const GREETING: &[u8] = b"\0AUTH EXTERNAL 30\r\nBEGIN\r\n";

/// How long it may take to stop timers.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two looks at a timer that stops.
const LOOK: Duration = Duration::from_millis(5);

/// Kinds of messages.
const RETURN: u8 = 2;
const ERROR: u8 = 3;

/// No message that we ask for is longer.
const LONGEST: u64 = 1 << 20;

/// Stops timers, and waits until none of them is active.
pub(super) fn stop(due: &DueTimers) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let socket = UnixStream::connect(SOCKET)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    (&socket).write_all(&[GREETING, &due.stop.0].concat())?;
    let mut answers = BufReader::new(&socket);
    // What it says to our greeting.
    answers.read_until(b'\n', &mut Vec::new())?;
    for ask in &due.ask {
        loop {
            (&socket).write_all(&ask.0)?;
            if is_off(&mut answers)? {
                break;
            }
            if Instant::now() >= deadline {
                return Err(io::Error::other("one that is due does not stop"));
            }
            std::thread::sleep(LOOK);
        }
    }
    Ok(())
}

/// Reads messages until there is an answer, and says whether that is `inactive`. What is not there any
/// more is so, too.
fn is_off(answers: &mut impl Read) -> io::Result<bool> {
    loop {
        // Order of bytes, kind, flags, version; lengths of the body, of nothing, of the fields.
        let mut head = [0; 16];
        answers.read_exact(&mut head)?;
        let number = |at: usize| {
            let bytes = [head[at], head[at + 1], head[at + 2], head[at + 3]];
            u64::from(match head[0] {
                b'l' => u32::from_le_bytes(bytes),
                _ => u32::from_be_bytes(bytes),
            })
        };
        let rest = number(12).next_multiple_of(8) + number(4);
        if rest > LONGEST {
            return Err(io::Error::other("an answer is too long"));
        }
        let mut message = Vec::new();
        answers.take(rest).read_to_end(&mut message)?;
        match head[1] {
            RETURN => return Ok(message.windows(8).any(|part| part == b"inactive")),
            ERROR => return Ok(true),
            _ => {}
        }
    }
}

/// Says messages of D-Bus. What is answered is in the socket that comes back, which ends when all
/// has been heard.
pub(super) fn say(messages: &[u8]) -> io::Result<OwnedFd> {
    let mut socket = UnixStream::connect(SOCKET)?;
    // They are far shorter than what the kernel keeps for one who has not yet read; but should they
    // not be, the machine does not hang.
    socket.set_nonblocking(true)?;
    socket.write_all(&[GREETING, messages].concat())?;
    socket.shutdown(Shutdown::Write)?;
    Ok(socket.into())
}

/// Makes all timers that remember when they were last due believe that it was now.
pub(super) fn stamp_timers() -> io::Result<()> {
    let stamps = match fs::read_dir(STAMPS) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        stamps => stamps?,
    };
    let now = SystemTime::now();
    let times = FileTimes::new().set_accessed(now).set_modified(now);
    for stamp in stamps {
        let path = stamp?.path();
        let stamp = fs::File::options().write(true).open(&path)?;
        stamp.set_times(times)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![b'l', kind, 0, 1];
        bytes.extend(u32::try_from(body.len()).unwrap().to_le_bytes());
        bytes.extend(1_u32.to_le_bytes());
        // Fields of 3 bytes, up to the next multiple of 8.
        bytes.extend(3_u32.to_le_bytes());
        bytes.extend([0; 8]);
        bytes.extend(body);
        bytes
    }

    #[test]
    fn an_answer_is_found_among_signals() {
        let signal = message(4, b"inactive");
        for (answer, off) in [
            (message(RETURN, b"\x01s\0\0\x08\0\0\0inactive\0"), true),
            (message(RETURN, b"\x01s\0\0\x06\0\0\0active\0"), false),
            (message(ERROR, b"no such unit"), true),
        ] {
            let all = [signal.clone(), answer].concat();
            assert_eq!(is_off(&mut all.as_slice()).unwrap(), off);
        }
        assert!(is_off(&mut signal.as_slice()).is_err());
    }
}
