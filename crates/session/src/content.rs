//! What a session is filled with: the machines of a lab, or those of a driver's start scripts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use machinist_events::What;
use machinist_machine::Boot;
use machinist_machine::devices::{self, Places};

use crate::control::Control;
use crate::directory::Directory;
use crate::driver::DriverJob;
use crate::hub::{Facts, Hub};
use crate::images::Images;
use crate::log::Log;
use crate::machines::{Ground, Recipe, SessionMachine};
use crate::network::Network;
use crate::plan::{self, Circumstances, MachinePlan};
use crate::scripted::{self, ScriptFarm};
use crate::session::{Brief, SessionError};
use crate::sharing::{Costs, Usage};
use crate::{Engine, protocol};

/// What a session is filled with.
pub(crate) enum Content {
    /// A lab.
    Lab(Brief),
    /// What a driver is given.
    Driver(Arc<DriverJob>),
}

impl Content {
    /// The test that the session is for.
    pub(crate) fn test(&self) -> Option<String> {
        match self {
            Self::Lab(brief) => brief.test.clone(),
            Self::Driver(job) => Some(job.name.clone()),
        }
    }

    /// The file that people know it by. Absolute, where it is one: other processes run elsewhere.
    pub(crate) fn file(&self) -> PathBuf {
        match self {
            Self::Lab(brief) => {
                let named = brief.file.file_name();
                let absolute = named.map(|name| brief.base.join(name));
                absolute
                    .filter(|path| path.is_file())
                    .unwrap_or_else(|| brief.file.clone())
            }
            Self::Driver(job) => job.test_script.clone(),
        }
    }

    /// Where the session's directory is to be, if `wanted` is where sessions are.
    pub(crate) fn runtime(&self, wanted: &Path) -> PathBuf {
        match self {
            Self::Lab(_) => wanted.to_owned(),
            Self::Driver(job) => scripted::short_runtime(wanted, job),
        }
    }

    /// Whether machines get the time to power off at the end.
    pub(crate) fn graceful(&self) -> bool {
        match self {
            Self::Lab(brief) => brief.test.is_none() && !brief.throwaway,
            Self::Driver(_) => false,
        }
    }

    /// What its machines cost. Of start scripts nobody knows.
    pub(crate) fn costs(&self, engine: &Engine) -> Costs {
        match self {
            Self::Lab(brief) => {
                let settings = &engine.0.settings;
                let wanted = wanted(brief);
                let machines =
                    brief.lab.machines.iter().filter(|machine| {
                        wanted.is_empty() || wanted.contains(&machine.name.as_str())
                    });
                Costs::of(machines, &settings.containers, settings.warm)
            }
            Self::Driver(_) => Costs::none(),
        }
    }

    /// The hub of a session in `directory`, with all its machines, and what these share.
    pub(crate) fn fill(
        &self,
        engine: &Engine,
        directory: &Directory,
        log: &Arc<Log>,
        usage: Usage,
    ) -> Result<(Hub, Arc<Ground>), SessionError> {
        match self {
            Self::Lab(brief) => lab(engine, brief, directory, log, usage),
            Self::Driver(job) => driver(engine, job, directory, log, usage),
        }
    }
}

type Machines = BTreeMap<String, Arc<dyn Control>>;

fn lab(
    engine: &Engine,
    brief: &Brief,
    directory: &Directory,
    log: &Arc<Log>,
    usage: Usage,
) -> Result<(Hub, Arc<Ground>), SessionError> {
    let plans = planned(engine, brief, directory, log)?;
    let vlans: BTreeSet<u32> = plans
        .iter()
        .flat_map(|plan| &plan.nics)
        .map(|nic| nic.vlan.into())
        .collect();
    let boot = if brief.agent_only {
        Boot::Agent
    } else {
        Boot::System
    };
    let ground = Arc::new(ground(
        engine,
        directory,
        log,
        Shared {
            base: &brief.base,
            vlans: &vlans,
            boot,
            usage,
        },
    )?);
    let machine = |plan: MachinePlan| {
        let machine = brief.lab.machine(&plan.name)?;
        let name = plan.name.clone();
        // What the lab says comes before what a device's vendor says.
        let mut env = plan.devices.env.clone();
        env.extend(machine.env.clone());
        let recipe = Recipe::Lab {
            plan: Box::new(plan),
            env,
            ready: machine.ready.clone(),
        };
        let machine = SessionMachine::new(recipe, Arc::clone(&ground));
        Some((name, Arc::new(machine) as Arc<dyn Control>))
    };
    let machines: Machines = plans.into_iter().filter_map(machine).collect();
    let facts = Facts {
        id: directory.id().to_owned(),
        directory: directory.path().to_owned(),
        exe: ground.exe.clone(),
        test: brief.test.clone(),
        vlans: vlans.into_iter().collect(),
        driver: None,
        timeout_factor: brief.timeout_factor,
    };
    let links = Arc::clone(&ground.network);
    let last = brief.lab.machines.iter().map(|machine| machine.number);
    let hub = Hub::new(facts, Arc::clone(log), machines)
        .with_links(links)
        .with_numbers(last.max().unwrap_or_default().into());
    Ok((hub, ground))
}

