//! A place to run labs in.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use machinist_events::{Event, What};
use machinist_lab::Lab;
use machinist_session::{
    Accel, Cancel, Engine, EventSink, OnFailure, Settings, Snapshots, TestJob, TestResult, run_test,
};

/// Two machines on this host's own root, which needs no image to be built.
pub const MACHINES: &str = r#"
[machine.a]
image = "host"
kind = "container"
[machine.b]
image = "host"
kind = "container"
"#;

/// Why these tests cannot run here, if they cannot.
pub fn lacking() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("containers need root".into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    ["systemd-nspawn", "python3"]
        .iter()
        .find(|program| !std::env::split_paths(&path).any(|at| at.join(program).is_file()))
        .map(|program| format!("{program} is not in PATH"))
}

pub fn settings(runtime: &Path) -> Settings {
    Settings {
        runtime: runtime.join("run"),
        exe: std::env::current_exe().unwrap(),
        images: runtime.join("images"),
        search: std::env::var_os("PATH").unwrap_or_default(),
        accel: Accel::Auto,
        cdi: Vec::new(),
        containers: machinist_lab::ContainerLimits::default(),
        warm: true,
        snapshots: Snapshots {
            directory: runtime.join("snapshots"),
            sources: Vec::new(),
            limit: 1 << 30,
        },
        memory_budget: 1 << 40,
        starts: std::num::NonZero::new(2).unwrap(),
    }
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// A directory for a lab, its script, its sessions, and what is told of them.
pub struct Place {
    pub directory: tempfile::TempDir,
    pub settings: Settings,
    pub events: Arc<Mutex<Vec<Event>>>,
}

impl Place {
    pub fn new() -> Self {
        // Directly in /tmp: paths of sockets must be short.
        let directory = tempfile::Builder::new()
            .prefix("ms")
            .tempdir_in("/tmp")
            .unwrap();
        let settings = settings(directory.path());
        Self {
            directory,
            settings,
            events: Arc::default(),
        }
    }

    pub fn sink(&self) -> EventSink {
        let events = Arc::clone(&self.events);
        Arc::new(move |event| events.lock().unwrap().push(event.clone()))
    }

    pub async fn engine(&self) -> Engine {
        Engine::open(self.settings.clone(), self.sink())
            .await
            .unwrap()
    }

    /// A job for the test `it` of the machines with `test` behind them.
    pub fn job(&self, test: &str) -> TestJob {
        let text = format!("{MACHINES}\n[[test]]\nname = \"it\"\n{test}\n");
        let file = self.directory.path().join("lab.toml");
        std::fs::write(&file, &text).unwrap();
        TestJob {
            lab: Arc::new(Lab::parse_toml(&text, "lab.toml").unwrap()),
            file,
            base: self.directory.path().to_owned(),
            test: "it".into(),
            on_failure: OnFailure::Report,
            timeout_factor: 1.0,
            keep_logs: None,
        }
    }

    /// A job whose test is the script `text`.
    pub fn script(&self, text: &str, more: &str) -> TestJob {
        std::fs::write(self.directory.path().join("it.py"), text).unwrap();
        self.job(&format!("script = \"it.py\"\n{more}"))
    }

    pub fn run(&self, job: TestJob) -> TestResult {
        runtime().block_on(async {
            run_test(&self.engine().await, job, &Cancel::new(), &Cancel::new()).await
        })
    }

    /// What happened, without when and where.
    pub fn told(&self) -> Vec<What> {
        let events = self.events.lock().unwrap();
        events.iter().map(|event| event.what.clone()).collect()
    }

    /// The sessions' directories that are there.
    pub fn sessions(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.settings.runtime)
            .into_iter()
            .flatten();
        entries
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_dir())
            .collect()
    }
}
