//! What the machine is called, and what it calls others.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use machinist_wire::message::{Failure, HostLine, Identity};
use machinist_wire::renewal::Change;

use super::{Lacks, failure, journal, overwrite};
use crate::init::{host_line, write};

const MACHINE_ID: &str = "/etc/machine-id";

/// Where a copy may be that programs of D-Bus read.
const DBUS_ID: &str = "/var/lib/dbus/machine-id";

pub(super) fn change(change: &Change, lacks: &mut Lacks) -> Result<(), Failure> {
    let Change { from, to } = change;
    if !to.hostname.is_empty() && from.hostname != to.hostname {
        rustix::system::sethostname(to.hostname.as_bytes())
            .map_err(|errno| failure("cannot set the host name", errno))?;
        put("/etc/hostname", &format!("{}\n", to.hostname))?;
    }
    if from.hosts != to.hosts {
        let now = fs::read_to_string("/etc/hosts").unwrap_or_default();
        put("/etc/hosts", &hosts(&now, from, to))?;
    }
    if !to.machine_id.is_empty() {
        machine_id(&to.machine_id, lacks)?;
    }
    Ok(())
}

/// Writes a file: over the old one if that can be, else in its place.
fn put(path: &str, text: &str) -> Result<(), Failure> {
    match overwrite(Path::new(path), text.as_bytes()) {
        Ok(()) => Ok(()),
        // It is not there, or it is a link into what nobody writes to.
        Err(_) => Ok(write(path, text)?),
    }
}

/// `/etc/hosts` with the lines of `to` where those of `from` were. All other lines are the machine's
/// own and stay.
fn hosts(now: &str, from: &Identity, to: &Identity) -> String {
    let lines = |hosts: &[HostLine]| hosts.iter().map(host_line).collect::<Vec<_>>();
    let (old, new) = (lines(&from.hosts), lines(&to.hosts));
    let known = |line: &&str| {
        let line = line.trim_end();
        old.iter().chain(&new).any(|known| known == line)
    };
    let before = now.lines().take_while(|line| !known(line));
    let after = now.lines().skip_while(|line| !known(line));
    let after = after.filter(|line| !known(line));
    let all = before.chain(new.iter().map(String::as_str)).chain(after);
    all.flat_map(|line| [line, "\n"]).collect()
}

fn machine_id(id: &str, lacks: &mut Lacks) -> Result<(), Failure> {
    let old = fs::read_to_string(MACHINE_ID).unwrap_or_default();
    let text = format!("{id}\n");
    put(MACHINE_ID, &text)?;
    match fs::symlink_metadata(DBUS_ID) {
        Ok(found) if found.is_file() => put(DBUS_ID, &text)?,
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(failure(format_args!("cannot look at {DBUS_ID}"), error));
        }
        _ => {}
    }
    lacks.note("journal", journal::lead_to(old.trim(), id));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(lines: &[(u8, &str)]) -> Identity {
        let hosts = lines.iter().map(|(last, name)| HostLine {
            address: [192, 168, 1, *last].into(),
            names: vec![(*name).to_owned()],
        });
        Identity {
            hosts: hosts.collect(),
            ..Identity::default()
        }
    }

    #[test]
    fn lines_of_the_machine_itself_stay() {
        let from = identity(&[(1, "one"), (2, "two")]);
        let to = identity(&[(2, "two"), (3, "three")]);
        let now = "127.0.0.1 localhost\n192.168.1.1 one\n192.168.1.2 two \n10.0.0.1 own # set up\n";
        let wanted =
            "127.0.0.1 localhost\n192.168.1.2 two\n192.168.1.3 three\n10.0.0.1 own # set up\n";
        assert_eq!(hosts(now, &from, &to), wanted);
        // Where nothing of ours was, it comes behind.
        assert_eq!(
            hosts("a\nb", &from, &identity(&[(9, "n")])),
            "a\nb\n192.168.1.9 n\n"
        );
        assert_eq!(hosts("", &from, &identity(&[])), "");
    }
}
