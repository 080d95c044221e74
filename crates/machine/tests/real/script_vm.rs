//! VMs that a start script runs. Each boot costs many seconds without hardware virtualization: few
//! boots, much seen.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use libtest_mimic::Failed;
use machinist_guest::Command;
use machinist_image::{BootRoot, Want};
use machinist_machine::{Machine, Report, ScriptKind, ScriptSpec, StartOptions, State, Verdicts};
use machinist_tests::start_script::{VmScript, VmSystem};
use tempfile::TempDir;

use crate::lab::{LONG, check, debian, environment, failure, image, processes_with, run};

/// What the scripts boot: the image, with a kernel that has 9p.
pub fn system() -> Result<VmSystem, Failed> {
    let want = Want::Vm {
        shared_folders: true,
    };
    let boot = image(&debian(), want)?.boot.ok_or("no kernel")?;
    let BootRoot::Erofs(disk) = boot.root else {
        return Err("no disk".into());
    };
    let beside = boot.modules.as_deref().and_then(Path::parent);
    let modules = beside.ok_or("the kernel has no modules of its own")?;
    Ok(VmSystem {
        kernel: boot.kernel,
        modules: modules.join("modules").join(&boot.kernel_version),
        disk,
    })
}

/// A machine with a start script, and where it lives.
struct Stage {
    machine: Machine,
    spec: ScriptSpec,
    reports: Arc<Mutex<Vec<Report>>>,
    _temp: TempDir,
}

impl Stage {
    fn new(script: &VmScript) -> Result<Self, Failed> {
        let temp = tempfile::tempdir()?;
        let command = script.write(temp.path())?;
        Self::of(temp, &script.name, &command.display().to_string())
    }

