//! A builder that is a VM. Emulated, it takes half a minute to boot, so it does that once.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use machinist_tests::{processes, wait_until};
use rustix::process::{Pid, Signal, kill_process};

use crate::rig::Rig;
use crate::web::Web;
use crate::{Case, external};

pub const CASES: &[Case] = &[Case {
    name: "vm::builds_and_comes_back_from_a_power_cut",
    run,
}];

pub const NAME: &str = "v";
/// With the same options there is one snapshot for all tests, and a VM boots once.
pub const OPTIONS: &[&str] = &["--kind", "vm", "--cores", "1", "--disk", "2G"];

/// An emulated machine on a busy host. Nothing but a machine that hangs takes so long.
const BOOT: Duration = Duration::from_secs(400);

fn run(rig: &Rig) -> Result<()> {
    rig.create_shared(NAME, OPTIONS)?;
    smaller(&rig.builders().join(NAME).join("store.img"))?;
    let service = rig.serve(NAME)?;
    let web = Web::open()?;
    let download = web.derivation("10.0.2.2");
    let script = download
        + r#"
machines v
cat $(build download.nix)
echo from the client > input
derive range 'echo in the log; echo "map: $(</proc/self/uid_map)"; echo "$(<$input)" > $out' \
    'input = ./input; requiredSystemFeatures = [ "uid-range" ];'
cat $(build range.nix)
derive endless 'echo begun; while :; do pause 1; done' ''
build endless.nix && exit 1
echo the power is cut
derive again 'echo "$(<$input)" again > $out' 'input = ./input;'
cat $(build again.nix)
"#;
    let client = rig.start_client(&script)?;
    client.until("endless> begun", BOOT)?;
    let said = client.said();
    ensure!(said.contains("from the host"), "{said}");
    ensure!(
        said.contains("range> in the log") && said.contains("65536"),
        "{said}"
    );
    cut_power(rig, NAME)?;
    client.until("the power is cut", Duration::from_secs(200))?;
    let said = client.passes(BOOT)?;
    ensure!(said.contains("from the client again"), "{said}");
    through_nix(rig)?;
    let words = ["shell", "v", "--", "stat", "-f", "-c", "%b", "/nix"];
    let blocks = rig.builder(&words).run()?.exits(0)?.stdout;
    let named = rig.builder(&["shell", NAME, "--", "uname", "-n"]).run()?;
    named.exits(0)?.says(NAME)?;
    ensure!(
        blocks.trim().parse::<u64>()? > 1_500_000_000 / 4096,
        "{blocks}"
    );
    let state = rig.status("v")?;
    ensure!(state["kind"] == "vm" && state["machine"] == "up", "{state}");
    rig.builder(&["stop", "v"]).run()?.exits(0)?;
    let console = rig.builder(&["logs", "v", "--console"]).run()?.exits(0)?;
    console.says("Power")?;
    let log = rig.builder(&["logs", NAME]).run()?.exits(0)?.stdout;
    ensure!(log.contains("restored from its snapshot"), "{log}");
    service.signal(Signal::TERM);
    ensure!(service.wait()?.code() == Some(0));
    wait_until(Duration::from_secs(60), || {
        (rig.status("v").ok()?["service"].is_null()).then_some(())
    })
    .context("the service is still there")
}

/// A build that Nix gives to it by the external builder.
fn through_nix(rig: &Rig) -> Result<()> {
    let script = external::through(NAME)
        + r#"
echo given by Nix > input
derive given 'echo in the log; echo "$(<$input)" > $out' 'input = ./input;'
cat $(build given.nix)
kill $service
wait $service
"#;
    let given = rig.client(&script)?.exits(0)?;
    given.says("given by Nix")?.complains("given> in the log")?;
    Ok(())
}

/// Kills the QEMU of a builder.
pub fn cut_power(rig: &Rig, name: &str) -> Result<()> {
    let disk = rig.builders().join(name).join("store.img");
    let disk = disk.display().to_string();
    let qemu = processes()
        .into_iter()
        .find(|process| process.command.contains(&disk));
    let qemu = qemu.context("no QEMU has its disk")?;
    let pid = i32::try_from(qemu.pid)
        .ok()
        .and_then(Pid::from_raw)
        .context("no pid")?;
    kill_process(pid, Signal::KILL).context("it cannot be killed")
}

/// Gives a disk a file system that is half as large, as one has that has grown since.
fn smaller(disk: &Path) -> Result<()> {
    let mut mkfs = Command::new("mkfs.ext4");
    let made = mkfs.args(["-q", "-b", "4096"]).arg(disk).arg("1G").status();
    let made = made.context("cannot run mkfs.ext4")?;
    ensure!(made.success(), "mkfs.ext4: {made}");
    Ok(())
}
