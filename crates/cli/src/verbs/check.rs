//! `machinist check`

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;
use machinist_lab::{Body, FileContents, Lab, RunsAs, Source};
use serde::Serialize;

use super::{Format, FormatArgs};
use crate::Outcome;
use crate::environment::Environment;
use crate::exit::Exit;
use crate::lab_file::{LabArgs, LabFile};
use crate::ui;

/// Check the lab file, and what it names, without booting anything
///
/// Looks whether the files that it names are there, and whether scripts are Python.
#[derive(Debug, Args)]
pub struct Check {
    #[command(flatten)]
    lab: LabArgs,
    #[command(flatten)]
    format: FormatArgs,
}

#[derive(Serialize)]
struct Report {
    file: PathBuf,
    machines: usize,
    tests: usize,
    problems: Vec<String>,
    /// What is no mistake, but good to know.
    notes: Vec<String>,
}

impl Check {
    /// Checks it.
    pub fn run(self, environment: &Environment) -> Outcome {
        let file = self.lab.load(environment)?;
        let mut problems = missing_files(&file);
        problems.extend(wrong_scripts(&file, environment));
        let report = Report {
            file: file.file.clone(),
            machines: file.lab.machines.len(),
            tests: file.lab.tests.len(),
            problems,
            notes: cold(&file.lab),
        };
        let good = report.problems.is_empty();
        match self.format.format {
            Format::Json => ui::json(&report),
            Format::Text => show(&report),
        }
        Ok(if good { Exit::Passed } else { Exit::Lab })
    }
}

fn show(report: &Report) {
    let file = report.file.display();
    for problem in &report.problems {
        ui::data(format_args!("{file}: {problem}"));
    }
    for note in &report.notes {
        ui::status(format_args!("{file}: {note}"));
    }
    if report.problems.is_empty() {
        let machines = ui::count(report.machines, "machine");
        let tests = ui::count(report.tests, "test");
        ui::data(format_args!("{file}: {machines}, {tests}, no mistakes"));
    }
}

/// VMs that are never restored from a snapshot, each group once.
fn cold(lab: &Lab) -> Vec<String> {
    let machines = lab.machines.iter();
    let vms = machines.filter(|machine| machine.resolve().0 == RunsAs::Vm);
    let mut notes: Vec<String> = vms
        .filter_map(|machine| {
            let why = machine.cold()?;
            Some(format!("machine {} boots each time: {why}", machine.group))
        })
        .collect();
    notes.dedup();
    notes
}

/// What the lab names and the host does not have.
fn missing_files(file: &LabFile) -> Vec<String> {
    let mut problems = Vec::new();
    for (what, path) in paths(&file.lab) {
        let full = file.base.join(&path);
        if let Err(error) = full.metadata() {
            problems.push(format!("{what}: {}: {error}", path.display()));
        }
    }
    problems.dedup();
    problems
}

/// Every path of the host in the lab, with who names it.
fn paths(lab: &Lab) -> Vec<(String, PathBuf)> {
    let mut paths = Vec::new();
    for machine in &lab.machines {
        let who = format!("machine {}", machine.group);
        match &machine.image.source {
            Source::Dir(path) | Source::Tar(path) => {
                paths.push((format!("{who}: image"), path.clone()));
            }
            _ => {}
        }
        for (target, added) in &machine.image.files {
            if let FileContents::Host(path) = &added.contents {
                paths.push((format!("{who}: file {target}"), path.clone()));
            }
        }
        for volume in &machine.volumes {
            paths.push((format!("{who}: volume"), volume.source.clone()));
        }
        for device in &machine.devices {
            paths.push((format!("{who}: device"), device.0.clone()));
        }
    }
    for test in &lab.tests {
        if let Body::Script(path) = &test.body {
            paths.push((format!("test {:?}: script", test.name), path.clone()));
        }
    }
    paths
}

/// Scripts that Python cannot read. Without a Python on the host nothing is said of them.
fn wrong_scripts(file: &LabFile, environment: &Environment) -> Vec<String> {
    let Some(python) = environment.find_program("python3") else {
        ui::warning("there is no python3 in PATH: scripts are not checked");
        return Vec::new();
    };
    let mut problems = Vec::new();
    for test in &file.lab.tests {
        if let Body::Script(path) = &test.body {
            let full = file.base.join(path);
            if let Some(why) = full
                .is_file()
                .then(|| syntax_error(&python, &full))
                .flatten()
            {
                problems.push(format!("test {:?}: {}: {why}", test.name, path.display()));
            }
        }
    }
    problems
}

/// What Python says against a script, as one line.
fn syntax_error(python: &Path, script: &Path) -> Option<String> {
    const PROGRAM: &str = "import ast, sys\n\
        try: ast.parse(open(sys.argv[1], 'rb').read(), sys.argv[1])\n\
        except (SyntaxError, ValueError) as e:\n  \
        print(f'line {getattr(e, \"lineno\", 1)}: {getattr(e, \"msg\", e)}'); sys.exit(1)";
    let output = Command::new(python)
        .args(["-I", "-c", PROGRAM])
        .arg(script)
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (!output.status.success() && !text.is_empty()).then_some(text)
}
