//! The table of docs/benchmarks.md.

use anyhow::Result;

use super::row::{Limit, Row, Unit};
use crate::command::{command, stdout};

/// The page: what was measured, where, and how.
pub fn page(rows: &[Row], runs: usize) -> Result<String> {
    let host = stdout(&mut command("uname", ["-srm"]))?;
    let cores = stdout(&mut command("nproc", [""; 0]))?;
    let mut text = format!(
        "# Benchmarks\n\nMade by `cargo xtask bench`: medians of {runs} runs of both sides in turn, on {}, {} cores. \
         Ratios are what counts; seconds are those of this host. The program is a release build, and all images \
         are in the cache.\n\n\
         | what | machinist | against | | ratio | must be |\n|---|---|---|---|---|---|\n",
        host.trim(),
        cores.trim(),
    );
    for row in rows {
        text += &format!("{}\n", line(row));
    }
    text += "\n## How\n\n";
    for row in rows {
        text += &format!("- **{}**: {}\n", row.question.name, row.question.how);
    }
    Ok(text)
}

/// One row of the table.
pub fn line(row: &Row) -> String {
    let unit = row.question.unit;
    let limits: Vec<String> = row
        .question
        .limits
        .iter()
        .map(|it| limit(*it, unit))
        .collect();
    let verdict = if row.holds() { "" } else { ", **missed**" };
    format!(
        "| {} | {} | {} | {} | {} | {}{verdict} |",
        row.question.name,
        number(row.ours, unit),
        row.question.peer.unwrap_or_default(),
        row.theirs.map(|it| number(it, unit)).unwrap_or_default(),
        row.ratio().map(ratio).unwrap_or_default(),
        limits.join(", "),
    )
}

/// With as many digits as its limit needs.
fn ratio(value: f64) -> String {
    if value < 0.1 {
        format!("{value:.3}")
    } else {
        format!("{value:.2}")
    }
}

fn limit(limit: Limit, unit: Unit) -> String {
    match limit {
        Limit::AtMost(limit) => format!("at most {limit}"),
        Limit::AtLeast(limit) => format!("at least {limit}"),
        Limit::Within(limit) => format!("at most {}", number(limit, unit)),
    }
}

fn number(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Seconds if value < 0.1 => format!("{:.2} ms", value * 1e3),
        Unit::Seconds => format!("{value:.2} s"),
        Unit::BitsPerSecond => format!("{:.2} Gbit/s", value / 1e9),
        Unit::Bytes => format!("{:.0} MiB", value / f64::from(1 << 20)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::row::tests::row;
    use super::*;

    #[test]
    fn a_row_says_whether_it_holds() {
        let limits = vec![Limit::AtMost(0.2), Limit::Within(0.002)];
        assert_eq!(
            line(&row(limits, 0.002, Some(0.008))),
            "| round trip | 2.00 ms | nsenter | 8.00 ms | 0.25 | at most 0.2, at most 2.00 ms, **missed** |"
        );
    }

    #[test]
    fn a_row_may_have_one_side() {
        assert_eq!(
            line(&row(vec![Limit::Within(0.02)], 0.002, None)),
            "| round trip | 2.00 ms |  |  |  | at most 20.00 ms |"
        );
    }

    #[test]
    fn numbers_have_their_unit() {
        assert_eq!(number(1.5, Unit::Seconds), "1.50 s");
        assert_eq!((ratio(0.0512), ratio(1.5)), ("0.051".into(), "1.50".into()));
        assert_eq!(number(9.5e9, Unit::BitsPerSecond), "9.50 Gbit/s");
        assert_eq!(number(3.0 * 1024.0 * 1024.0, Unit::Bytes), "3 MiB");
    }
}