    fn of(temp: TempDir, name: &str, command: &str) -> Result<Self, Failed> {
        let spec = ScriptSpec {
            name: name.to_owned(),
            kind: ScriptKind::Vm,
            command: command.to_owned(),
            state_dir: temp.path().join(format!("vm-state-{name}")),
            shared_dir: temp.path().join("shared-xchg"),
            keep_state: false,
            vlan_sockets: std::collections::BTreeMap::new(),
            display: false,
            start_within: LONG,
            warm: false,
            variables: Arc::default(),
        };
        let reports = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&reports);
        let mut environment = environment(&temp.path().join("machine"), Verdicts::forgetful())?;
        let talk = std::env::var_os("MACHINIST_TEST_TALK").is_some();
        let began = Instant::now();
        environment.report = Arc::new(move |report| {
            if talk {
                eprintln!("{:.3} {report:?}", began.elapsed().as_secs_f64());
            }
            told.lock().unwrap().push(report);
        });
        Ok(Self {
            machine: Machine::scripted(spec.clone(), environment)?,
            spec,
            reports,
            _temp: temp,
        })
    }

    async fn sh(&self, script: &str) -> Result<String, Failed> {
        let agent = self.machine.agent()?;
        let output = agent.output(&Command::shell(script)).await?;
        if !output.success() {
            return Err(format!("{script}: {output:?}").into());
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Waits until an agent has answered more than `before` times.
    async fn another_agent(&self, before: u64) -> Result<(), Failed> {
        let mut status = self.machine.status();
        let back = status.wait_for(|status| {
            status.boots > before && status.state.answers() || status.state.is_over()
        });
        let status = tokio::time::timeout(LONG, back).await??.clone();
        check(status.state.answers(), status)
    }

    fn warnings(&self) -> Vec<String> {
        let reports = self.reports.lock().unwrap();
        let texts = reports.iter().filter_map(|report| match report {
            Report::Warning { text } => Some(text.clone()),
            _ => None,
        });
        texts.collect()
    }
}

/// A whole life: the shell, the agent through it, and all that can happen to both.
pub fn life() -> Result<(), Failed> {
    run(async {
        let stage = Stage::new(&VmScript::new("probe", &system()?))?;
        let machine = &stage.machine;
        machine.launch(StartOptions::default()).await?;
        let pid = machine.pid().ok_or("no process")?;
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm"))?;
        check(name.starts_with("qemu"), name)?;
        machine.connected(LONG).await?;
        check(!machine.agent()?.info().plain, "it is plain")?;
        // Nothing of the agent's way in is left.
        let left: Vec<PathBuf> = std::fs::read_dir(&stage.spec.shared_dir)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<_, _>>()?;
        check(left.is_empty(), left)?;
        let agent = machine.agent()?;
        let output = agent
            .output(&Command::shell("echo out; echo err >&2; exit 3"))
            .await?;
        check(
            output.stdout == b"out\n" && output.stderr == b"err\n" && output.status() == 3,
            output,
        )?;
        std::fs::write(stage.spec.shared_dir.join("file"), "from the host")?;
        let seen = stage
            .sh("cat /tmp/shared/file; hostname; echo $DISPLAY")
            .await?;
        check(seen == "from the hostprobe\n:0.0", seen)?;
        seeing(&stage).await?;
        lost_agent(&stage).await?;

        // A restart, under the same QEMU.
        let before = stage.sh("cat /proc/sys/kernel/random/boot_id").await?;
        machine.reboot().await?;
        let after = stage.sh("cat /proc/sys/kernel/random/boot_id").await?;
        check(
            before != after && machine.pid() == Some(pid),
            (before, after),
        )?;

        machine.shutdown(LONG).await?;
        check(machine.pid().is_none(), "a process is left")?;
        check(
            processes_with(&stage.spec.state_dir.display().to_string()).is_empty(),
            "processes are left",
        )
    })
}

/// The monitor, events, the screen, the console.
async fn seeing(stage: &Stage) -> Result<(), Failed> {
    let machine = &stage.machine;
    let said = machine.monitor("info status").await?;
    check(said.contains("running"), said)?;
    let qmp = machine.qmp().await?;
    let mut events = qmp.events();
    qmp.execute("stop", &serde_json::Value::Null).await?;
    qmp.execute("cont", &serde_json::Value::Null).await?;
    let event = events.next().await.ok_or("no event")?;
    check(event["event"] == "STOP", &event)?;
    let picture = machine.screenshot().await?;
    check(picture.starts_with(b"\x89PNG\r\n\x1a\n"), picture.len())?;
    // A kernel's console is typed on, and noise on hvc0 disturbs nobody.
    stage
        .sh("cat </dev/ttyS0 >/tmp/typed & echo $! >/tmp/cat")
        .await?;
    machine.console_send(b"hello\n").await?;
    let typed = "until grep -q hello /tmp/typed; do sleep 0.05; done; kill $(cat /tmp/cat)";
    stage.sh(typed).await?;
    stage
        .sh("head -c 10000 /dev/urandom >/dev/hvc0; printf 'web login: ' >/dev/hvc0; echo >/dev/hvc0")
        .await?;
    check(stage.sh("echo still").await? == "still", "it is lost")
}

/// The agent is killed, and the shell: both come back.
async fn lost_agent(stage: &Stage) -> Result<(), Failed> {
    for end in ["kill -KILL $PPID", "systemctl restart backdoor"] {
        let before = stage.machine.status().borrow().boots;
        let agent = stage.machine.agent()?;
        // It may not live to hear of its end.
        drop(agent.output(&Command::plain_shell(end)).await);
        stage.another_agent(before).await?;
        check(stage.sh("echo back").await? == "back", end)?;
    }
    Ok(())
}

/// No directory is shared: the agent comes through the shell itself, also one that is no bash. A
/// restart is the machine's end.
pub fn through_the_shell() -> Result<(), Failed> {
    run(async {
        let mut script = VmScript::new("alone", &system()?);
        script.shares = false;
        script.shell = "/bin/dash".to_owned();
        let stage = Stage::new(&script)?;
        let machine = &stage.machine;
        let may_restart = false;
        machine.start(StartOptions { may_restart }).await?;
        check(!machine.agent()?.info().plain, "it is plain")?;
        check(stage.warnings().is_empty(), stage.warnings())?;
        check(
            stage.sh("echo $((6 * 7))").await? == "42",
            "it cannot count",
        )?;
        let agent = machine.agent()?;
        drop(
            agent
                .output(&Command::shell("systemctl --no-block reboot"))
                .await,
        );
        machine.wait_for_shutdown(LONG).await?;
        check(machine.status().borrow().state == State::Off, "it is on")
    })
}

/// The machine stops in its initrd, with a shell there; then it goes on.
pub fn switches_root() -> Result<(), Failed> {
    run(async {
        let mut script = VmScript::new("stages", &system()?);
        script.initrd_shell = true;
        let stage = Stage::new(&script)?;
        let machine = &stage.machine;
        machine.start(StartOptions::default()).await?;
        check(!machine.agent()?.info().plain, "it is plain")?;
        stage
            .sh("test -e /etc/initrd-release; test -d /sysroot/etc")
            .await?;
        let before = stage.sh("cat /proc/sys/kernel/random/boot_id").await?;
        machine.switch_root(LONG).await?;
        stage.sh("test ! -e /etc/initrd-release").await?;
        let after = stage.sh("cat /proc/sys/kernel/random/boot_id").await?;
        check(before == after, "it has restarted")?;
        machine.ready(LONG).await?;
        machine.shutdown(LONG).await?;
        check(machine.status().borrow().state == State::Off, "it is on")
    })
}

/// Nothing can be written and executed in the guest: its shell serves, slowly.
pub fn read_only() -> Result<(), Failed> {
    run(async {
        let mut script = VmScript::new("stone", &system()?);
        script.shares = false;
        script.before_shell = "for dir in /run /dev/shm /tmp; do \
            mount -o remount,noexec $dir || mount -t tmpfs -o noexec none $dir; done; \
            mount -o remount,ro /"
            .to_owned();
        let stage = Stage::new(&script)?;
        let machine = &stage.machine;
        machine.start(StartOptions::default()).await?;
        let agent = machine.agent()?;
        check(agent.info().plain, agent.info())?;
        let told = stage.warnings();
        check(
            told.len() == 1 && told[0].contains("written and executed"),
            told,
        )?;
        machine.ready(LONG).await?;
        let output = agent
            .output(&Command::shell("echo out; echo err >&2; exit 3"))
            .await?;
        check(
            output.stdout == b"out\n" && output.stderr == b"err\n" && output.status() == 3,
            output,
        )?;
        let deadline = tokio::time::Instant::now() + LONG;
        let host = tempfile::tempdir()?;
        let file = host.path().join("file");
        std::fs::write(&file, [b'x'; 100_000])?;
        let inside = Path::new("/tmp/dir/copy");
        agent.copy_in(&file, inside).await?;
        agent.wait_file(inside, deadline).await?;
        let back = host.path().join("back");
        agent.copy_out(inside, &back).await?;
        check(std::fs::read(&back)? == [b'x'; 100_000], "another file")?;
        let manager = machinist_guest::systemd::Manager::connect(&agent, None, deadline).await?;
        let unit = "multi-user.target";
        manager.wait_for_unit(unit, deadline, &mut |_| {}).await?;
        let inactive = manager.wait_for_unit("rescue", deadline, &mut |_| {}).await;
        check(inactive.is_err(), inactive)?;
        machine.shutdown(LONG).await?;
        check(machine.status().borrow().state == State::Off, "it is on")
    })
}

/// Scripts that cannot be run, or end at once.
pub fn wrong() -> Result<(), Failed> {
    run(async {
        let temp = tempfile::tempdir()?;
        let path = temp.path().join("run-no-vm");
        let command = path.display().to_string();
        let stage = Stage::of(temp, "no", &command)?;
        let started = stage.machine.launch(StartOptions::default()).await;
        let (reason, _) = failure(started)?;
        check(
            reason.contains(&command) && reason.contains("No such file"),
            reason,
        )?;
        std::fs::write(&path, "#!/bin/sh\n")?;
        let (reason, _) = failure(stage.machine.launch(StartOptions::default()).await)?;
        check(reason.contains("Permission denied"), reason)?;

        let temp = tempfile::tempdir()?;
        let stage = Stage::of(temp, "ends", "echo words >&2; exit 7; true")?;
        let (reason, last) = failure(stage.machine.start(StartOptions::default()).await)?;
        check(
            reason.contains("status 7") && reason.ends_with(": words"),
            reason,
        )?;
        check(last == ["words"], last)?;
        let temp = tempfile::tempdir()?;
        let stage = Stage::of(temp, "done", "echo nothing to do >&2; true")?;
        let (reason, _) = failure(stage.machine.start(StartOptions::default()).await)?;
        let wanted = "status 0 before its QEMU could be reached: nothing to do";
        check(reason.ends_with(wanted), reason)
    })
}

/// QEMU dies, and whatever a script leaves beside it goes, too.
pub fn killed() -> Result<(), Failed> {
    run(async {
        let temp = tempfile::tempdir()?;
        let mark = temp.path().display().to_string();
        let script = temp.path().join("run-two-vm");
        // It forks QEMU, and something that goes its own way.
        std::fs::write(
            &script,
            format!(
                "#!/bin/sh\nsetsid sh -c 'sleep 1000; : {mark}' &\nqemu-system-x86_64 -M q35,accel=tcg -m 64 \"$@\"\n"
            ),
        )?;
        std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let stage = Stage::of(temp, "two", &script.display().to_string())?;
        stage.machine.launch(StartOptions::default()).await?;
        check(processes_with(&mark).len() >= 3, processes_with(&mark))?;
        let qemus = processes_with(&format!("qemu.*{mark}"));
        for line in qemus
            .iter()
            .filter(|line| !line.contains("__watch") && line.contains(" -qmp "))
        {
            let pid = line.split(' ').next().unwrap_or_default();
            if std::fs::read_to_string(format!("/proc/{pid}/comm"))?.starts_with("qemu") {
                std::process::Command::new("kill")
                    .args(["-KILL", pid])
                    .status()?;
            }
        }
        let mut status = stage.machine.status();
        let over = status.wait_for(|status| status.state.is_over());
        let state = tokio::time::timeout(LONG, over).await??.state.clone();
        check(
            matches!(&state, State::Failed { reason } if reason.contains("status 137")),
            state,
        )?;
        stage.machine.crash().await?;
        check(processes_with(&mark).is_empty(), processes_with(&mark))
    })
}
