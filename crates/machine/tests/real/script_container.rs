//! Containers that a start script runs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use machinist_guest::Command;
use machinist_image::Want;
use machinist_machine::ground::Ground;
use machinist_machine::{
    Attach, Machine, MachineError, NicSpec, ScriptKind, ScriptSpec, StartOptions, State, Verdicts,
};
use machinist_sys::netlink::Netlink;
use machinist_tests::start_script::ContainerScript;
use tempfile::TempDir;

use crate::lab::{LONG, check, debian, environment, failure, image, run};

/// Start scripts in a directory of their own, and the session's ground that they share.
struct Stage {
    temp: TempDir,
    ground: Ground,
}

/// A network of which scripts want no more than a ground.
struct Bare(Ground);

impl Attach for Bare {
    fn vm_port(&self, _machine: &str, _nic: &NicSpec) -> std::io::Result<PathBuf> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    fn container_ports(&self, _machine: &str, _nics: &[NicSpec], _pid: u32) -> std::io::Result<()> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    fn detach(&self, _machine: &str) {}

    fn ground(&self) -> Option<Ground> {
        Some(self.0.clone())
    }
}

/// A container that `command` runs, with its directories in `dir`.
pub fn script_spec(name: &str, command: &str, dir: &Path) -> ScriptSpec {
    ScriptSpec {
        name: name.to_owned(),
        kind: ScriptKind::Container,
        command: command.to_owned(),
        state_dir: dir.join(format!("vm-state-{name}")),
        shared_dir: dir.join("shared-xchg"),
        keep_state: false,
        vlan_sockets: std::collections::BTreeMap::new(),
        display: false,
        start_within: LONG,
        warm: false,
        variables: Arc::default(),
    }
}

impl Stage {
    fn new() -> Result<Self, Failed> {
        Ok(Self {
            temp: tempfile::tempdir()?,
            ground: Ground::new(std::env::current_exe()?),
        })
    }

    fn path(&self) -> &Path {
        self.temp.path()
    }

    fn state_dir(&self, name: &str) -> PathBuf {
        self.path().join(format!("vm-state-{name}"))
    }

    fn machine(&self, name: &str, command: &str) -> Result<Machine, Failed> {
        let spec = script_spec(name, command, self.path());
        let dir = self.path().join("machines").join(name);
        let mut environment = environment(&dir, Verdicts::forgetful())?;
        environment.attach = Arc::new(Bare(self.ground.clone()));
        environment.report = Arc::new(|report| {
            // For whoever looks into a failure.
            if std::env::var_os("MACHINIST_TEST_TALK").is_some() {
                eprintln!("{report:?}");
            }
        });
        Ok(Machine::scripted(spec, environment)?)
    }

    fn scripted(&self, script: &ContainerScript) -> Result<Machine, Failed> {
        let path = script.write(self.path())?;
        self.machine(&script.name, &path.display().to_string())
    }

    /// The interfaces of the ground's network namespace.
    fn interfaces(&self) -> Result<Vec<String>, Failed> {
        let links = self.ground.network()?.run(|| Netlink::open()?.links())??;
        Ok(links.into_iter().map(|link| link.name).collect())
    }
}

fn script(name: &str) -> Result<ContainerScript, Failed> {
    let root = image(&debian(), Want::Container)?.root;
    Ok(ContainerScript::new(name, &root))
}