/// The plans of the machines that the session has. What is odd about them is told.
fn planned(
    engine: &Engine,
    brief: &Brief,
    directory: &Directory,
    log: &Log,
) -> Result<Vec<MachinePlan>, SessionError> {
    let circumstances = Circumstances {
        session: directory.id(),
        base: &brief.base,
        timeout_factor: brief.timeout_factor,
        containers: &engine.0.settings.containers,
        warm: engine.0.settings.warm,
        agent_only: brief.agent_only,
        uplink: brief.uplink,
        late_disks: brief.late_disks,
    };
    let mut plans = plan::plan(&brief.lab, &wanted(brief), circumstances)?;
    for plan in &mut plans {
        find_devices(engine, plan)?;
        let moved = plan.moved.iter().map(|why| format!("it is a VM: {why}"));
        for text in moved.chain(plan.devices.warnings.clone()) {
            log.emit_of(&plan.name, What::Warning { text });
        }
    }
    Ok(plans)
}

/// Finds what the machine asks for of the host's devices.
fn find_devices(engine: &Engine, plan: &mut MachinePlan) -> Result<(), SessionError> {
    let settings = &engine.0.settings;
    let places = Places {
        cdi: &settings.cdi,
        search: &settings.search,
    };
    plan.devices = devices::find(&plan.asked, places).map_err(|source| SessionError::Device {
        machine: plan.name.clone(),
        source,
    })?;
    Ok(())
}

fn driver(
    engine: &Engine,
    job: &Arc<DriverJob>,
    directory: &Directory,
    log: &Arc<Log>,
    usage: Usage,
) -> Result<(Hub, Arc<Ground>), SessionError> {
    let vlans: BTreeSet<u32> = job.vlans.iter().copied().collect();
    let shared = Shared {
        base: &job.cwd,
        vlans: &vlans,
        boot: Boot::System,
        usage,
    };
    let ground = Arc::new(ground(engine, directory, log, shared)?);
    let farm = ScriptFarm::new(job, Arc::clone(&ground))?;
    let mut machines = Machines::new();
    for (kind, scripts) in [
        (protocol::ScriptKind::Vm, &job.vms),
        (protocol::ScriptKind::Container, &job.containers),
    ] {
        for script in scripts {
            let machine = farm.machine(kind, &script.name, &script.command, job.keep_state)?;
            machines.insert(script.name.clone(), machine);
        }
    }
    let facts = Facts {
        id: directory.id().to_owned(),
        directory: directory.path().to_owned(),
        exe: ground.exe.clone(),
        test: Some(job.name.clone()),
        vlans: vlans.into_iter().collect(),
        driver: Some(job.info()),
        timeout_factor: 1.0,
    };
    let links = Arc::clone(&ground.network);
    let hub = Hub::new(facts, Arc::clone(log), machines)
        .with_links(links)
        .with_variables(farm.variables())
        .with_adder(farm.into_adder());
    Ok((hub, ground))
}

/// What the machines of a session have in common.
struct Shared<'a> {
    /// What relative paths are relative to.
    base: &'a Path,
    vlans: &'a BTreeSet<u32>,
    boot: Boot,
    usage: Usage,
}

fn ground(
    engine: &Engine,
    directory: &Directory,
    log: &Arc<Log>,
    shared: Shared<'_>,
) -> Result<Ground, SessionError> {
    let settings = &engine.0.settings;
    let hidden: Vec<PathBuf> = vec![
        settings.runtime.clone(),
        settings.images.clone(),
        settings.snapshots.directory.clone(),
    ];
    let network = Network::new(
        shared.vlans.iter().copied(),
        directory.path(),
        &settings.exe,
    )?;
    Ok(Ground {
        images: Images::new(engine.0.store.clone(), shared.base, Arc::clone(log)),
        log: Arc::clone(log),
        network: Arc::new(network),
        exe: settings.exe.clone(),
        agent: engine.0.agent.clone(),
        verdicts: engine.0.verdicts.clone(),
        search: settings.search.clone(),
        accel: settings.accel.into(),
        boot: shared.boot,
        snapshots: engine.0.snapshots.clone(),
        places: engine.0.places.clone(),
        usage: shared.usage,
        gates: Mutex::default(),
        session: directory.id().to_owned(),
        directory: directory.machines(),
        hidden,
    })
}

/// The machines that a session has; none named: all.
fn wanted(brief: &Brief) -> Vec<&str> {
    let test = brief
        .test
        .as_ref()
        .and_then(|name| brief.lab.tests.iter().find(|test| test.name == *name));
    test.map_or(Vec::new(), |test| {
        test.machines.iter().map(|name| name.as_str()).collect()
    })
}
