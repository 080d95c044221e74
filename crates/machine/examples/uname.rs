//! Boots a VM with nothing but the agent in it, asks for its kernel's name, and says what each part
//! took: `uname CACHE [RUNS]`. For whoever compares it with a kernel booted by hand.
#![expect(clippy::print_stdout, reason = "a program")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use machinist_guest::{AGENT, Command};
use machinist_image::{Image, ImageSpec, Store, Want};
use machinist_machine::{
    Accel, AgentBinary, Boot, Environment, Kind, Machine, MachineSpec, NoNetwork, StartOptions,
    Verdicts,
};

type Error = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let cache = arguments.next().ok_or("usage: uname CACHE [RUNS]")?;
    let runs: u32 = arguments.next().map_or(Ok(1), |text| text.parse())?;
    let want = Want::Vm {
        shared_folders: false,
    };
    let store = Store::open(Path::new(&cache), AGENT)?;
    let image = store.ensure(&ImageSpec::debian("bookworm", &[]), want, &|_| {})?;
    if let Some(boot) = &image.boot {
        println!("kernel {}", boot.kernel.display());
    }
    for run in 0..runs {
        let dir = std::env::temp_dir().join(format!("uname-{}-{run}", std::process::id()));
        let result = once(&image, &dir).await;
        std::fs::remove_dir_all(&dir)?;
        result?;
    }
    Ok(())
}

async fn once(image: &Image, dir: &Path) -> Result<(), Error> {
    let environment = Environment {
        dir: dir.to_owned(),
        exe: PathBuf::new(),
        agent: AgentBinary::new(AGENT)?,
        attach: Arc::new(NoNetwork),
        report: Arc::new(|_| {}),
        verdicts: Verdicts::forgetful(),
        search: std::env::var_os("PATH").unwrap_or_default(),
        hidden: Vec::new(),
        snapshots: None,
    };
    let began = Instant::now();
    let machine = Machine::new(spec(image), environment)?;
    machine.start(StartOptions::default()).await?;
    let up = began.elapsed();
    let output = machine
        .agent()?
        .output(&Command::argv(["/bin/uname", "-r"]).clear_env())
        .await?;
    let answered = began.elapsed();
    machine.shutdown(Duration::from_secs(30)).await?;
    println!(
        "{} up {:.2} answered {:.2} off {:.2}",
        String::from_utf8_lossy(&output.stdout).trim(),
        up.as_secs_f64(),
        answered.as_secs_f64(),
        began.elapsed().as_secs_f64()
    );
    Ok(())
}

fn spec(image: &Image) -> MachineSpec {
    MachineSpec {
        name: "uname".into(),
        image: image.clone(),
        kind: Kind::Vm {
            accel: Accel::Tcg,
            disks: Vec::new(),
        },
        boot: Boot::Agent,
        memory: 512 << 20,
        cpus: 1,
        nics: Vec::new(),
        uplink: false,
        hosts: Vec::new(),
        machine_id: "0".repeat(32),
        volumes: Vec::new(),
        publish: Vec::new(),
        start_within: Duration::from_secs(60),
        warm: machinist_machine::Warm::default(),
    }
}