async fn sh(machine: &Machine, script: &str) -> Result<String, Failed> {
    let output = machine.agent()?.output(&Command::shell(script)).await?;
    if !output.success() {
        return Err(format!("{script}: {output:?}").into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn host_things() -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for dir in ["/run", "/run/netns", "/sys/class/net", "/etc", "/dev"] {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        all.extend(entries.map(|entry| entry.path().display().to_string()));
    }
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    all.extend(mounts.lines().map(str::to_owned));
    // The first machine of all makes these, and they stay.
    for stays in ["/run/machinist", "/run/systemd", "/run/mount"] {
        all.remove(stays);
    }
    all
}

/// Checks that the host shows nothing that was not there before; what others do at the same time is
/// there for a while.
fn shows_nothing_but(before: &BTreeSet<String>) -> Result<(), Failed> {
    let deadline = Instant::now() + LONG / 3;
    loop {
        let now = host_things();
        let new: Vec<&String> = now.difference(before).collect();
        if new.is_empty() {
            return Ok(());
        }
        check(Instant::now() < deadline, new)?;
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn life() -> Result<(), Failed> {
    run(async {
        let before = host_things();
        let stage = Stage::new()?;
        let [one, two] = [("one", 1), ("two", 2)].map(|(name, number)| {
            let mut script = script(name)?.on(number, &[1, 2]);
            script.hosts = vec!["192.168.1.1 one".into(), "192.168.1.2 two".into()];
            stage.scripted(&script)
        });
        let (one, two) = (one?, two?);
        let began = Instant::now();
        let options = StartOptions::default();
        tokio::try_join!(one.start(options), two.start(options))?;
        eprintln!("two containers answer after {:?}", began.elapsed());
        tokio::try_join!(one.ready(LONG), two.ready(LONG))?;
        eprintln!("two containers are ready after {:?}", began.elapsed());
        let found = sh(
            &one,
            "hostname; systemctl is-system-running; cat /proc/1/comm",
        )
        .await?;
        check(found == "one\nrunning\nsystemd", found)?;
        shows_nothing_but(&before)?;

        joined(&stage, &one, &two).await?;
        sh(&one, "logger --tag=greeter 'hello, console'").await?;
        let mut lines = one.console().lines();
        let told = async {
            while let Some(line) = lines.next().await {
                if line.contains("greeter") && line.ends_with("hello, console") {
                    return true;
                }
            }
            false
        };
        let told = tokio::time::timeout(LONG, told).await;
        check(told == Ok(true), "the journal is on the console")?;

        let asked = Instant::now();
        one.shutdown(LONG).await?;
        eprintln!("one is off after {:?}", asked.elapsed());
        check(asked.elapsed() < LONG / 3, asked.elapsed())?;
        check(
            matches!(one.agent(), Err(MachineError::Off { .. })),
            "an agent after the end",
        )?;
        let left = stage.interfaces()?;
        check(!left.iter().any(|it| it.starts_with("one-")), left)?;
        // What it wrote is there when it comes back.
        check(
            stage.state_dir("one").join("etc/hostname").exists(),
            "its state",
        )?;
        one.start(options).await?;
        check(sh(&one, "hostname").await? == "one", "again")?;
        one.crash().await?;
        two.crash().await?;
        check(two.status().borrow().state == State::Off, "off")?;
        let left = stage.interfaces()?;
        check(left.iter().all(|it| !it.contains("-eth")), left)?;
        drop((one, two));
        // Nothing of it may be in the way of whoever removes it.
        std::fs::remove_dir_all(stage.path())?;
        shows_nothing_but(&before)
    })
}

/// Two containers are on the same wires, and see what is shared.
async fn joined(stage: &Stage, one: &Machine, two: &Machine) -> Result<(), Failed> {
    for address in ["192.168.1.2", "2001:db8:2::2", "two"] {
        // Nobody listens there, and somebody says so.
        let knock = format!("bash -c 'exec 3<>/dev/tcp/{address}/9' 2>&1 || true");
        let answer = sh(one, &knock).await?;
        check(answer.contains("refused"), answer)?;
    }
    let neighbour = sh(
        one,
        "ip -br addr show dev eth2; ip -6 -br addr show dev eth1",
    )
    .await?;
    check(neighbour.contains("192.168.2.1/24"), &neighbour)?;
    check(neighbour.contains("2001:db8:1::1/64"), &neighbour)?;
    sh(one, "echo shared > /tmp/shared/word").await?;
    check(
        sh(two, "cat /tmp/shared/word").await? == "shared",
        "the shared directory",
    )?;
    let interfaces = stage.interfaces()?;
    for name in ["br1", "br2", "one-eth1", "two-eth2"] {
        check(interfaces.iter().any(|it| it == name), (name, &interfaces))?;
    }

    let pid = one.leader().ok_or("one has no process")?;
    stage.ground.set_links(pid, None, false)?;
    let knock = "bash -c 'exec 3<>/dev/tcp/192.168.1.2/9' 2>&1 & sleep 0.3; kill %1; wait";
    check(
        !sh(one, knock).await?.contains("refused"),
        "its cable is pulled",
    )?;
    stage.ground.set_links(pid, Some(1), true)?;
    let knock = "bash -c 'exec 3<>/dev/tcp/192.168.1.2/9' 2>&1 || true";
    check(
        sh(one, knock).await?.contains("refused"),
        "its cable is back",
    )?;
    Ok(())
}

pub fn restarts() -> Result<(), Failed> {
    run(async {
        let stage = Stage::new()?;
        let machine = stage.scripted(&script("again")?.on(1, &[3]))?;
        machine.start(StartOptions::default()).await?;
        machine.ready(LONG).await?;
        sh(&machine, "echo kept > /var/kept").await?;
        machine.reboot().await?;
        check(sh(&machine, "cat /var/kept").await? == "kept", "kept")?;
        machine.ready(LONG).await?;
        sh(&machine, "systemctl poweroff --no-block").await?;
        machine.wait_for_shutdown(LONG).await?;
        // Where it may not restart, a restart is its end.
        machine.start(StartOptions { may_restart: false }).await?;
        machine.ready(LONG).await?;
        sh(&machine, "systemctl reboot --no-block").await?;
        machine.wait_for_shutdown(LONG).await?;
        Ok(())
    })
}

/// Two sessions use the same names, VLANs and bridges at the same time.
pub fn two_sessions() -> Result<(), Failed> {
    run(async {
        let (here, there) = (Stage::new()?, Stage::new()?);
        let options = StartOptions::default();
        let one = here.scripted(&script("same")?.on(1, &[1]))?;
        let other = there.scripted(&script("same")?.on(1, &[1]))?;
        tokio::try_join!(one.start(options), other.start(options))?;
        sh(&one, "echo here > /tmp/shared/word").await?;
        check(
            sh(&other, "ls /tmp/shared").await?.is_empty(),
            "they share a directory",
        )?;
        one.crash().await?;
        check(sh(&other, "echo goes on").await? == "goes on", "the other")?;
        other.crash().await?;
        Ok(())
    })
}

/// The options of NixOS 26.05, and a script that tells the notification socket nothing.
pub fn generations() -> Result<(), Failed> {
    run(async {
        let stage = Stage::new()?;
        let mut older = script("older")?.on(1, &[1]);
        older.options = [
            "--private-users=no",
            "--bind=/proc:/run/host/proc",
            "--bind=/sys:/run/host/sys",
        ]
        .map(str::to_owned)
        .to_vec();
        let older = stage.scripted(&older)?;
        let quiet = script("quiet")?.write(stage.path())?;
        let command = format!("env --unset=NOTIFY_SOCKET {}", quiet.display());
        let quiet = stage.machine("quiet", &command)?;
        let options = StartOptions::default();
        tokio::try_join!(older.start(options), quiet.start(options))?;
        tokio::try_join!(older.ready(LONG), quiet.ready(LONG))?;
        for machine in [&older, &quiet] {
            let found = sh(machine, "hostname; systemctl is-system-running").await?;
            check(found == format!("{}\nrunning", machine.name()), found)?;
            machine.shutdown(LONG).await?;
        }
        Ok(())
    })
}

/// What a killed container leaves is not in the way of the next run, nor of whoever cleans up.
pub fn immutable() -> Result<(), Failed> {
    run(async {
        let stage = Stage::new()?;
        let empty = stage.state_dir("marked").join("var/empty");
        let mark = |sign: &str| {
            let status = std::process::Command::new("chattr")
                .args([sign, "--"])
                .arg(&empty)
                .status();
            status.is_ok_and(|status| status.success())
        };
        std::fs::create_dir_all(&empty)?;
        if !mark("+i") {
            eprintln!("the file system of {} knows no such mark", empty.display());
            return Ok(());
        }
        check(std::fs::remove_dir(&empty).is_err(), "it was not marked")?;
        let machine = stage.scripted(&script("marked")?)?;
        check(!empty.exists(), "what an earlier run left")?;
        machine.start(StartOptions::default()).await?;
        machine.crash().await?;
        check(empty.exists(), "what this run leaves")?;
        check(mark("+i"), "the mark")?;
        machinist_machine::leftovers::remove_tree(&stage.state_dir("marked"))?;
        check(!empty.exists(), "what is left")
    })
}

/// A script that cannot do what it is to do.
pub fn fails() -> Result<(), Failed> {
    run(async {
        let stage = Stage::new()?;
        let machine = stage.machine("broken", "sh -c 'echo no such image >&2; exit 3'")?;
        let started = machine.start(StartOptions::default()).await;
        let (reason, words) = failure(started)?;
        check(
            reason == "its start script ended with status 3: no such image",
            &reason,
        )?;
        check(words.iter().any(|word| word == "no such image"), words)?;
        let machine = stage.machine("nothing", "sh -c 'echo nothing to do >&2'")?;
        let (reason, words) = failure(machine.start(StartOptions::default()).await)?;
        check(
            reason
                == "its start script ended with status 0 before its container's system ran: nothing to do",
            (reason, words),
        )?;
        let machine = stage.machine("absent", "/no/such/run-absent-nspawn")?;
        let (reason, words) = failure(machine.start(StartOptions::default()).await)?;
        check(reason.contains("status 127"), (reason, words))
    })
}

/// A script that does not listen when it is asked to end.
pub fn deaf() -> Result<(), Failed> {
    run(async {
        let stage = Stage::new()?;
        let machine = stage.machine("deaf", "sh -c 'trap \"\" TERM; while :; do sleep 1; done'")?;
        machine.launch(StartOptions::default()).await?;
        let asked = Instant::now();
        machine.crash().await?;
        check(asked.elapsed() < LONG / 3, asked.elapsed())
    })
}
