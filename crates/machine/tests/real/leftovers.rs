//! What is left when the process that owns machines is killed.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use machinist_machine::{Accel, Boot, Machine, ScriptKind, StartOptions, Verdicts, leftovers};

use machinist_image::Want;
use machinist_tests::start_script::ContainerScript;

use crate::lab::{check, container_spec, debian, environment, image, processes_with, run, vm_spec};
use crate::script_container::script_spec;

/// `__owner KIND DIR`: starts a machine, says so, and waits to be killed. KIND is `vm`, `container`,
/// or the path of a start script.
pub fn own(arguments: &[String]) -> ExitCode {
    let [kind, dir] = arguments else {
        return ExitCode::from(2);
    };
    let result = run(async {
        let dir = Path::new(dir);
        let environment = environment(dir, Verdicts::forgetful())?;
        let machine = match kind.as_str() {
            "vm" => Machine::new(vm_spec(Accel::Tcg, Boot::Agent)?, environment)?,
            "container" => Machine::new(container_spec()?, environment)?,
            script => {
                let mut spec = script_spec("orphan", script, dir);
                if script.ends_with("-vm") {
                    spec.kind = ScriptKind::Vm;
                }
                Machine::scripted(spec, environment)?
            }
        };
        if kind.ends_with("-vm") {
            // It has nothing to boot.
            machine.launch(StartOptions::default()).await?;
        } else {
            machine.start(StartOptions::default()).await?;
        }
        println!("started");
        std::future::pending().await
    });
    if let Err(error) = result {
        println!("{error:?}");
    }
    ExitCode::FAILURE
}

pub fn container() -> Result<(), Failed> {
    let temp = tempfile::tempdir()?;
    let dir = temp.path().join("orphan-container");
    let owned = kill_owner("container", &dir)?;
    let cgroup = PathBuf::from(std::fs::read_to_string(dir.join("cgroup"))?);
    check(leftovers::remove(&dir).is_empty(), "something stays")?;
    check(!cgroup.exists() && !dir.exists(), "the cgroup stays")?;
    check(owned.iter().all(|pid| !alive(pid)), owned)?;
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    check(!mounts.contains("machinist/root"), "a mount stays")
}

pub fn script() -> Result<(), Failed> {
    let temp = tempfile::tempdir()?;
    let dir = temp.path().join("orphan-script");
    let root = image(&debian(), Want::Container)?.root;
    let script = ContainerScript::new("orphan", &root).on(1, &[7]);
    let script = script.write(temp.path())?.display().to_string();
    let before = std::fs::read_to_string("/proc/self/mounts")?;
    let owned = kill_owner(&script, &dir)?;
    check(leftovers::remove(&dir).is_empty(), "something stays")?;
    check(owned.iter().all(|pid| !alive(pid)), owned)?;
    // What others mount at the same time is there for a while.
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let now = std::fs::read_to_string("/proc/self/mounts")?;
        let new: Vec<&str> = now.lines().filter(|line| !before.contains(line)).collect();
        if new.is_empty() {
            break;
        }
        check(Instant::now() < deadline, new)?;
        std::thread::sleep(Duration::from_millis(20));
    }
    for place in ["/run/netns/nixos-nspawn-orphan", "/sys/class/net/br7"] {
        check(!Path::new(place).exists(), place)?;
    }
    Ok(())
}

/// A script that forks QEMU, beside something that goes its own way.
pub fn forking_script() -> Result<(), Failed> {
    let temp = tempfile::tempdir()?;
    let dir = temp.path().join("orphan-script");
    let script = temp.path().join("run-orphan-vm");
    let text = "#!/bin/sh\nsetsid sleep 1000 &\nqemu-system-x86_64 -M q35,accel=tcg -m 64 \"$@\"\n";
    std::fs::write(&script, text)?;
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755))?;
    let owned = kill_owner(&script.display().to_string(), &dir)?;
    // The one who watches, the script, QEMU, and the sleeper.
    check(owned.len() >= 4, &owned)?;
    check(leftovers::remove(&dir).is_empty(), "something stays")
}

pub fn vm() -> Result<(), Failed> {
    let temp = tempfile::tempdir()?;
    let dir = temp.path().join("orphan-vm");
    let owned = kill_owner("vm", &dir)?;
    check(leftovers::remove(&dir).is_empty(), "something stays")?;
    check(owned.iter().all(|pid| !alive(pid)), owned)
}

/// Starts an owner, kills it, and waits until its children are gone. Returns who they were.
fn kill_owner(kind: &str, dir: &Path) -> Result<Vec<String>, Failed> {
    let mut owner = Command::new(std::env::current_exe()?)
        .args(["__owner", kind])
        .arg(dir)
        .stdout(Stdio::piped())
        .spawn()?;
    let mut said = String::new();
    if let Some(stdout) = owner.stdout.take() {
        BufReader::new(stdout).read_line(&mut said)?;
    }
    let owned = descendants(owner.id());
    owner.kill()?;
    owner.wait()?;
    check(said == "started\n", &said)?;
    check(!owned.is_empty(), "it owned nothing")?;
    let deadline = Instant::now() + Duration::from_secs(60);
    while owned.iter().any(|pid| alive(pid)) {
        if Instant::now() > deadline {
            let left: Vec<_> = owned.iter().filter(|pid| alive(pid)).collect();
            return Err(format!("left: {left:?}, {:?}", processes_with("machinist")).into());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(owned)
}

fn alive(pid: &str) -> bool {
    Path::new("/proc").join(pid).exists()
}

fn descendants(pid: u32) -> Vec<String> {
    let mut all = Vec::new();
    let mut next = vec![pid.to_string()];
    while let Some(parent) = next.pop() {
        let tasks = std::fs::read_dir(format!("/proc/{parent}/task"));
        for task in tasks.into_iter().flatten().flatten() {
            let children = std::fs::read_to_string(task.path().join("children"));
            for child in children.unwrap_or_default().split_whitespace() {
                all.push(child.to_owned());
                next.push(child.to_owned());
            }
        }
    }
    all
}
