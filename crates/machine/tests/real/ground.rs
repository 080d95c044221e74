//! What containers of start scripts stand on, and what is said where that cannot be had.

use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use libtest_mimic::Failed;
use machinist_machine::ground::{Lack, Lacks, Need, probe};

use crate::lab::check;

/// Runs the helper behind `words`, and returns what it says is lacking.
fn lacking(words: &[&str]) -> Result<Vec<Lack>, Failed> {
    let (ours, theirs) = UnixStream::pair()?;
    let exe = std::env::current_exe()?;
    let mut child = Command::new(words[0])
        .args(&words[1..])
        .arg(exe)
        .arg("__ground")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn()?;
    let mut line = String::new();
    let read = BufReader::new(&ours).read_line(&mut line);
    drop(ours);
    child.wait()?;
    read?;
    let said: Result<(), Lacks> = serde_json::from_str(&line)?;
    Ok(said.err().map_or_else(Vec::new, |lacks| lacks.0))
}

fn needs(lacks: &[Lack]) -> Vec<Need> {
    lacks.iter().map(|lack| lack.what).collect()
}

/// Root has all that is needed.
pub fn complete() -> Result<(), Failed> {
    probe(&std::env::current_exe()?)?;
    Ok(())
}

/// Where there are neither terminals nor a name for the system, the ground has its own.
pub fn bare() -> Result<(), Failed> {
    let bare = "set -e
        mkdir -p /run/bare && touch /run/bare/null && mount --bind /dev/null /run/bare/null
        mount -t tmpfs none /dev && touch /dev/null && mount --bind /run/bare/null /dev/null
        mount -t tmpfs none /etc
        umount /run/bare/null && rm -r /run/bare
        exec \"$0\" \"$@\"";
    let lacks = lacking(&["unshare", "--mount", "sh", "-c", bare])?;
    check(lacks.is_empty(), lacks)
}

/// All that is lacking is named at once.
pub fn lacks() -> Result<(), Failed> {
    let ordinary = lacking(&["setpriv", "--reuid=65534", "--clear-groups"])?;
    check(needs(&ordinary) == [Need::Root], &ordinary)?;
    check(ordinary[0].why == "this is user 65534", &ordinary)?;
    // One id alone, and a /proc that hides something.
    let hidden = "mount -t tmpfs none /proc/sys && exec unshare --user --map-root-user --mount --pid --fork \"$0\" \"$@\"";
    let sandbox = lacking(&["unshare", "--mount", "sh", "-c", hidden])?;
    let named = needs(&sandbox);
    check(named.contains(&Need::Ids), &sandbox)?;
    check(named.contains(&Need::Processes), &sandbox)?;
    check(!named.contains(&Need::Run), &sandbox)?;
    let text = Lacks(sandbox).to_string();
    check(text.contains("only 1 id is mapped"), &text)?;
    check(text.contains("uid-range"), &text)
}
