//! Dependencies: each under a licence of `deny.toml`'s list, each direct one with its reason in
//! docs/dependencies.md.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use serde_json::Value;
use spdx::{Expression, ParseMode};

use super::tally::Tally;
use crate::command::{cargo, stdout};

/// Checks all crates of the lock file, other platforms' included.
pub fn check(tally: &mut Tally) -> Result<()> {
    let allowed = allowed(&read("deny.toml")?)?;
    let text = stdout(&mut cargo(["metadata", "--format-version=1", "--locked"]))?;
    let metadata: Value = serde_json::from_str(&text).context("cannot read cargo's metadata")?;
    let packages = metadata["packages"]
        .as_array()
        .context("no packages in cargo's metadata")?;
    let mut used = BTreeSet::new();
    let mut bad = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or("?");
        match licence(package["license"].as_str(), &allowed) {
            Ok(()) => {}
            Err(why) => bad.push(format!("licences: {name}: {why}")),
        }
        if package["source"].is_null() {
            used.extend(direct(package));
        }
    }
    println!(
        "{} crates, {} of them direct dependencies",
        packages.len(),
        used.len()
    );
    tally.check(bad.is_empty(), bad.join("\n         "));
    explained(&used, tally)
}

fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))
}

/// The list `licenses.allow` of deny.toml.
fn allowed(text: &str) -> Result<BTreeSet<String>> {
    let table: toml::Table = text.parse().context("deny.toml")?;
    let list = table
        .get("licenses")
        .and_then(|licenses| licenses.get("allow")?.as_array())
        .context("deny.toml has no licenses.allow")?;
    Ok(list
        .iter()
        .filter_map(|it| it.as_str().map(str::to_owned))
        .collect())
}

/// Whether the licence expression can be met by allowed licences alone.
fn licence(expression: Option<&str>, allowed: &BTreeSet<String>) -> Result<(), String> {
    let text = expression.ok_or("names no licence")?;
    let parsed = Expression::parse_mode(text, ParseMode::LAX)
        .map_err(|error| format!("{text:?}: {}", error.reason))?;
    if parsed.evaluate(|required| allowed.contains(&required.to_string())) {
        Ok(())
    } else {
        Err(format!("{text} is not allowed by deny.toml"))
    }
}

/// Names of the crates from a registry that a package of ours asks for.
fn direct(package: &Value) -> Vec<String> {
    let dependencies = package["dependencies"].as_array().into_iter().flatten();
    dependencies
        .filter(|dependency| !dependency["source"].is_null())
        .filter_map(|dependency| dependency["name"].as_str().map(str::to_owned))
        .collect()
}

/// Every direct dependency has a row in docs/dependencies.md, and no row is left over.
fn explained(used: &BTreeSet<String>, tally: &mut Tally) -> Result<()> {
    let rows = rows(&read("docs/dependencies.md")?);
    let list = |names: BTreeSet<String>| names.into_iter().collect::<Vec<_>>().join(", ");
    let missing = list(used - &rows);
    let stale = list(&rows - used);
    tally.check(
        missing.is_empty(),
        format!("docs/dependencies.md: no reason for {missing}"),
    );
    tally.check(
        stale.is_empty(),
        format!("docs/dependencies.md: not used: {stale}"),
    );
    Ok(())
}

/// The names in the first column of a table: `| name | why |`.
fn rows(text: &str) -> BTreeSet<String> {
    text.lines()
        .filter_map(|line| line.strip_prefix('|')?.split('|').next())
        .map(|name| name.trim().trim_matches('`').to_owned())
        .filter(|name| name != "crate" && !name.starts_with("--") && !name.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_understood() {
        let allowed = allowed(
            "[licenses]\nallow = [\"MIT\", \"Apache-2.0\", \"Apache-2.0 WITH LLVM-exception\"]",
        )
        .unwrap();
        for good in [
            "MIT",
            "MIT/Apache-2.0",
            "GPL-3.0 OR MIT",
            "Apache-2.0 WITH LLVM-exception OR GPL-2.0",
        ] {
            assert_eq!(licence(Some(good), &allowed), Ok(()), "{good}");
        }
        for bad in ["GPL-3.0", "MIT AND GPL-3.0", "no such thing"] {
            assert!(licence(Some(bad), &allowed).is_err(), "{bad}");
        }
        assert!(licence(None, &allowed).is_err());
    }

    #[test]
    fn rows_of_the_table() {
        let text = "# Dependencies\n| crate | why |\n|---|---|\n| `serde` | all formats |\n| toml | the lab file |\n";
        assert_eq!(
            rows(text).into_iter().collect::<Vec<_>>(),
            ["serde", "toml"]
        );
    }
}
