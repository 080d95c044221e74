//! Saving and restoring a virtual machine as one does it by hand: QEMU with its memory in a file,
//! and a shell on a console. No agent, no identity, no clock.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::super::hand_made;
use super::super::images::{self, Kernel};
use super::super::program::Program;
use crate::command::command;

/// What the other side is, in a table.
pub const PEER: &str = "the same restore by hand";

/// For a boot on a busy host; a restore takes a fraction of a second.
const PATIENCE: Duration = Duration::from_secs(300);
const MODULES: [&str; 5] = [
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
    "erofs",
    "overlay",
];

/// Boots the image's own disk with its own systemd, with a shell on the virtio console.
const INIT: &str = r#"busybox mount -t devtmpfs dev /dev
busybox mkdir /lower /upper
busybox mount -t erofs -o ro /dev/vda /lower
busybox mount -t tmpfs tmp /upper
busybox mkdir /upper/data /upper/work
busybox mount -t overlay -o lowerdir=/lower,upperdir=/upper/data,workdir=/upper/work root /root
units=/root/etc/systemd/system
busybox mkdir -p $units/sysinit.target.wants
busybox cat > $units/port.service <<'END'
[Unit]
DefaultDependencies=no
[Service]
ExecStart=/bin/bash -c 'exec < /dev/hvc0 > /dev/hvc0 2>&1; stty raw -echo; echo ready; exec bash --norc /dev/hvc0'
END
busybox ln -s ../port.service $units/sysinit.target.wants/port.service
busybox ln -s /dev/null $units/serial-getty@hvc0.service
exec busybox switch_root /root /lib/systemd/systemd
"#;

/// A machine that has been booted and saved: any number of restores begin with it.
pub struct Golden {
    kernel: Kernel,
    disk: PathBuf,
    initrd: PathBuf,
    mebibytes: u32,
    place: TempDir,
}

impl Golden {
    /// Boots the image, waits until its systemd has settled, and saves it.
    pub fn make(program: &Program, mebibytes: u32) -> Result<Self> {
        let kernel = images::cloud_kernel(program)?;
        let place = tempfile::tempdir().context("cannot make a directory")?;
        let initrd = hand_made::initrd(place.path(), &kernel, &MODULES, INIT)?;
        let golden = Self {
            disk: images::plain_disk(program)?,
            kernel,
            initrd,
            mebibytes,
            place,
        };
        let mut boot = golden.qemu("share=on");
        boot.arg("-kernel").arg(&golden.kernel.image);
        boot.arg("-initrd").arg(&golden.initrd);
        boot.args(["-append", "console=ttyS0 quiet"]);
        let mut machine = Machine::start(boot)?;
        let ready = machine.answer()?;
        ensure!(ready == "ready", "it said {ready}");
        machine.say("systemctl is-system-running --wait > /dev/null; echo settled")?;
        let settled = machine.answer()?;
        ensure!(settled == "settled", "it said {settled}");
        machine.save(&golden.state())?;
        Ok(golden)
    }

    /// A copy of it, from the start of QEMU until it does what it is told.
    pub fn restore(&self) -> Result<Machine> {
        let mut qemu = self.qemu("share=off,readonly=on,rom=off");
        qemu.args(["-incoming", "defer"]);
        let mut machine = Machine::start(qemu)?;
        // Nothing is to be waited for in between.
        machine.tell(&ignore_shared())?;
        let uri = format!("file:{}", self.state().display());
        machine.tell(&json!({"execute": "migrate-incoming", "arguments": {"uri": uri}}))?;
        Ok(machine)
    }

    fn state(&self) -> PathBuf {
        self.place.path().join("state")
    }

    /// The same machine each time, on what machinist has found to be the quickest emulation.
    fn qemu(&self, memory: &str) -> Command {
        let mebibytes = self.mebibytes;
        let mut qemu = command("qemu-system-x86_64", ["-nodefaults", "-no-user-config"]);
        qemu.args(["-display", "none"])
            .args(["-machine", "q35,hpet=off,memory-backend=memory"])
            .args(["-accel", "tcg,thread=multi,tb-size=256"])
            .args(["-cpu", "max,la57=off", "-smp", "1"])
            .args(["-m", &format!("{mebibytes}M")])
            .arg("-object")
            .arg(format!(
                "memory-backend-file,id=memory,size={mebibytes}M,{memory},mem-path={}",
                self.place.path().join("memory").display()
            ))
            .arg("-blockdev")
            .arg(format!(
                "driver=raw,node-name=disk,read-only=on,file.driver=file,file.locking=off,file.drop-cache=off,file.filename={}",
                self.disk.display()
            ))
            .args(["-device", "virtio-blk-pci,drive=disk"])
            .args(["-device", "virtio-serial-pci,id=ports"])
            .args(["-chardev", "socket,id=shell,fd=1"])
            .args(["-device", "virtconsole,chardev=shell,bus=ports.0"])
            .args(["-device", "vmgenid,guid=auto"])
            .args(["-chardev", "socket,id=qmp,fd=0"])
            .args(["-mon", "chardev=qmp,mode=control", "-serial", "null"]);
        qemu
    }
}

