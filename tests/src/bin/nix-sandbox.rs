//! `cargo xtask nix-sandbox [-- COMMAND]`: a command in a derivation of a real Nix, as root of its
//! 65536 ids. For those who want to see what a test sees.

#![forbid(unsafe_code)]

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result};
use machinist_tests::nix::NixHost;

/// A derivation that runs the file `/rig/command`.
const DERIVATION: &str = r#"
derivation {
  name = "command";
  system = builtins.currentSystem;
  builder = "/bin/bash";
  args = [ (builtins.path { name = "command"; path = /rig/command; }) ];
  requiredSystemFeatures = [ "uid-range" ];
  PATH = "/machinist:/usr/bin:/usr/sbin";
}
"#;

fn main() -> Result<ExitCode> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let command = match words.as_slice() {
        // One word may be a whole script.
        [script] => script.clone(),
        words => shell_words(words),
    };
    let host = NixHost::new()?;
    let rig = host.rig();
    // A derivation has to have an output.
    let text = format!("{command}\nstatus=$?\ntouch $out\nexit $status\n");
    fs::write(rig.join("command"), text).context("cannot write the command")?;
    fs::write(rig.join("command.nix"), DERIVATION).context("cannot write the derivation")?;
    let status = host
        .command("exec nix-build --no-out-link command.nix\n")?
        .status()
        .context("cannot start systemd-nspawn")?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

fn shell_words(words: &[String]) -> String {
    let quoted = words
        .iter()
        .map(|word| format!("'{}'", word.replace('\'', r"'\''")));
    quoted.collect::<Vec<_>>().join(" ")
}
