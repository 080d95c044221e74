//! TCP from a container to a booted virtual machine, over our switch and over `vde_switch`.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

use super::images::{self, IMAGE, Kernel};
use super::program::{Lab, Program, number};
use super::{Bench, Question, Sample, Unit, hand_made};
use crate::command::{self, command};

const PATIENCE: Duration = Duration::from_secs(60);
const MODULES: [&str; 4] = ["virtio_pci", "virtio_blk", "virtio_net", "erofs"];

/// Serves iperf3 out of the image's own disk.
const INIT: &str = "busybox mount -t devtmpfs dev /dev
busybox mount -t erofs -o ro /dev/vda /root
busybox mount -t devtmpfs dev /root/dev
busybox mount -t proc proc /root/proc
busybox mount -t tmpfs tmp /root/tmp
busybox ip addr add 192.168.1.1/24 dev eth0
busybox ip link set eth0 up
echo network is up
busybox chroot /root iperf3 --server --one-off
busybox poweroff -f
";

/// A container of the other side: a network namespace with vde's plug, and iperf3 there.
const CLIENT: &str = r#"vde_plug2tap -s "$1" eth1 </dev/null >/dev/null &
plug=$!
trap 'kill $plug' EXIT
until busybox ip link show eth1 >/dev/null 2>&1; do sleep 0.05; done
busybox ip addr add 192.168.1.2/24 dev eth1
busybox ip link set eth1 up
until
    said=$(iperf3 --client 192.168.1.1 --connect-timeout 1000 --time 5 --json)
    # It exits with 0 also when nobody listens yet.
    echo "$said" | grep --quiet sum_received
do sleep 0.2; done
echo "$said"
"#;

/// A lab of a container and a VM against the same kernel and disk booted by hand.
pub struct SwitchToVm {
    program: Program,
    theirs: Option<Theirs>,
}

struct Theirs {
    kernel: Kernel,
    initrd: PathBuf,
    disk: PathBuf,
    place: TempDir,
}

impl SwitchToVm {
    pub const fn new(program: Program) -> Self {
        Self {
            program,
            theirs: None,
        }
    }

    fn ours(&self) -> Result<f64> {
        let machine = |name, kind| {
            format!(
                "[machine.{name}]\nkind = \"{kind}\"\nimage = \"{IMAGE}\"\npackages = [\"iperf3\"]\nvlans = [1]\n"
            )
        };
        let reported = self.program.lab(&Lab {
            machines: &format!(
                "[vlan.1]\n{}{}",
                machine("c", "container"),
                machine("v", "vm")
            ),
            script: include_str!("scripts/switch_to_vm.py"),
        })?;
        number(&reported, "bits")
    }
}

impl Theirs {
    fn measure(&self) -> Result<f64> {
        let socket = self.place.path().join("switch");
        // It ends when its standard input does, so that is kept open.
        let mut switch = Command::new("vde_switch");
        switch.arg("-s").arg(&socket).stdin(Stdio::piped());
        let _switch = Running::start(&mut switch)?;
        until(&socket.join("ctl"))?;
        let _vm = self.boot(&socket)?;
        let path = socket.to_string_lossy();
        let script = ["--net", "sh", "-c", CLIENT, "client", &path];
        let limit = PATIENCE.as_secs().to_string();
        let mut client = command("timeout", [limit.as_str(), "unshare"].iter().chain(&script));
        let said = command::stdout(&mut client)?;
        let said: Value = serde_json::from_str(&said).context("iperf3 said no JSON")?;
        number(&said["end"]["sum_received"], "bits_per_second")
    }

    /// The VM, when its network is up.
    fn boot(&self, socket: &Path) -> Result<Running> {
        let mut qemu = hand_made::qemu(&self.kernel, &self.initrd);
        qemu.arg("-drive")
            .arg(format!(
                "if=virtio,format=raw,readonly=on,file={}",
                self.disk.display()
            ))
            .arg("-netdev")
            .arg(format!("vde,id=net,sock={}", socket.display()))
            .args(["-device", "virtio-net-pci,netdev=net"]);
        let mut vm = Running::start(&mut qemu)?;
        let console = vm.0.stdout.take().context("no console")?;
        let mut lines = BufReader::new(console).split(b'\n');
        let is_up = |line: &[u8]| String::from_utf8_lossy(line).contains("network is up");
        ensure!(
            lines.any(|line| line.is_ok_and(|line| is_up(&line))),
            "it has not come up"
        );
        // What else it says must go somewhere.
        thread::spawn(move || lines.count());
        Ok(vm)
    }
}

/// A program that ends with us.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Result<Self> {
        let shown = command::shown(command);
        let child = command.stdout(Stdio::piped()).spawn();
        Ok(Self(child.with_context(|| format!("cannot run {shown}"))?))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Looks again and again: vde says nothing when it is ready.
fn until(path: &Path) -> Result<()> {
    let begun = Instant::now();
    while !path.exists() {
        if begun.elapsed() > PATIENCE {
            bail!("{} does not come", path.display());
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

impl Bench for SwitchToVm {
    fn questions(&self) -> Vec<Question> {
        vec![Question {
            name: "switch: TCP, container to VM under emulation",
            peer: Some("`vde_switch`, `vde_plug2tap`, `-netdev vde`"),
            unit: Unit::BitsPerSecond,
            limits: Vec::new(),
            how: "five seconds of iperf3 from a container to a booted VM of one lab, against the same from a network \
                  namespace with `vde_plug2tap` to the same kernel and disk in QEMU with `-netdev vde`. The VM's \
                  emulated processor is what limits both.",
        }]
    }

    fn prepare(&mut self) -> Result<()> {
        self.ours()?;
        let kernel = images::cloud_kernel(&self.program)?;
        let disk = images::disk(&self.program, &["iperf3"])?;
        let place = tempfile::tempdir().context("cannot make a directory")?;
        let initrd = hand_made::initrd(place.path(), &kernel, &MODULES, INIT)?;
        self.theirs = Some(Theirs {
            kernel,
            initrd,
            disk,
            place,
        });
        Ok(())
    }

    fn measure(&mut self) -> Result<Vec<Sample>> {
        let theirs = self.theirs.as_ref().context("nothing is prepared")?;
        Ok(vec![Sample::pair(self.ours()?, theirs.measure()?)])
    }
}
