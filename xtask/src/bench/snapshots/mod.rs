//! Snapshots, clones and checkpoints of VMs under emulation, against the same done by hand, and
//! against booting.

mod by_hand;
mod checkpoint;
mod clones;
mod pytest;
mod save;
mod warm_start;

pub use checkpoint::Checkpoint;
pub use clones::Clones;
pub use pytest::Pytest;
pub use save::Save;
pub use warm_start::WarmStart;

use std::io::Read;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::images::IMAGE;
use super::program::Program;
use crate::command;

/// What a VM of `machinist run` has.
const MEBIBYTES: u32 = 1024;

/// `machinist run` of a VM with its whole system: the seconds from its start until the output of
/// its command is here.
fn first_output(run: &mut std::process::Command) -> Result<f64> {
    let shown = command::shown(run);
    let begun = Instant::now();
    let child = run.stdout(Stdio::piped()).spawn();
    let mut child = child.with_context(|| format!("cannot run {shown}"))?;
    let mut output = [0; COMMAND_SAYS.len()];
    let mut stdout = child.stdout.take().context("no standard output")?;
    let read = stdout.read_exact(&mut output);
    let took = begun.elapsed();
    let status = child.wait()?;
    read.with_context(|| format!("no output of {shown}: {status}"))?;
    ensure!(
        status.success() && output == *COMMAND_SAYS.as_bytes(),
        "{shown}: {status}"
    );
    Ok(took.as_secs_f64())
}

/// What is run in a machine, a program of its own, and the line that it prints.
const COMMAND: &str = "uname -s";
const COMMAND_SAYS: &str = "Linux";

/// `machinist run` of it in such a VM.
fn run(program: &Program, options: &[&str]) -> std::process::Command {
    let mut run = program.command(&["run", "--image", IMAGE]);
    run.args(["--kind", "vm", "--accel", "tcg", "--system"])
        .args(options)
        .arg("--")
        .args(COMMAND.split(' '));
    run
}
