//! A process of its own for all measurements, and nothing of it left when it ends, however that is.
//!
//! ```text
//! cargo xtask bench ─┬─ guard: waits for the end of its standard input, and cleans up
//!                    └─ cargo xtask bench, with TMPDIR: measures, and dies with its parent
//! ```
//! All processes that the measurements start have that directory in their environment. machinist
//! cleans up after itself; the other sides do not, and neither do benchmarks that are killed.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};

use anyhow::{Context, Result};
use rustix::process::{Signal, set_parent_process_death_signal};
use tempfile::TempDir;

/// Names the directory, for the process that measures.
const PLACE: &str = "TMPDIR";
/// Says that this is the process that measures.
const MARK: &str = "MACHINIST_BENCH";

/// Where files are in memory.
const MEMORY: &str = "/dev/shm";

/// How often the guard looks whether all has ended by itself, ten times a second.
const LOOKS: u32 = 100;

/// Waits for its standard input to end, lets what ends by itself do so, kills what is left, and
/// removes the directory.
const GUARD: &str = r#"
read -r _
left() { grep -l -s -z -x -F "TMPDIR=$1" /proc/[0-9]*/environ; }
for _ in $(seq "$2"); do
    left "$1" > /dev/null || break
    sleep 0.1
done
for path in $(left "$1"); do
    pid=${path#/proc/}
    kill -KILL "${pid%/environ}" 2> /dev/null
done
# What a container's start script has made may have a directory that not even root may change.
memory=/dev/shm/${1##*/}
chattr -R -f -i "$1" "$memory"
for _ in $(seq 20); do
    rm -r -f "$1" "$memory" 2> /dev/null && break
    sleep 0.1
done
"#;

/// Whether this process is the one that measures. From now on it ends with the one that started it.
pub fn is_apart() -> Result<bool> {
    if std::env::var_os(MARK).is_none() {
        return Ok(false);
    }
    set_parent_process_death_signal(Some(Signal::KILL)).context("cannot die with a parent")?;
    Ok(true)
}

/// Calls this program once more with the same arguments, as the one that measures.
pub fn run() -> Result<ExitCode> {
    let place = tempfile::Builder::new().prefix("mb-").tempdir();
    // From here on it is the guard's.
    let place = place.context("cannot make a directory")?.keep();
    let mut guard = guard(&place, LOOKS)?;
    let program = std::env::current_exe().context("this program has no file")?;
    let measuring = Command::new(program)
        .args(std::env::args_os().skip(1))
        .envs([(PLACE, place.as_os_str()), (MARK, OsStr::new("1"))])
        .status();
    drop(guard.stdin.take());
    guard.wait().context("cannot wait for the guard")?;
    let status = measuring.context("cannot run this program again")?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// A directory in memory, which the guard knows of, too.
pub fn in_memory() -> Result<TempDir> {
    let place = std::env::temp_dir();
    let name = place
        .file_name()
        .context("the root directory is no place")?;
    let ours = Path::new(MEMORY).join(name);
    std::fs::create_dir_all(&ours)
        .and_then(|()| tempfile::tempdir_in(&ours))
        .with_context(|| format!("cannot make a directory in {}", ours.display()))
}

/// In a session of its own: what a terminal tells us, it does not hear.
fn guard(place: &Path, looks: u32) -> Result<Child> {
    Command::new("setsid")
        .args(["sh", "-c", GUARD, "guard"])
        .arg(place)
        .arg(looks.to_string())
        .env_remove(PLACE)
        .stdin(Stdio::piped())
        .spawn()
        .context("cannot run setsid")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_goes() {
        let place = tempfile::tempdir().unwrap().keep();
        std::fs::write(place.join("file"), "").unwrap();
        let memory = Path::new(MEMORY).join(place.file_name().unwrap());
        std::fs::create_dir(&memory).unwrap();
        let sleep = |place: &Path| {
            let mut sleep = Command::new("sleep");
            sleep.arg("600").env(PLACE, place).spawn().unwrap()
        };
        let (mut ours, mut other) = (sleep(&place), sleep(Path::new("/")));
        let mut guard = guard(&place, 1).unwrap();
        assert!(ours.try_wait().unwrap().is_none(), "killed too soon");
        drop(guard.stdin.take());
        let guarded = guard.wait().unwrap();
        let other_runs = other.try_wait().unwrap().is_none();
        other.kill().unwrap();
        other.wait().unwrap();
        assert!(guarded.success());
        assert!(other_runs, "killed what is not ours");
        assert!(!ours.wait().unwrap().success());
        assert!(!place.exists());
        assert!(!memory.exists());
    }
}
