//! `machinist doctor`

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use machinist_doctor::{Finding, Host, Known, Level, Purpose, examine, worst};
use machinist_machine::{QEMU, Verdicts};

use crate::Outcome;
use crate::environment::{self, Environment};
use crate::exit::Exit;
use crate::ui;
use crate::verbs::{Format, FormatArgs};

/// Tell what this host can and cannot do, and how to mend it
///
/// What can be tried is tried, by builds too, if Nix is here. Ends with 0 where all is well, with 1 after
/// warnings, with 2 after failures.
#[derive(Debug, Args)]
pub struct Doctor {
    /// What the host is to be fit for; tests, and builds if Nix is here, where this is left out
    #[arg(long = "for", value_enum, value_name = "WHAT")]
    purpose: Option<What>,
    /// Mend what can be mended without asking, and say what was done
    #[arg(long)]
    fix: bool,
    /// Also tell what is as it should be
    #[arg(short, long)]
    verbose: bool,
    #[command(flatten)]
    format: FormatArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Tests with VMs
    Vm,
    /// Tests with containers
    Container,
    /// Tests with both
    Mixed,
    /// Builds by Nix
    Builder,
}

impl Doctor {
    /// Examines the host.
    pub fn run(self, environment: &Environment) -> Outcome {
        let containers = !matches!(self.purpose, Some(What::Vm | What::Builder));
        let host = host(environment, containers);
        let purposes = match self.purpose {
            None if host.has_nix() => vec![Purpose::Mixed, Purpose::Builder],
            None => {
                ui::status("Nix is not here, so nothing is said of its builds; --for builder does");
                vec![Purpose::Mixed]
            }
            Some(What::Vm) => vec![Purpose::Vm],
            Some(What::Container) => vec![Purpose::Container],
            Some(What::Mixed) => vec![Purpose::Mixed],
            Some(What::Builder) => vec![Purpose::Builder],
        };
        let as_text = self.format.format == Format::Text;
        let mut told = 0;
        let mut tell = |finding: &Finding| {
            if as_text && (self.verbose || finding.level != Level::Fine) {
                ui::data(text(finding));
                told += 1;
            }
        };
        let findings = if self.fix {
            let findings = mended(&host, &purposes);
            findings.iter().for_each(tell);
            findings
        } else {
            examine(&host, &purposes, &mut tell)
        };
        if as_text {
            summary(&findings, told);
        } else {
            ui::json(&findings);
        }
        Ok(match worst(&findings) {
            Level::Fine | Level::Unknown => Exit::Passed,
            Level::Warning => Exit::Warnings,
            Level::Failure => Exit::Failures,
        })
    }
}

/// This host. Whether containers run is asked first: that takes a process without threads.
fn host(environment: &Environment, containers: bool) -> Host {
    let mut known = Known::default();
    if containers {
        let found = environment.containers_at_all();
        let why = found.limits.any.clone();
        known.no_containers = why.map(|why| (why, found.remedies.clone()));
    }
    known.builders = builders();
    if let Some(qemu) = environment.find_program(QEMU) {
        let verdicts = Verdicts::open(&environment.images, &qemu);
        known.kvm_condemned = verdicts.kvm().zip(verdicts.file().map(Into::into));
    }
    Host {
        nix: environment::nix_host(),
        search: environment.search.clone(),
        scratch: std::env::temp_dir(),
        known,
    }
}

/// The directories of builders: those of whoever asks, and those that Nix's daemon knows.
fn builders() -> Vec<PathBuf> {
    let roots = PathBuf::from(environment::ROOTS_BUILDERS);
    let own = environment::builders().unwrap_or_else(|_| roots.clone());
    let places = BTreeSet::from([own, roots]);
    let entries = places.iter().flat_map(fs::read_dir).flatten().flatten();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    found.retain(|path| path.is_dir());
    found.sort();
    found
}

fn text(finding: &Finding) -> String {
    let level = match finding.level {
        Level::Fine => "ok     ",
        Level::Unknown => "?      ",
        Level::Warning => "warning",
        Level::Failure => "FAILURE",
    };
    let mut text = format!(
        "{level} {}: {}",
        finding.id,
        finding.found.replace('\n', "\n        ")
    );
    let mut line = |name: &str, value: &str| {
        text += &format!("\n        {name}: {}", value.replace('\n', "\n          "));
    };
    if finding.level != Level::Fine {
        line("looked at", &finding.looked_at);
    }
    if !finding.why.is_empty() {
        line("why it matters", &finding.why);
    }
    for mend in &finding.mend {
        line("to mend it", mend);
    }
    text
}

/// What is found once all is mended that can be. Much follows from something else, so all is looked at
/// again then.
fn mended(host: &Host, purposes: &[Purpose]) -> Vec<Finding> {
    let mut findings = examine(host, purposes, &mut |_| {});
    let mended = fix(&mut findings);
    if mended.is_empty() {
        return findings;
    }
    ui::status("looking again");
    let mut findings = examine(host, purposes, &mut |_| {});
    let is_told = |it: &Finding| {
        let same = |other: &Finding| it.id == other.id && it.looked_at == other.looked_at;
        mended.iter().any(same)
    };
    findings.retain(|it| !(it.level == Level::Fine && is_told(it)));
    findings.extend(mended);
    findings
}

/// Mends what can be mended, and returns what that was: it is not bad any more.
fn fix(findings: &mut [Finding]) -> Vec<Finding> {
    let mut mended = Vec::new();
    for finding in findings {
        let Some(repair) = finding.repair.take() else {
            continue;
        };
        match repair.apply() {
            Ok(done) => {
                ui::status(format_args!("mended {}: {done}", finding.id));
                finding.found = format!("mended: {done} (it was: {})", finding.found);
                finding.level = Level::Fine;
                mended.push(finding.clone());
            }
            Err(error) => ui::warning(format_args!("cannot mend {}: {error}", finding.id)),
        }
    }
    mended
}

fn summary(findings: &[Finding], told: usize) {
    let of = |level| findings.iter().filter(|it| it.level == level).count();
    let (failures, warnings) = (of(Level::Failure), of(Level::Warning));
    let fine = of(Level::Fine);
    let more = if told < findings.len() && fine > 0 {
        " (--verbose shows them)"
    } else {
        ""
    };
    ui::status(format_args!(
        "{}, {}, {fine} as they should be{more}",
        ui::count(failures, "failure"),
        ui::count(warnings, "warning"),
    ));
    let mendable = findings.iter().filter(|it| it.repair.is_some()).count();
    if mendable > 0 {
        ui::status(format_args!("--fix mends {mendable} of them"));
    }
}
