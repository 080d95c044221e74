//! `machinist show`

use clap::Args;
use machinist_lab::{Body, ContainerLimits, Gpu, Lab, Machine, RunsAs, Test};
use serde::Serialize;

use super::{Format, FormatArgs};
use crate::Outcome;
use crate::environment::Environment;
use crate::error::CliError;
use crate::exit::Exit;
use crate::lab_file::LabArgs;
use crate::{preflight, table, ui};

/// Show what a test comes to: its machines, why each is a VM or a container, its addresses
///
/// Also how its VMs start (`warm`: restored from a snapshot; `cold`: booted, and why), and why this
/// host could not run it.
#[derive(Debug, Args)]
pub struct Show {
    /// The test's name
    test: String,
    #[command(flatten)]
    lab: LabArgs,
    #[command(flatten)]
    format: FormatArgs,
}

#[derive(Serialize)]
struct Shown {
    test: String,
    tags: Vec<String>,
    timeout: f64,
    body: String,
    machines: Vec<ShownMachine>,
    /// Why it would be skipped here; empty if it would run.
    lacking: Vec<String>,
}

#[derive(Serialize)]
struct ShownMachine {
    name: String,
    kind: String,
    because: String,
    /// `warm` for a VM that is restored from its snapshot, `cold` for one that boots each time;
    /// none for a container.
    start: Option<&'static str>,
    /// Why it boots each time.
    cold_because: Option<String>,
    image: String,
    packages: Vec<String>,
    memory: u64,
    cpus: u16,
    addresses: Vec<String>,
    /// Devices of the host, by their names.
    devices: Vec<String>,
}

impl Show {
    /// Shows it.
    pub fn run(self, environment: &Environment) -> Outcome {
        let file = self.lab.load(environment)?;
        let Some(test) = file.lab.tests.iter().find(|test| test.name == self.test) else {
            let names: Vec<_> = file
                .lab
                .tests
                .iter()
                .map(|test| test.name.as_str())
                .collect();
            let message = format!("there is no test {:?}", self.test);
            return Err(CliError::nothing_selected(message)
                .hint(format!("there are: {}", names.join(", "))));
        };
        let shown = shown(&file.lab, test, environment);
        match self.format.format {
            Format::Json => ui::json(&shown),
            Format::Text => print(&shown),
        }
        Ok(Exit::Passed)
    }
}

fn shown(lab: &Lab, test: &Test, environment: &Environment) -> Shown {
    let machines = || {
        test.machines
            .iter()
            .filter_map(|name| lab.machine(name.as_str()))
    };
    let needs = preflight::of_test(machines(), test, environment);
    let limits = &environment.known_containers().limits;
    Shown {
        test: test.name.clone(),
        tags: test.tags.clone(),
        timeout: test.timeout.as_secs_f64(),
        body: match &test.body {
            Body::Steps(steps) => ui::count(steps.len(), "step"),
            Body::Script(path) => format!("script {}", path.display()),
        },
        machines: machines()
            .map(|it| machine(it, limits, environment))
            .collect(),
        lacking: preflight::reasons(&needs, environment),
    }
}

fn machine(machine: &Machine, limits: &ContainerLimits, environment: &Environment) -> ShownMachine {
    let (kind, because) = machine.resolve_here(limits);
    let is_vm = kind == RunsAs::Vm;
    let asked = environment.starts.cold;
    let asked = asked.then(|| "MACHINIST_COLD asks for it".to_owned());
    let cold_because = machine.cold().or(asked).filter(|_| is_vm);
    let start = if cold_because.is_some() {
        "cold"
    } else {
        "warm"
    };
    ShownMachine {
        start: is_vm.then_some(start),
        cold_because,
        name: machine.name.to_string(),
        kind: kind.to_string(),
        because,
        image: machine.image.name.clone(),
        packages: machine.image.packages.clone(),
        memory: machine.memory.0,
        cpus: machine.cpus,
        addresses: machine
            .vlans
            .iter()
            .map(|vlan| format!("192.168.{vlan}.{}", machine.number))
            .collect(),
        devices: devices(machine),
    }
}

/// As the lab file names them.
fn devices(machine: &Machine) -> Vec<String> {
    let nodes = machine.devices.iter().map(|it| it.0.display().to_string());
    let cdi = machine.cdi.iter().map(ToString::to_string);
    let gpu = machine
        .gpu
        .iter()
        .map(|Gpu::Nvidia| "gpu: nvidia".to_owned());
    nodes.chain(cdi).chain(gpu).collect()
}

fn print(shown: &Shown) {
    let seconds = shown.timeout;
    ui::data(format_args!(
        "{}: {}, at most {seconds} s",
        shown.test, shown.body
    ));
    let rows: Vec<[String; 6]> = shown
        .machines
        .iter()
        .map(|machine| {
            [
                machine.name.clone(),
                machine.kind.clone(),
                machine.image.clone(),
                machine.addresses.join(","),
                machine.start.unwrap_or_default().to_owned(),
                machine.because.clone(),
            ]
        })
        .collect();
    ui::data(table::table(
        ["MACHINE", "KIND", "IMAGE", "ADDRESSES", "START", "BECAUSE"],
        &rows,
    ));
    for machine in &shown.machines {
        if let Some(why) = &machine.cold_because {
            ui::data(format_args!("{} boots each time: {why}", machine.name));
        }
    }
    for machine in shown.machines.iter().filter(|it| !it.devices.is_empty()) {
        let (name, devices) = (&machine.name, machine.devices.join(", "));
        ui::data(format_args!("{name} may use {devices}"));
    }
    for reason in &shown.lacking {
        ui::data(format_args!("would be skipped here: {reason}"));
    }
}
