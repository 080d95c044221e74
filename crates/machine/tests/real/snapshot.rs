//! Snapshots of VMs: made once, restored instead of booting, and of no harm when they are no good.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use machinist_machine::{
    Accel, Boot, Environment, Machine, MachineSpec, ReadyPoint, Report, SnapshotStore,
    StartOptions, Verdicts, Warm,
};

use crate::lab::{LONG, check, environment, run, vm_spec};

const ROOMY: u64 = 10 << 30;

/// A machine that is to be restored from what `store` has, and what was reported of it.
struct Probe {
    machine: Machine,
    reports: Arc<Mutex<Vec<Report>>>,
}

fn warm_spec(ready: ReadyPoint) -> Result<MachineSpec, Failed> {
    let mut spec = vm_spec(Accel::Tcg, Boot::Agent)?;
    spec.warm = Warm::At {
        ready,
        golden: None,
    };
    Ok(spec)
}

fn surroundings(dir: &Path, store: &SnapshotStore) -> Result<Environment, Failed> {
    let mut environment = environment(dir, Verdicts::forgetful())?;
    environment.snapshots = Some(store.clone());
    Ok(environment)
}

impl Probe {
    fn new(spec: MachineSpec, mut environment: Environment) -> Result<Self, Failed> {
        let reports = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&reports);
        environment.report = Arc::new(move |report| {
            if std::env::var_os("MACHINIST_TEST_TALK").is_some() {
                eprintln!("{report:?}");
            }
            told.lock().unwrap().push(report);
        });
        Ok(Self {
            machine: Machine::new(spec, environment)?,
            reports,
        })
    }

    async fn start(&self) -> Result<Duration, Failed> {
        let began = Instant::now();
        self.machine.start(StartOptions::default()).await?;
        Ok(began.elapsed())
    }

    async fn sh(&self, script: &str) -> Result<String, Failed> {
        let command = machinist_guest::Command::shell(script);
        let output = self.machine.agent()?.output(&command).await?;
        check(output.success(), &output)?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    fn count(&self, of: impl Fn(&Report) -> bool) -> usize {
        let reports = self.reports.lock().unwrap();
        reports.iter().filter(|report| of(report)).count()
    }
}

/// The first start boots, saves, and goes on as a restore; the second is a restore.
pub fn life() -> Result<(), Failed> {
    run(async {
        let temp = tempfile::tempdir()?;
        let store = SnapshotStore::open(&temp.path().join("snapshots"), ROOMY)?;
        let spec = warm_spec(ReadyPoint::Agent)?;
        let first = Probe::new(spec.clone(), surroundings(&temp.path().join("1"), &store)?)?;
        let cold = first.start().await?;
        let release = first.sh("uname -r").await?;
        let second = Probe::new(spec, surroundings(&temp.path().join("2"), &store)?)?;
        let warm = second.start().await?;
        let began = Instant::now();
        check(second.sh("uname -r").await? == release, "another machine")?;
        println!("cold {cold:?} warm {warm:?} first command {:?}", began.elapsed());
        check(first.count(|it| matches!(it, Report::SnapshotSaved { .. })) == 1, "not saved")?;
        check(second.count(|it| matches!(it, Report::Restored { .. })) == 1, "not restored")?;
        first.machine.shutdown(LONG).await?;
        second.machine.shutdown(LONG).await?;
        Ok(())
    })
}
