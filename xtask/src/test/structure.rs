//! The house rules that a program can check: who may know whom (the table in ARCHITECTURE.md),
//! how long a file may be, and where `unsafe` may be.
//!
//! Functions are capped by clippy (`too_many_lines`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::tally::Tally;
use crate::command::{cargo, stdout};

/// The most lines of a source file, tests not counted.
const CAP: usize = 500;

/// Files that may be longer, with the reason.
const LONG: [(&str, &str); 0] = [];

/// Checks all rules.
pub fn check(tally: &mut Tally) -> Result<()> {
    arrows(tally)?;
    let mut files = Vec::new();
    for folder in ["crates", "tests", "xtask"] {
        sources(Path::new(folder), &mut files)?;
    }
    let mut long = Vec::new();
    for path in &files {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let lines = lines_without_tests(&text);
        if lines > CAP && !LONG.iter().any(|(known, _)| path == Path::new(known)) {
            long.push(format!(
                "{}: {lines} lines, {CAP} are the most",
                path.display()
            ));
        }
    }
    tally.check(long.is_empty(), long.join("\n         "));
    let unsafe_roots: Vec<String> = roots(&files)
        .filter(|path| !forbids_unsafe(path))
        .map(|path| format!("{}: has no #![forbid(unsafe_code)]", path.display()))
        .collect();
    tally.check(unsafe_roots.is_empty(), unsafe_roots.join("\n         "));
    Ok(())
}

/// Every dependency between our crates is in the table of ARCHITECTURE.md.
fn arrows(tally: &mut Tally) -> Result<()> {
    let text = std::fs::read_to_string("ARCHITECTURE.md").context("cannot read ARCHITECTURE.md")?;
    let allowed = table(&text);
    if allowed.is_empty() {
        bail!("ARCHITECTURE.md has no table of crates");
    }
    let text = stdout(&mut cargo([
        "metadata",
        "--format-version=1",
        "--no-deps",
        "--locked",
    ]))?;
    let metadata: Value = serde_json::from_str(&text).context("cannot read cargo's metadata")?;
    let mut wrong = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = short(package["name"].as_str().unwrap_or("?"));
        let Some(may_use) = allowed.get(name) else {
            wrong.push(format!("{name} is not in ARCHITECTURE.md's table"));
            continue;
        };
        for other in ours(package) {
            if !may_use.contains(&other) {
                wrong.push(format!(
                    "{name} uses {other}: ARCHITECTURE.md does not allow that"
                ));
            }
        }
    }
    tally.check(wrong.is_empty(), wrong.join("\n         "));
    Ok(())
}

/// Our own crates that a package is built from; those of its tests do not count.
fn ours(package: &Value) -> Vec<String> {
    let dependencies = package["dependencies"].as_array().into_iter().flatten();
    dependencies
        .filter(|dependency| dependency["source"].is_null() && dependency["kind"] != "dev")
        .filter_map(|dependency| dependency["name"].as_str())
        .map(|name| short(name).to_owned())
        .collect()
}

fn short(package: &str) -> &str {
    package.strip_prefix("machinist-").unwrap_or(package)
}

/// Rows such as `| machine | image, guest, sys | what it is |`, after a heading `| crate | ...`.
fn table(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    text.lines()
        .skip_while(|line| !line.starts_with("| crate |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .filter_map(|line| {
            let mut cells = line.trim_matches('|').split('|').map(str::trim);
            let name = cells.next()?.trim_matches('`').to_owned();
            let others = cells
                .next()?
                .split(',')
                .map(|it| it.trim().trim_matches('`'));
            Some((
                name,
                others
                    .filter(|it| !it.is_empty())
                    .map(str::to_owned)
                    .collect(),
            ))
        })
        .collect()
}

fn sources(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let reading = || format!("cannot read {}", folder.display());
    for entry in std::fs::read_dir(folder).with_context(reading)? {
        let path = entry.with_context(reading)?.path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                sources(&path, files)?;
            }
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// Lines before the tests of the file, which stand at its end.
fn lines_without_tests(text: &str) -> usize {
    let mut lines = text.lines().zip(text.lines().skip(1)).enumerate();
    let tests = lines.find(|(_, (line, next))| {
        line.starts_with("#[cfg(test)]") && next.starts_with("mod ") && next.ends_with('{')
    });
    tests.map_or_else(|| text.lines().count(), |(number, _)| number)
}

/// `src/lib.rs` and `src/main.rs` of each crate but the one that may.
fn roots(files: &[PathBuf]) -> impl Iterator<Item = &PathBuf> {
    files.iter().filter(|path| {
        (path.ends_with("src/lib.rs") || path.ends_with("src/main.rs"))
            && !path.starts_with("crates/sys")
    })
}

fn forbids_unsafe(path: &Path) -> bool {
    std::fs::read_to_string(path).is_ok_and(|text| text.contains("#![forbid(unsafe_code)]"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_at_the_end_do_not_count() {
        assert_eq!(
            lines_without_tests("a\nb\n#[cfg(test)]\nmod tests {\n}\n"),
            2
        );
        assert_eq!(lines_without_tests("a\n#[cfg(test)]\nmod fake;\nb\n"), 4);
    }

    #[test]
    fn the_table_names_what_a_crate_may_use() {
        let text = "text\n| crate | may use | what |\n|---|---|---|\n| `lab` | | types |\n| `cli` | `lab`, `session` | verbs |\n\nend";
        let table = table(text);
        assert!(table["lab"].is_empty());
        assert_eq!(table["cli"].iter().collect::<Vec<_>>(), ["lab", "session"]);
    }
}
