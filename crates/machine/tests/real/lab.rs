//! What the tests have in common: images, machines, and what was reported of them.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use libtest_mimic::Failed;
use machinist_guest::AGENT;
use machinist_image::{Image, ImageSpec, Source, Store, Want};
use machinist_machine::{
    Accel, AgentBinary, Attach, Boot, Environment, Kind, Machine, MachineError, MachineSpec,
    NoNetwork, Report, Verdicts, Warm,
};
use tempfile::TempDir;

/// Longer than anything here takes on a busy host without hardware virtualization.
pub const LONG: Duration = Duration::from_secs(180);

pub fn lacking_for_containers() -> Option<String> {
    lacking(&["systemd-nspawn", "mmdebstrap"])
}

pub fn lacking_for_vms() -> Option<String> {
    lacking(&[machinist_machine::QEMU, "mmdebstrap", "mkfs.erofs"])
}

fn lacking(tools: &[&str]) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root".to_owned());
    }
    if AGENT.is_empty() {
        return Some("there is no agent for this machine".to_owned());
    }
    let missing = tools.iter().find(|tool| find_tool(tool).is_none())?;
    Some(format!("needs {missing}"))
}

fn find_tool(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| file.exists())
}

/// The cache for images: the user's own, so that one build serves all tests.
pub fn cache() -> PathBuf {
    if let Some(dir) = std::env::var_os("MACHINIST_CACHE") {
        return dir.into();
    }
    let base = std::env::var_os("XDG_CACHE_HOME").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache"),
        PathBuf::from,
    );
    base.join("machinist")
}

pub fn image(source: &Source, want: Want) -> Result<Image, Failed> {
    let store = Store::open(&cache(), AGENT)?;
    let spec = ImageSpec {
        source: source.clone(),
        files: Vec::new(),
    };
    Ok(store.ensure(&spec, want, &|_| {})?)
}

pub fn debian() -> Source {
    Source::Debian {
        suite: "bookworm".into(),
        packages: Vec::new(),
    }
}

/// One machine in a directory of its own, and all that was reported of it.
pub struct Bench {
    pub machine: Machine,
    pub dir: PathBuf,
    reports: Arc<Mutex<Vec<Report>>>,
    _temp: TempDir,
}

pub fn container_spec() -> Result<MachineSpec, Failed> {
    Ok(spec(
        image(&debian(), Want::Container)?,
        Kind::Container {
            devices: machinist_machine::devices::Devices::default(),
        },
    ))
}

pub fn vm_spec(accel: Accel, boot: Boot) -> Result<MachineSpec, Failed> {
    let want = Want::Vm {
        shared_folders: false,
    };
    let kind = Kind::Vm {
        accel,
        disks: Vec::new(),
    };
    let mut spec = spec(image(&debian(), want)?, kind);
    spec.boot = boot;
    Ok(spec)
}

pub fn spec(image: Image, kind: Kind) -> MachineSpec {
    MachineSpec {
        name: "probe".into(),
        image,
        kind,
        boot: Boot::System,
        memory: 512 << 20,
        cpus: 1,
        nics: Vec::new(),
        uplink: false,
        hosts: Vec::new(),
        machine_id: "0123456789abcdef0123456789abcdef".into(),
        volumes: Vec::new(),
        publish: Vec::new(),
        start_within: LONG,
        warm: Warm::default(),
    }
}

pub fn environment(dir: &Path, verdicts: Verdicts) -> std::io::Result<Environment> {
    Ok(Environment {
        dir: dir.to_owned(),
        exe: std::env::current_exe()?,
        agent: AgentBinary::new(AGENT)?,
        attach: Arc::new(NoNetwork),
        report: Arc::new(|_| {}),
        verdicts,
        search: std::env::var_os("PATH").unwrap_or_default(),
        hidden: vec![cache()],
        snapshots: None,
    })
}

impl Bench {
    pub fn new(spec: MachineSpec) -> Result<Self, Failed> {
        Self::with_verdicts(spec, Verdicts::forgetful())
    }

    pub fn with_verdicts(spec: MachineSpec, verdicts: Verdicts) -> Result<Self, Failed> {
        Self::on(spec, Arc::new(NoNetwork), verdicts)
    }

    pub fn on(
        spec: MachineSpec,
        attach: Arc<dyn Attach>,
        verdicts: Verdicts,
    ) -> Result<Self, Failed> {
        let temp = tempfile::tempdir()?;
        let dir = temp.path().join("probe");
        let reports = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&reports);
        let mut environment = environment(&dir, verdicts)?;
        environment.attach = attach;
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
            dir,
            reports,
            _temp: temp,
        })
    }

    pub fn reports(&self) -> Vec<Report> {
        self.reports.lock().unwrap().clone()
    }

    /// Runs a shell script in the machine and returns what it printed.
    pub async fn sh(&self, script: &str) -> Result<String, Failed> {
        let agent = self.machine.agent()?;
        let output = agent
            .output(&machinist_guest::Command::shell(script))
            .await?;
        if !output.success() {
            return Err(format!("{script}: {output:?}").into());
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

/// Runs a test's body in a runtime of its own, and within a time that no sound one needs.
pub fn run(body: impl Future<Output = Result<(), Failed>>) -> Result<(), Failed> {
    run_within(2 * LONG, body)
}

/// The same, for one that does more than others.
pub fn run_within(
    limit: Duration,
    body: impl Future<Output = Result<(), Failed>>,
) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        tokio::time::timeout(limit, body)
            .await
            .map_err(|_| Failed::from("the test hangs"))?
    })
}

/// The reason and the last words of a failed machine.
pub fn failure(result: Result<(), MachineError>) -> Result<(String, Vec<String>), Failed> {
    match result {
        Err(MachineError::Failed {
            reason, last_words, ..
        }) => Ok((reason, last_words)),
        other => Err(format!("expected a failure, got {other:?}").into()),
    }
}

pub fn check(holds: bool, what: impl std::fmt::Debug) -> Result<(), Failed> {
    if holds {
        Ok(())
    } else {
        Err(format!("{what:?}").into())
    }
}

/// Processes of the host whose command line has `word` in it.
pub fn processes_with(word: &str) -> Vec<String> {
    let output = Command::new("pgrep")
        .args(["-af", "--", word])
        .stderr(Stdio::null())
        .output();
    let Ok(output) = output else {
        return Vec::new();
    };
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter(|line| !line.contains("pgrep"))
        .map(str::to_owned)
        .collect()
}
