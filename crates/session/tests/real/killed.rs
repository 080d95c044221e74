//! Engines that are killed, and what is left of them.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use machinist_lab::Lab;
use machinist_session::{Brief, Engine, Session, live_sessions, sweep};

use crate::lab::{MACHINES, Place, runtime, settings};

/// The verb that makes this program an engine with a running lab, to be killed.
pub const VERB: &str = "__engine";

/// Runs a lab until somebody kills us.
pub fn be_an_engine(arguments: &[String]) -> ExitCode {
    let place = PathBuf::from(&arguments[0]);
    runtime().block_on(async {
        let engine = Engine::open(settings(&place), Arc::new(|_| {}))
            .await
            .unwrap();
        let lab = Arc::new(Lab::parse_toml(MACHINES, "lab.toml").unwrap());
        let brief = Brief::new(lab, place.join("lab.toml"), place.clone());
        let session = Session::open(&engine, brief).await.unwrap();
        session.start(&[]).await.unwrap();
        println!("{}", session.id());
        std::future::pending().await
    })
}

/// An engine of its own, with a lab that runs.
struct Victim {
    child: Child,
    session: PathBuf,
}

impl Victim {
    fn start(place: &Place) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg(VERB)
            .arg(place.directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut id = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut id).unwrap();
        let session = place.settings.runtime.join(id.trim());
        assert!(session.join("session.sock").exists());
        Self { child, session }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The process ids of all that has to do with the session.
    fn processes(&self) -> Vec<u32> {
        with_argument(self.session.to_str().unwrap())
    }

    fn guard(&self) -> u32 {
        let is_guard = |pid: &u32| {
            let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&command).contains("__guard")
        };
        self.processes().into_iter().find(is_guard).unwrap()
    }

    /// The cgroups of its containers.
    fn cgroups(&self) -> Vec<PathBuf> {
        let machines = std::fs::read_dir(self.session.join("machines")).unwrap();
        let names = machines.map(|machine| machine.unwrap().path().join("cgroup"));
        names
            .filter_map(|name| Some(std::fs::read_to_string(name).ok()?.into()))
            .collect()
    }

    fn is_gone(&self) -> bool {
        !self.session.exists() && self.processes().is_empty()
    }
}

impl Drop for Victim {
    /// A test that fails must not leave it, nor the pipes that it holds.
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The processes one of whose arguments contains `text`.
fn with_argument(text: &str) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command).contains(text)
    })
    .collect()
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn send(signal: &str, pid: u32) {
    let sent = Command::new("kill")
        .args([signal, &pid.to_string()])
        .status();
    assert!(sent.unwrap().success());
}

pub fn engine() -> Result<(), Failed> {
    let place = Place::new();
    let mut engine = Victim::start(&place);
    assert_eq!(live_sessions(&place.settings.runtime)?.len(), 1);
    engine.kill();
    wait_for("something is left", || engine.is_gone());
    assert!(live_sessions(&place.settings.runtime)?.is_empty());
    Ok(())
}

pub fn engine_and_guard() -> Result<(), Failed> {
    let place = Place::new();
    let mut dead = Victim::start(&place);
    let mut living = Victim::start(&place);
    send("-KILL", dead.guard());
    dead.kill();
    wait_for("the lock is still held", || {
        live_sessions(&place.settings.runtime).unwrap().len() == 1
    });
    assert!(dead.session.exists());
    let swept = sweep(&place.settings.runtime);
    assert_eq!(swept.len(), 1);
    assert_eq!(swept[0].path, dead.session);
    assert_eq!(swept[0].left, Vec::<String>::new());
    wait_for("something is left", || dead.is_gone());
    assert!(living.session.join("session.sock").exists());
    assert!(living.processes().contains(&living.guard()));
    assert!(living.child.try_wait()?.is_none());

    // Cgroups go also where somebody else has removed the directory that names them.
    let cgroups = living.cgroups();
    assert!(!cgroups.is_empty() && cgroups.iter().all(|cgroup| cgroup.exists()));
    send("-KILL", living.guard());
    living.kill();
    wait_for("a process is left", || living.processes().is_empty());
    std::fs::remove_dir_all(&living.session)?;
    wait_for("a cgroup is left", || {
        assert_eq!(sweep(&place.settings.runtime), []);
        !cgroups.iter().any(|cgroup| cgroup.exists())
    });
    Ok(())
}

pub fn at_any_moment() -> Result<(), Failed> {
    let place = Place::new();
    // From before there is anything to after the containers are up.
    for moment in 0..12_u64 {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(VERB)
            .arg(place.directory.path())
            .stdout(Stdio::null())
            .spawn()?;
        std::thread::sleep(Duration::from_millis(moment * moment * 4));
        child.kill()?;
        child.wait()?;
        wait_for("a session is left", || place.sessions().is_empty());
        let path = place.directory.path().to_str().unwrap_or_default();
        wait_for("a process is left", || with_argument(path).is_empty());
    }
    assert_eq!(sweep(&place.settings.runtime), []);
    Ok(())
}

pub fn guard_is_signalled() -> Result<(), Failed> {
    let place = Place::new();
    let mut engine = Victim::start(&place);
    let guard = engine.guard();
    for signal in ["-INT", "-TERM", "-HUP", "-QUIT", "-USR1"] {
        send(signal, guard);
    }
    assert!(Path::new(&format!("/proc/{guard}")).exists());
    engine.kill();
    wait_for("something is left", || engine.is_gone());
    Ok(())
}
