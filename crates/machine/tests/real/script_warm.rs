//! VMs of start scripts that are restored instead of booting.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use libtest_mimic::Failed;
use machinist_guest::Command;
use machinist_machine::{
    Machine, Report, ScriptKind, ScriptSpec, SnapshotStore, StartOptions, Verdicts,
};
use machinist_tests::start_script::VmScript;

use crate::lab::{LONG, check, environment, run};
use crate::script_vm::system;

const ROOMY: u64 = 10 << 30;

/// A machine in a new state directory.
struct Stage {
    machine: Machine,
    reports: Arc<Mutex<Vec<Report>>>,
}

impl Stage {
    /// The script's machine, with its directories in `dir`.
    fn new(dir: &Path, command: &Path, store: &SnapshotStore) -> Result<Self, Failed> {
        let spec = ScriptSpec {
            name: "probe".to_owned(),
            kind: ScriptKind::Vm,
            command: command.display().to_string(),
            state_dir: dir.join("vm-state-probe"),
            shared_dir: dir.join("shared-xchg"),
            keep_state: false,
            vlan_sockets: BTreeMap::new(),
            display: false,
            start_within: LONG,
            warm: true,
            variables: Arc::default(),
        };
        let reports = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&reports);
        let mut environment = environment(&dir.join("machine"), Verdicts::forgetful())?;
        environment.snapshots = Some(store.clone());
        let talk = std::env::var_os("MACHINIST_TEST_TALK").is_some();
        let began = Instant::now();
        environment.report = Arc::new(move |report| {
            if talk {
                eprintln!("{:.3} {report:?}", began.elapsed().as_secs_f64());
            }
            told.lock().unwrap().push(report);
        });
        Ok(Self {
            machine: Machine::scripted(spec, environment)?,
            reports,
        })
    }

    async fn start(&self) -> Result<Duration, Failed> {
        let began = Instant::now();
        self.machine.start(StartOptions::default()).await?;
        Ok(began.elapsed())
    }

    async fn sh(&self, script: &str) -> Result<String, Failed> {
        let output = self
            .machine
            .agent()?
            .output(&Command::shell(script))
            .await?;
        if !output.success() {
            return Err(format!("{script}: {output:?}").into());
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// What was reported of its warmth.
    fn told(&self) -> Vec<String> {
        let reports = self.reports.lock().unwrap();
        let texts = reports.iter().filter_map(|report| match report {
            Report::Restored { .. } => Some("restored".to_owned()),
            Report::SnapshotSaved { .. } => Some("saved".to_owned()),
            Report::SnapshotDiscarded { reason } => Some(format!("discarded: {reason}")),
            Report::ColdBecause { reason } => Some(format!("cold: {reason}")),
            Report::Warning { text } => Some(format!("warning: {text}")),
            _ => None,
        });
        texts.collect()
    }

    async fn crash(self) -> Result<(), Failed> {
        self.machine.crash().await?;
        Ok(())
    }
}

/// What each restore must have anew.
struct Fresh {
    random: String,
}

/// Whether a restored machine is right, and what it has of its own.
async fn is_right(stage: &Stage, shared: &Path, mark: &str) -> Result<Fresh, Failed> {
    // What was printed before it was saved has been printed.
    let printed = |line: &str| line.contains("connecting to host");
    let line = stage.machine.console().wait_for(LONG, printed).await;
    check(line.is_some(), "its console has not begun at its beginning")?;
    let seconds = stage.sh("date +%s.%N").await?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let off = (now.as_secs_f64() - seconds.parse::<f64>()?).abs();
    check(off < 1.0, format!("its clock is off by {off} s"))?;
    // The disk that its script made is what it was when the machine was saved.
    let disk = stage.sh("head -c 6 /dev/vdb").await?;
    check(disk == "golden", disk)?;
    stage
        .sh(&format!(
            "echo {mark} | dd of=/dev/vdb conv=fsync 2>/dev/null"
        ))
        .await?;
    // Directories that were left for the save are there again, both ways.
    std::fs::write(shared.join("from-host"), mark)?;
    let seen = stage
        .sh("cat /tmp/shared/from-host; hostname >/tmp/shared/from-guest")
        .await?;
    check(seen == mark, seen)?;
    let written = std::fs::read_to_string(shared.join("from-guest"))?;
    check(written == "probe\n", written)?;
    let random = stage.sh("head -c 16 /dev/urandom | base64").await?;
    Ok(Fresh { random })
}

/// A restored machine is one like any other: its agent comes back as ever, and so does the machine.
async fn goes_on(stage: Stage) -> Result<(), Failed> {
    let before = stage.machine.status().borrow().boots;
    drop(
        stage
            .machine
            .agent()?
            .output(&Command::plain_shell("kill -KILL $PPID"))
            .await,
    );
    let mut status = stage.machine.status();
    let back = status.wait_for(|status| status.boots > before && status.state.answers());
    tokio::time::timeout(LONG, back).await??;
    let boot = stage.sh("cat /proc/sys/kernel/random/boot_id").await?;
    stage.machine.reboot().await?;
    let rebooted = stage.sh("cat /proc/sys/kernel/random/boot_id").await?;
    check(boot != rebooted, "it has not restarted")?;
    stage.machine.shutdown(LONG).await?;
    // It has a past now.
    stage.machine.launch(StartOptions::default()).await?;
    let told = stage.told();
    let last = told.last().map_or("", String::as_str);
    check(last.starts_with("cold: its state directory"), told)?;
    stage.crash().await
}

/// Scripts whose devices forbid it boot, and it is said why.
pub fn refused() -> Result<(), Failed> {
    run(async {
        let temp = tempfile::tempdir()?;
        let store = SnapshotStore::open(&temp.path().join("snapshots"), ROOMY)?;
        let disk = temp.path().join("disk");
        std::fs::File::create(&disk)?.set_len(1 << 20)?;
        for (number, (options, reason)) in [
            (
                "-snapshot".to_owned(),
                "cold: its script puts its disks where nobody finds them",
            ),
            (
                "-icount shift=auto".to_owned(),
                "cold: its clock counts instructions",
            ),
            (
                format!("-drive file={},if=virtio,format=raw", disk.display()),
                "is outside of its state directory, and can be written to",
            ),
        ]
        .into_iter()
        .enumerate()
        {
            let dir = temp.path().join(number.to_string());
            std::fs::create_dir(&dir)?;
            let mut script = VmScript::new("probe", &system()?);
            script.options = options;
            let command = script.write(&dir)?;
            let stage = Stage::new(&dir, &command, &store)?;
            stage.machine.launch(StartOptions::default()).await?;
            let told = stage.told();
            check(told.len() == 1 && told[0].ends_with(reason), told)?;
            check(stage.machine.pid().is_some(), "it does not boot")?;
            stage.crash().await?;
        }
        check(store.list()?.is_empty(), store.list()?)
    })
}

/// Saved at its first start, restored at the next, and neither where that would not be right.
pub fn life() -> Result<(), Failed> {
    run(async {
        let temp = tempfile::tempdir()?;
        let more = temp.path().join("more");
        std::fs::write(&more, "")?;
        let mut script = VmScript::new("probe", &system()?);
        script.before_shell = "printf golden >/dev/vdb; sync".to_owned();
        // A disk as NixOS' scripts make one, and words that nobody sees in the script.
        script.options = format!(
            "$([ -e disk.qcow2 ] || qemu-img create -q -f qcow2 disk.qcow2 16M) \
             -drive file=disk.qcow2,if=virtio,format=qcow2 $(cat \"{0}/\"more)",
            temp.path().display()
        );
        let command = script.write(temp.path())?;
        let store = SnapshotStore::open(&temp.path().join("snapshots"), ROOMY)?;
        let begin = &|name: &str| {
            let dir = temp.path().join(name);
            let stage = Stage::new(&dir, &command, &store)?;
            Ok::<_, Failed>((stage, dir.join("shared-xchg")))
        };

        let (stage, shared) = begin("first")?;
        let cold = stage.start().await?;
        check(stage.told() == ["saved", "restored"], stage.told())?;
        let first = is_right(&stage, &shared, "first").await?;
        stage.crash().await?;

        let (stage, shared) = begin("second")?;
        let warm = stage.start().await?;
        check(stage.told() == ["restored"], stage.told())?;
        check(warm * 4 < cold, format!("{warm:?} after {cold:?}"))?;
        let second = is_right(&stage, &shared, "second").await?;
        goes_on(stage).await?;

        // As often as one likes, also two at a time: what one writes no other sees.
        let mut random = BTreeSet::from([first.random, second.random]);
        for turn in 0..9 {
            let both = [0, 1].map(|which| async move {
                let name = format!("turn-{turn}-{which}");
                let (stage, shared) = begin(&name)?;
                stage.start().await?;
                check(stage.told() == ["restored"], stage.told())?;
                let fresh = is_right(&stage, &shared, &name).await?;
                stage.crash().await?;
                Ok::<_, Failed>(fresh.random)
            });
            let [one, two] = both;
            let (one, two) = tokio::try_join!(one, two)?;
            random.extend([one, two]);
        }
        check(random.len() == 20, random)?;

        // QEMU gets other words than before.
        std::fs::write(&more, "-rtc base=utc")?;
        let (stage, _) = begin("other")?;
        is_discarded(stage).await
    })
}

/// What was saved does not fit what it is started with.
async fn is_discarded(stage: Stage) -> Result<(), Failed> {
    stage.machine.launch(StartOptions::default()).await?;
    let mut status = stage.machine.status();
    let discarded = async {
        while !stage
            .told()
            .iter()
            .any(|line| line.starts_with("discarded: QEMU's arguments"))
        {
            if status.changed().await.is_err() || stage.machine.status().borrow().state.answers() {
                break;
            }
        }
    };
    tokio::time::timeout(LONG, discarded).await?;
    check(stage.told().len() == 1, stage.told())?;
    stage.crash().await
}
