//! A line in the journal, and the journal's place.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

/// Writes a line where journald, or a syslog, listens; else to the kernel's log.
pub(super) fn mark(text: &str) -> io::Result<()> {
    let text = text.replace('\n', " ");
    let socket = UnixDatagram::unbound()?;
    // Whoever is to read it may be busy: the machine does not wait for that.
    socket.set_nonblocking(true)?;
    let native = format!("MESSAGE={text}\nPRIORITY=5\nSYSLOG_IDENTIFIER=machinist\n");
    for (path, message) in [
        ("/run/systemd/journal/socket", native),
        ("/dev/log", format!("<13>machinist: {text}")),
    ] {
        match socket.send_to(message.as_bytes(), path) {
            Ok(_) => return Ok(()),
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::NotFound | ErrorKind::ConnectionRefused
                ) => {}
            Err(error) => return Err(error),
        }
    }
    fs::write("/dev/kmsg", format!("<5>machinist: {text}"))
}

/// Lets the journal be found under the machine's new id: its tools look nowhere else. It stays where
/// it is, since journald itself knows the old one until it is started anew.
pub(super) fn lead_to(old: &str, new: &str) -> io::Result<()> {
    if old == new || old.is_empty() || old.contains('/') {
        return Ok(());
    }
    for place in ["/run/log/journal", "/var/log/journal"] {
        link_in(Path::new(place), old, new)?;
    }
    Ok(())
}

fn link_in(place: &Path, old: &str, new: &str) -> io::Result<()> {
    if !place.join(old).exists() {
        return Ok(());
    }
    symlink(old, place.join(new))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_is_found_under_both_names() {
        let place = std::env::temp_dir().join(format!("machinist-journal-{}", std::process::id()));
        fs::create_dir_all(place.join("old")).unwrap();
        fs::write(place.join("old/system.journal"), "entries").unwrap();
        let led = link_in(&place, "old", "new");
        let found = ["old", "new"].map(|name| fs::read(place.join(name).join("system.journal")));
        let nothing = link_in(&place, "no", "new");
        fs::remove_dir_all(&place).unwrap();
        led.unwrap();
        nothing.unwrap();
        for found in found {
            assert_eq!(found.unwrap(), b"entries");
        }
    }
}
