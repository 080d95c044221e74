//! A machine that is restored from a store, and what was reported of it.

use std::path::Path;
use std::sync::{Arc, Mutex};

use libtest_mimic::Failed;
use machinist_machine::{
    Accel, Boot, Environment, Machine, MachineSpec, ReadyPoint, Report, SnapshotStore,
    StartOptions, Verdicts, Warm,
};

use crate::lab::{check, environment, vm_spec};

/// More bytes than any snapshots here take.
pub const ROOMY: u64 = 10 << 30;

pub struct Probe {
    pub machine: Machine,
    reports: Arc<Mutex<Vec<Report>>>,
}

/// The machine that boots in the shortest time.
pub fn warm_spec() -> Result<MachineSpec, Failed> {
    let mut spec = vm_spec(Accel::Tcg, Boot::Agent)?;
    spec.warm = Warm::At {
        ready: ReadyPoint::Agent,
        golden: None,
    };
    Ok(spec)
}

pub fn surroundings(store: &SnapshotStore, dir: &Path) -> Result<Environment, Failed> {
    let mut environment = environment(dir, Verdicts::forgetful())?;
    environment.snapshots = Some(store.clone());
    Ok(environment)
}

impl Probe {
    pub fn new(spec: MachineSpec, store: &SnapshotStore, dir: &Path) -> Result<Self, Failed> {
        Self::within(spec, surroundings(store, dir)?)
    }

    pub fn within(spec: MachineSpec, mut environment: Environment) -> Result<Self, Failed> {
        let reports = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&reports);
        environment.report = Arc::new(move |report| {
            // For whoever looks into a failure.
            if std::env::var_os("MACHINIST_TEST_TALK").is_some() {
                eprintln!("{report:?}");
            }
            if !matches!(report, Report::Console { .. }) {
                told.lock().unwrap().push(report);
            }
        });
        Ok(Self {
            machine: Machine::new(spec, environment)?,
            reports,
        })
    }

    pub async fn start(&self) -> Result<(), Failed> {
        Ok(self.machine.start(StartOptions::default()).await?)
    }

    pub async fn sh(&self, script: &str) -> Result<String, Failed> {
        let command = machinist_guest::Command::shell(script);
        let output = self.machine.agent()?.output(&command).await?;
        check(output.success(), (script, &output))?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    pub fn reports(&self) -> Vec<Report> {
        self.reports.lock().unwrap().clone()
    }

    pub fn count(&self, of: impl Fn(&Report) -> bool) -> usize {
        self.reports().iter().filter(|report| of(report)).count()
    }

    pub fn saved(&self) -> usize {
        self.count(|report| matches!(report, Report::SnapshotSaved { .. }))
    }

    pub fn restored(&self) -> usize {
        self.count(|report| matches!(report, Report::Restored { .. }))
    }

    /// Why it booted although it was to be restored.
    pub fn cold(&self) -> Option<String> {
        self.reports().into_iter().find_map(|report| match report {
            Report::ColdBecause { reason } => Some(reason),
            _ => None,
        })
    }
}
