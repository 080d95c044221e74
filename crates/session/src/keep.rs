//! What is kept of a session: its event log and its machines' consoles.

use std::fs;
use std::path::Path;

use machinist_machine::console_log;

use crate::leftovers::MACHINES;
use crate::path_error::{At, PathError};

/// Copies the logs of the session at `session` to the directory `to`.
pub(crate) async fn keep(session: &Path, to: &Path) -> Result<(), PathError> {
    let (session, to) = (session.to_owned(), to.to_owned());
    let copied = tokio::task::spawn_blocking(move || copy(&session, &to));
    // It does not panic; and if it did, there are no logs, which is all that can be said.
    copied.await.unwrap_or(Ok(()))
}

fn copy(session: &Path, to: &Path) -> Result<(), PathError> {
    fs::create_dir_all(to).at("make the directory", to)?;
    let events = to.join("events.jsonl");
    fs::copy(session.join("events.jsonl"), &events).at("write", &events)?;
    for machine in fs::read_dir(session.join(MACHINES)).into_iter().flatten() {
        let machine = machine.at("list", session)?;
        let console = console_log(&machine.path());
        if console.exists() {
            let mut name = machine.file_name();
            name.push("-console.log");
            let kept = to.join(name);
            fs::copy(&console, &kept).at("write", &kept)?;
        }
    }
    Ok(())
}
