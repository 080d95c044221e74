//! `cargo xtask bench`: machinist against what it is built on, measured in one run on one host.
//!
//! A row is a ratio, because ratios travel between hosts and seconds do not.

mod table;

use std::process::ExitCode;

use anyhow::{Context, Result};

/// One comparison.
pub trait Bench {
    /// A few words, as the table names it.
    fn name(&self) -> &'static str;
    /// What the other side is, such as `systemd-nspawn -b`.
    fn peer(&self) -> &'static str;
    /// What is measured.
    fn unit(&self) -> Unit;
    /// What the ratio must hold.
    fn limit(&self) -> Limit;
    /// Makes ready what is not to be measured, such as images.
    fn prepare(&mut self) -> Result<()> {
        Ok(())
    }
    /// Measures machinist once.
    fn ours(&mut self) -> Result<f64>;
    /// Measures the other side once.
    fn theirs(&mut self) -> Result<f64>;
}

/// What a number means.
#[cfg_attr(not(test), expect(dead_code, reason = "rows follow"))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Less is better.
    Seconds,
    /// More is better.
    BitsPerSecond,
    /// Less is better.
    Bytes,
}

/// What the ratio of our median to theirs must hold.
#[cfg_attr(not(test), expect(dead_code, reason = "rows follow"))]
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Limit {
    /// Ours is at most this often theirs.
    AtMost(f64),
    /// Ours is at least this often theirs.
    AtLeast(f64),
}

impl Limit {
    fn holds(self, ratio: f64) -> bool {
        match self {
            Self::AtMost(limit) => ratio <= limit,
            Self::AtLeast(limit) => ratio >= limit,
        }
    }
}

/// A row that has been measured: medians of both sides.
#[derive(Debug, Clone)]
pub struct Row {
    name: &'static str,
    peer: &'static str,
    unit: Unit,
    limit: Limit,
    ours: f64,
    theirs: f64,
}

impl Row {
    fn ratio(&self) -> f64 {
        self.ours / self.theirs
    }

    fn holds(&self) -> bool {
        self.limit.holds(self.ratio())
    }
}

/// All comparisons.
fn all() -> Vec<Box<dyn Bench>> {
    Vec::new()
}

/// Measures every row whose name contains one of `filters`, and writes the table when all ran.
pub fn run(filters: &[String], runs: usize) -> Result<ExitCode> {
    crate::setup::run(true)?;
    let mut rows = Vec::new();
    for mut bench in all() {
        let wanted = |filter: &String| bench.name().contains(filter.as_str());
        if filters.is_empty() || filters.iter().any(wanted) {
            let row = measure(bench.as_mut(), runs).with_context(|| bench.name().to_owned())?;
            println!("{}", table::line(&row));
            rows.push(row);
        }
    }
    if filters.is_empty() {
        let path = "docs/benchmarks.md";
        let text = table::page(&rows, runs)?;
        std::fs::write(path, text).with_context(|| format!("cannot write {path}"))?;
    }
    let missed = rows.iter().filter(|row| !row.holds()).count();
    println!("{} rows, {missed} beyond their limit", rows.len());
    Ok(if missed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Both sides in turn, so that a slow moment of the host hits both.
fn measure(bench: &mut dyn Bench, runs: usize) -> Result<Row> {
    bench.prepare()?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..runs.max(1) {
        ours.push(bench.ours()?);
        theirs.push(bench.theirs()?);
    }
    Ok(Row {
        name: bench.name(),
        peer: bench.peer(),
        unit: bench.unit(),
        limit: bench.limit(),
        ours: median(ours),
        theirs: median(theirs),
    })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle() {
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
    }

    #[test]
    fn limits_hold_on_their_own_side() {
        assert!(Limit::AtMost(1.2).holds(1.1) && !Limit::AtMost(1.2).holds(1.3));
        assert!(Limit::AtLeast(6.0).holds(9.0) && !Limit::AtLeast(6.0).holds(5.0));
    }
}