/// A QEMU, with QMP on its standard input and the guest's shell on its standard output.
pub struct Machine {
    child: Child,
    qmp: BufReader<UnixStream>,
    shell: BufReader<UnixStream>,
}

impl Machine {
    fn start(mut qemu: Command) -> Result<Self> {
        let (qmp, its_qmp) = pair()?;
        let (shell, its_shell) = pair()?;
        qemu.stdin(its_qmp).stdout(its_shell);
        let child = qemu.spawn().context("cannot run QEMU")?;
        let mut machine = Self { child, qmp, shell };
        machine.tell(&json!({"execute": "qmp_capabilities"}))?;
        Ok(machine)
    }

    /// Runs a command that prints one line, and gives the line.
    pub fn run(&mut self, command: &str) -> Result<String> {
        self.say(command)?;
        self.answer()
    }

    fn say(&mut self, command: &str) -> Result<()> {
        let shell = self.shell.get_mut();
        writeln!(shell, "{command}").context("the guest's shell is gone")
    }

    fn answer(&mut self) -> Result<String> {
        let mut line = String::new();
        let length = self.shell.read_line(&mut line);
        ensure!(
            length.context("the guest's shell does not answer")? > 0,
            "QEMU has ended"
        );
        Ok(line.trim_end().to_owned())
    }

    /// Sends QEMU a request.
    fn tell(&mut self, request: &Value) -> Result<()> {
        // In one piece: it may end before it would have read the last of several.
        let told = self
            .qmp
            .get_mut()
            .write_all(format!("{request}\n").as_bytes());
        told.with_context(|| format!("QEMU is gone: {:?}", self.child.wait()))
    }

    /// Sends QEMU a request, and gives what the last of all requests has returned.
    fn ask(&mut self, request: &Value, told_before: usize) -> Result<Value> {
        self.tell(request)?;
        let mut left = told_before + 1;
        let mut line = String::new();
        loop {
            line.clear();
            let length = self.qmp.read_line(&mut line);
            ensure!(
                length.context("QEMU does not answer")? > 0,
                "QEMU has ended"
            );
            let said: Value = serde_json::from_str(&line).context("QMP")?;
            if said.get("error").is_some() {
                bail!("QEMU: {said}");
            }
            if let Some(returned) = said.get("return") {
                left -= 1;
                if left == 0 {
                    return Ok(returned.clone());
                }
            }
        }
    }

    /// Writes the state beside the memory, as `migrate` does it without copying what is shared.
    fn save(mut self, state: &Path) -> Result<()> {
        // `qmp_capabilities` has not been answered before.
        self.ask(&ignore_shared(), 1)?;
        let uri = format!("file:{}", state.display());
        self.ask(&json!({"execute": "migrate", "arguments": {"uri": uri}}), 0)?;
        loop {
            let said = self.ask(&json!({"execute": "query-migrate"}), 0)?;
            match said["status"].as_str() {
                Some("completed") => break,
                Some("failed" | "cancelled") => bail!("it could not be saved: {said}"),
                _ => std::thread::sleep(Duration::from_millis(5)),
            }
        }
        self.tell(&json!({"execute": "quit"}))?;
        self.child.wait().context("cannot wait for QEMU")?;
        Ok(())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The memory stays where it is: in its file.
fn ignore_shared() -> Value {
    let capability = json!({"capability": "x-ignore-shared", "state": true});
    json!({"execute": "migrate-set-capabilities", "arguments": {"capabilities": [capability]}})
}

/// A socket for us, and one for the standard input or output of a program.
fn pair() -> Result<(BufReader<UnixStream>, OwnedFd)> {
    let (ours, theirs) = UnixStream::pair().context("cannot make a socket")?;
    ours.set_read_timeout(Some(PATIENCE))?;
    Ok((BufReader::new(ours), theirs.into()))
}
