//! systemd's manager, told and not waited for.

use std::fs::{self, FileTimes};
use std::io::{self, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::SystemTime;

const SOCKET: &str = "/run/systemd/private";
const STAMPS: &str = "/var/lib/systemd/timers";

/// What opens a conversation between two that need no bus: we are root, in hexadecimal, and wait
/// for no answer to that.
const GREETING: &[u8] = b"\0AUTH EXTERNAL 30\r\nBEGIN\r\n";

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
