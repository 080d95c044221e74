//! `cargo xtask bench`: machinist against what it is built on, measured in one run on one host.
//!
//! A row is a ratio wherever there is another side, because ratios travel between hosts and
//! seconds do not. One file per row, or per family of rows that one measurement gives.

mod apart;
mod builders;
mod command_in_container;
mod container_start;
mod crowd;
mod hand_made;
mod images;
mod memory;
mod nix_sandbox;
mod nixos;
mod nspawn;
mod program;
mod row;
mod snapshots;
mod switch;
mod switch_to_vm;
mod table;
mod vm_start;
mod vmtest;
mod waits;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};

use program::Program;
use row::{Limit, Question, Row, Sample, Unit};

/// One measurement, which gives one row or several.
trait Bench {
    /// What its rows are, in the order of their values.
    fn questions(&self) -> Vec<Question>;
    /// Makes ready what is not to be measured, such as images.
    fn prepare(&mut self) -> Result<()> {
        Ok(())
    }
    /// Measures both sides once, the one right after the other, so that a slow moment of the host
    /// hits both. One sample for each row.
    fn measure(&mut self) -> Result<Vec<Sample>>;
}

/// All measurements.
fn all(program: &Program) -> Vec<Box<dyn Bench>> {
    vec![
        Box::new(container_start::ContainerStart::new(program.clone())),
        Box::new(command_in_container::CommandInContainer::new(
            program.clone(),
        )),
        Box::new(waits::Waits::new(program.clone())),
        Box::new(vm_start::VmStart::new(program.clone())),
        Box::new(vmtest::AgainstVmtest::new(program.clone())),
        Box::new(switch::Switch),
        Box::new(switch_to_vm::SwitchToVm::new(program.clone())),
        Box::new(crowd::Crowd::new(program.clone())),
        Box::new(snapshots::WarmStart::new(program.clone())),
        Box::new(snapshots::Save::new(program.clone())),
        Box::new(snapshots::Clones::new(program.clone())),
        Box::new(snapshots::Checkpoint::new(program.clone())),
        Box::new(snapshots::Pytest::new(program.clone())),
        Box::new(nixos::Whole::new(program.clone())),
        Box::new(nixos::Commands::new(program.clone())),
        Box::new(nix_sandbox::NixSandbox::new(program.clone())),
        Box::new(builders::Builders::new(program.clone())),
    ]
}

/// Measures all whose rows' names contain one of `filters`, and writes the table when all ran.
/// Measures `program` if it is named, else what it builds.
pub fn run(filters: &[String], runs: usize, program: Option<PathBuf>) -> Result<ExitCode> {
    if !apart::is_apart()? {
        return apart::run();
    }
    crate::setup::run(true)?;
    let program = program.map_or_else(Program::build, Program::built)?;
    let mut rows = Vec::new();
    for mut bench in all(&program) {
        let questions = bench.questions();
        let wanted = |filter: &String| questions.iter().any(|it| it.name.contains(filter.as_str()));
        if filters.is_empty() || filters.iter().any(wanted) {
            let name = questions.first().map_or("nothing", |it| it.name);
            let measured = measure(bench.as_mut(), runs).with_context(|| name.to_owned())?;
            for row in &measured {
                println!("{}", table::line(row));
            }
            rows.extend(measured);
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

fn measure(bench: &mut dyn Bench, runs: usize) -> Result<Vec<Row>> {
    bench.prepare()?;
    let mut samples = Vec::new();
    for _ in 0..runs.max(1) {
        samples.push(bench.measure()?);
    }
    let rows = bench.questions().into_iter().enumerate();
    Ok(rows
        .map(|(position, question)| {
            let column = samples.iter().filter_map(|run| run.get(position)).copied();
            Row::of(question, column)
        })
        .collect())
}
