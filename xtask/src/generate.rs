//! Files that are made from the program: the reference of its command line, and the schema of the
//! lab file. They are kept in the repository, so that they can be read without building it.

use std::path::Path;

use anyhow::{Context, Result};

use crate::command::{self, cargo, command, machinist};
use crate::test::Tally;

/// Writes all of them.
pub fn write() -> Result<()> {
    command::run(&mut cargo([
        "build",
        "--quiet",
        "--package",
        "machinist-cli",
    ]))?;
    for (path, text) in files()? {
        std::fs::write(path, text).with_context(|| format!("cannot write {path}"))?;
        println!("{path}");
    }
    Ok(())
}

/// Checks that all of them are what `write` would write with the program that is built already.
pub fn check(tally: &mut Tally) -> Result<()> {
    for (path, text) in files()? {
        let current = std::fs::read_to_string(path).unwrap_or_default();
        tally.check(
            current == text,
            format!("{path} is out of date: run `cargo xtask generate`"),
        );
    }
    Ok(())
}

fn files() -> Result<Vec<(&'static str, String)>> {
    let program = machinist()?;
    let schema = command::stdout(&mut command(&program.to_string_lossy(), ["schema"]))?;
    Ok(vec![
        ("docs/cli.md", reference(&program)?),
        ("docs/lab.schema.json", schema),
    ])
}

/// The help of the program and of each of its verbs, one after another.
fn reference(program: &Path) -> Result<String> {
    let mut text = String::from(
        "# The command line\n\nMade by `cargo xtask generate` from the program's own help: edit the \
         doc comments in `crates/cli`.\n",
    );
    let help = help(program, &[])?;
    section(&mut text, "machinist", &help);
    for verb in verbs(&help) {
        let help = self::help(program, &[&verb])?;
        section(&mut text, &format!("machinist {verb}"), &help);
        for sub in verbs(&help) {
            let help = self::help(program, &[&verb, &sub])?;
            section(&mut text, &format!("machinist {verb} {sub}"), &help);
        }
    }
    Ok(text)
}

fn section(text: &mut String, title: &str, help: &str) {
    let depth = title.split(' ').count().max(2);
    let marks = "#".repeat(depth);
    *text += &format!("\n{marks} {title}\n\n```text\n{}\n```\n", help.trim_end());
}

fn help(program: &Path, verb: &[&str]) -> Result<String> {
    let mut words = verb.to_vec();
    words.push("--help");
    let mut command = command(&program.to_string_lossy(), words);
    // The width of the help must not depend on the terminal.
    command::stdout(command.env("COLUMNS", "100"))
}

/// The verbs that a help text lists: lines of two spaces, a word, at least two spaces.
fn verbs(help: &str) -> Vec<String> {
    help.lines()
        .filter_map(|line| {
            let line = line.strip_prefix("  ")?;
            let (word, about) = line.split_once("  ")?;
            let is_letter = |c: char| c.is_ascii_lowercase() || c == '-';
            let is_verb = word.chars().all(is_letter) && !word.is_empty() && !word.starts_with('-');
            (is_verb && !about.trim().is_empty() && word != "help").then(|| word.to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_are_told_from_options() {
        let help = "Test:\n  test     Run tests\n  list     List them\n\nOptions:\n  -v  More\n      --x <Y>  Why\n  help  This\n";
        assert_eq!(verbs(help), ["test", "list"]);
    }
}
