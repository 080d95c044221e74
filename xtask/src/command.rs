//! Running other programs: never with a terminal to ask on, always with a word on what failed.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// The directory of the workspace.
pub fn workspace() -> Result<PathBuf> {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map(Path::to_path_buf)
        .context("xtask lies in no workspace")
}

/// Makes the workspace the current directory, so that all paths here can be relative to it.
pub fn enter_workspace() -> Result<()> {
    let root = workspace()?;
    std::env::set_current_dir(&root).with_context(|| format!("cannot enter {}", root.display()))
}

/// A command with its arguments, that reads nothing.
pub fn command<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null());
    command
}

/// The cargo that runs us.
pub fn cargo<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let program = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    command(&program, args)
}

/// The same command, which gets the processors that nobody else wants.
pub fn humbly(program: Command) -> Command {
    let mut humble = command("nice", ["-n", "19"]);
    humble.arg(program.get_program()).args(program.get_args());
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => humble.env(name, value),
            None => humble.env_remove(name),
        };
    }
    humble
}

/// Runs a command, its output shown. Fails unless it ends with 0.
pub fn run(command: &mut Command) -> Result<()> {
    let shown = shown(command);
    let status = command
        .status()
        .with_context(|| format!("cannot run {shown}"))?;
    if !status.success() {
        bail!("{shown}: {status}");
    }
    Ok(())
}

/// Runs a command and gives its output, whatever its status is.
pub fn output(command: &mut Command) -> Result<Output> {
    let shown = shown(command);
    command
        .output()
        .with_context(|| format!("cannot run {shown}"))
}

/// Runs a command and gives its standard output. Fails unless it ends with 0.
pub fn stdout(command: &mut Command) -> Result<String> {
    let shown = shown(command);
    let output = output(command)?;
    if !output.status.success() {
        bail!(
            "{shown}: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The command as a person would type it.
pub fn shown(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| quoted(&word.to_string_lossy()))
        .collect::<Vec<_>>()
        .join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// The built `machinist` program.
pub fn machinist() -> Result<PathBuf> {
    let target = match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => workspace()?.join("target"),
    };
    Ok(target.join("debug/machinist"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_command_can_be_pasted() {
        let command = command("sh", ["-c", "echo 'it works'"]);
        assert_eq!(shown(&command), r"sh -c 'echo '\''it works'\'''");
    }
}
