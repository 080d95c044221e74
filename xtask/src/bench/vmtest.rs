//! `vmtest`, the other program that runs one command in a virtual machine.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::images::{self, IMAGE, Kernel};
use super::program::Program;
use super::{Bench, Limit, Question, Sample, Unit, hand_made};
use crate::command::{self, cargo, command};

const VERSION: &str = "0.18.0";
/// Where it is installed to.
const PLACE: &str = "target/bench";
/// What vmtest needs in a root besides what our image has.
const PACKAGES: [&str; 3] = ["kmod", "qemu-guest-agent", "udev"];
/// What it needs built into the kernel, which Debian has as modules.
const MODULES: [&str; 4] = ["9p", "9pnet_virtio", "virtio_pci", "virtio_console"];

/// Does what the kernel would do if it had 9p built in: mount the root, start its init.
const INIT: &str = "busybox mount -t proc proc /proc
busybox mount -t devtmpfs dev /dev
for word in $(busybox cat /proc/cmdline); do
    case $word in init=*) init=${word#init=} ;; rootflags=*) flags=${word#rootflags=} ;; esac
done
busybox mount -t 9p -o $flags /dev/root /root
busybox umount /proc
exec busybox switch_root /root $init
";

/// `machinist run --kind vm` against `vmtest`, on the same kernel.
pub struct AgainstVmtest {
    program: Program,
    theirs: Option<Theirs>,
}

struct Theirs {
    kernel: Kernel,
    place: TempDir,
}

impl AgainstVmtest {
    pub const fn new(program: Program) -> Self {
        Self {
            program,
            theirs: None,
        }
    }

    /// A shared folder makes it the kernel that has 9p.
    fn ours(&self, share: &Path) -> Result<(f64, String)> {
        let options = ["--image", IMAGE, "--kind", "vm", "--accel", "tcg", "--cold"];
        let mut run = self.program.command(&["run"]);
        run.args(options)
            .arg("--volume")
            .arg(format!("{}:/mnt", share.display()))
            .args(["--", "uname", "-r"]);
        let begun = Instant::now();
        let said = command::stdout(&mut run)?;
        Ok((begun.elapsed().as_secs_f64(), said.trim().to_owned()))
    }
}

impl Theirs {
    /// A root that may be written to, and QEMU without KVM but with an initrd.
    fn new(program: &Program, kernel: Kernel, place: TempDir) -> Result<Self> {
        let image = images::root(program, &PACKAGES)?;
        let (from, to) = (image.display(), place.path().join("root"));
        command::run(&mut command(
            "cp",
            ["--archive", &from.to_string(), &to.to_string_lossy()],
        ))?;
        let initrd = hand_made::initrd(place.path(), &kernel, &MODULES, INIT)?;
        let wrapper = format!(
            "#!/bin/bash\n\
             args=()\n\
             for arg; do case $arg in -enable-kvm) ;; host) args+=(max) ;; *) args+=(\"$arg\") ;; esac; done\n\
             exec qemu-system-x86_64 -initrd {} \"${{args[@]}}\"\n",
            initrd.display(),
        );
        let path = place.path().join("qemu");
        std::fs::write(&path, wrapper).context("cannot write the wrapper")?;
        command::run(&mut command("chmod", ["0755", &path.to_string_lossy()]))?;
        Ok(Self { kernel, place })
    }

    fn measure(&self) -> Result<f64> {
        let here = self.place.path();
        let mut vmtest = Command::new(program()?);
        vmtest
            .current_dir(here)
            .arg("--kernel")
            .arg(&self.kernel.image)
            .arg("--rootfs")
            .arg(here.join("root"))
            .arg("--qemu-command")
            .arg(here.join("qemu"))
            .arg("uname -r");
        let begun = Instant::now();
        let said = command::stdout(&mut vmtest)?;
        let took = begun.elapsed();
        ensure!(said.contains(&self.kernel.version), "no output: {said}");
        Ok(took.as_secs_f64())
    }
}

/// Where cargo installs it.
fn program() -> Result<PathBuf> {
    Ok(command::workspace()?.join(PLACE).join("bin/vmtest"))
}

fn install() -> Result<()> {
    if program()?.is_file() {
        return Ok(());
    }
    println!("bench: installing vmtest {VERSION} into {PLACE}");
    command::run(&mut cargo([
        "install",
        "--root",
        PLACE,
        "vmtest",
        "--version",
        VERSION,
        "--locked",
    ]))
}

impl Bench for AgainstVmtest {
    fn questions(&self) -> Vec<Question> {
        vec![Question {
            name: "VM under emulation: one command, cold, against vmtest",
            peer: Some("vmtest 0.18.0"),
            unit: Unit::Seconds,
            limits: vec![Limit::AtMost(1.0)],
            how: "`machinist run --kind vm --accel tcg --volume DIR:/mnt -- uname -r` against `vmtest \"uname -r\"`, both \
                  on Debian's generic kernel, which has 9p. vmtest gets an initrd with what it needs built in, a \
                  wrapper that turns KVM off, and a root of the same image with `kmod qemu-guest-agent udev`.",
        }]
    }

    fn prepare(&mut self) -> Result<()> {
        install()?;
        let place = tempfile::tempdir().context("cannot make a directory")?;
        let (_, version) = self.ours(place.path())?;
        let kernel = images::generic_kernel(&self.program)?;
        ensure!(version == kernel.version, "machinist booted {version}");
        self.theirs = Some(Theirs::new(&self.program, kernel, place)?);
        Ok(())
    }

    fn measure(&mut self) -> Result<Vec<Sample>> {
        let theirs = self.theirs.as_ref().context("nothing is prepared")?;
        let (ours, _) = self.ours(theirs.place.path())?;
        Ok(vec![Sample::pair(ours, theirs.measure()?)])
    }
}
