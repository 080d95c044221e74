//! The table of docs/benchmarks.md.

use anyhow::Result;

use super::{Limit, Row, Unit};
use crate::command::{command, stdout};

/// The page: what was measured, where, and how.
pub fn page(rows: &[Row], runs: usize) -> Result<String> {
    let host = stdout(&mut command("uname", ["-srm"]))?;
    let cores = stdout(&mut command("nproc", [""; 0]))?;
    let mut text = format!(
        "# Benchmarks\n\nMade by `cargo xtask bench`: medians of {runs} runs of each side in turn, on {}, {} cores. \
         Ratios are what counts; seconds are those of this host.\n\n\
         | what | machinist | against | | ratio | must be |\n|---|---|---|---|---|---|\n",
        host.trim(),
        cores.trim(),
    );
    for row in rows {
        text += &format!("{}\n", line(row));
    }
    Ok(text)
}

/// One row of the table.
pub fn line(row: &Row) -> String {
    let limit = match row.limit {
        Limit::AtMost(limit) => format!("at most {limit}"),
        Limit::AtLeast(limit) => format!("at least {limit}"),
    };
    let verdict = if row.holds() { "" } else { ", **missed**" };
    format!(
        "| {} | {} | {} | {} | {:.2} | {limit}{verdict} |",
        row.name,
        number(row.ours, row.unit),
        row.peer,
        number(row.theirs, row.unit),
        row.ratio(),
    )
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
    use super::*;

    #[test]
    fn a_row_says_whether_it_holds() {
        let row = Row {
            name: "round trip",
            peer: "nsenter",
            unit: Unit::Seconds,
            limit: Limit::AtMost(0.2),
            ours: 0.002,
            theirs: 0.008,
        };
        assert_eq!(
            line(&row),
            "| round trip | 2.00 ms | nsenter | 8.00 ms | 0.25 | at most 0.2, **missed** |"
        );
    }

    #[test]
    fn numbers_have_their_unit() {
        assert_eq!(number(1.5, Unit::Seconds), "1.50 s");
        assert_eq!(number(9.5e9, Unit::BitsPerSecond), "9.50 Gbit/s");
        assert_eq!(number(3.0 * 1024.0 * 1024.0, Unit::Bytes), "3 MiB");
    }
}
