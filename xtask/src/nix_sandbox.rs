//! `cargo xtask nix-sandbox -- COMMAND`: a command in a build of a real Nix, as root of its 65536
//! ids. For those who want to see what a test sees.

use std::process::ExitCode;

use anyhow::{Context, Result};
use machinist_tests::nix::NixHost;

use crate::command::{command, shown};

/// Runs it; one word alone is a script for bash.
pub fn run(words: &[String]) -> Result<ExitCode> {
    let script = match words {
        [script] => script.clone(),
        [program, args @ ..] => shown(&command(program, args)),
        [] => String::new(),
    };
    let host = NixHost::new()?;
    // A derivation has to have an output.
    let text = format!("{script}\nstatus=$?\ntouch $out\nexit $status\n");
    host.derive("command", &text)?;
    let status = host
        .command("exec nix-build --no-out-link command.nix\n")?
        .status()
        .context("cannot start systemd-nspawn")?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}
