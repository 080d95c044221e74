//! QEMU's command line, made by pure functions.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::uplink::Uplink;
use crate::verdict::Accelerator;

/// The virtio-serial port that the agent listens on.
pub(crate) const AGENT_PORT: &str = "org.machinist.agent.0";
/// The id of its device, by which QMP calls it.
pub(crate) const AGENT_DEVICE: &str = "agent";

/// A VM, as far as QEMU is concerned.
#[derive(Debug, Clone)]
pub(crate) struct VmPlan {
    pub(crate) name: String,
    pub(crate) accelerator: Accelerator,
    /// In bytes; QEMU gets whole mebibytes.
    pub(crate) memory: u64,
    pub(crate) memory_from: Memory,
    /// The state of the devices that it begins with, in the place of a boot.
    pub(crate) incoming: Option<PathBuf>,
    /// The BIOS; none for QEMU's own. As flash memory it is there also in a QEMU that begins with a
    /// state: such a one leaves its own BIOS empty, which shows when the guest restarts.
    pub(crate) firmware: Option<PathBuf>,
    pub(crate) cpus: u16,
    pub(crate) kernel: PathBuf,
    pub(crate) initrd: PathBuf,
    pub(crate) append: String,
    pub(crate) drives: Vec<Drive>,
    pub(crate) shares: Vec<Share>,
    pub(crate) nics: Vec<Nic>,
    pub(crate) uplink: Uplink,
    /// Number of the inherited, connected socket that QEMU speaks QMP on.
    pub(crate) qmp: i32,
    /// Number of the inherited, listening socket of the agent's port.
    pub(crate) agent: i32,
    /// Otherwise a restart is the end.
    pub(crate) may_restart: bool,
}

/// Where a VM's memory is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Memory {
    /// Its own, and empty.
    Own,
    /// This file: what the guest writes, the file has.
    Shared(PathBuf),
    /// It begins with what this file has, and leaves the file alone. Any number of VMs may.
    Private(PathBuf),
}

/// A file as a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Drive {
    pub(crate) path: PathBuf,
    pub(crate) format: Format,
    pub(crate) read_only: bool,
    /// What is written to it must survive the host, too.
    pub(crate) keep: bool,
    /// The disk's serial number, by which the guest knows it.
    pub(crate) serial: String,
}

/// How a disk lies in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Raw,
    Qcow2,
}

impl Format {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }
}

/// A directory of the host, by 9p.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) tag: String,
    pub(crate) path: PathBuf,
    pub(crate) writable: bool,
}

/// A network card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Nic {
    pub(crate) mac: [u8; 6],
    /// The socket that the switch listens on; none for a wire that leads nowhere.
    pub(crate) socket: Option<PathBuf>,
}

impl VmPlan {
    /// The arguments, the program not among them.
    pub(crate) fn argv(&self) -> Vec<OsString> {
        let mut argv = Argv::default();
        self.machine(&mut argv);
        self.channels(&mut argv);
        for drive in &self.drives {
            drive.add(&mut argv);
        }
        for share in &self.shares {
            share.add(&mut argv);
        }
        for (number, nic) in self.nics.iter().enumerate() {
            nic.add(number, &mut argv);
        }
        self.uplink.add(&mut argv);
        argv.option("-kernel", &self.kernel);
        argv.option("-initrd", &self.initrd);
        argv.option("-append", &self.append);
        argv.0
    }

    fn machine(&self, argv: &mut Argv) {
        argv.option("-name", format!("{},process={0}", self.name));
        argv.flag("-nodefaults");
        argv.flag("-no-user-config");
        argv.option("-display", "none");
        // A HPET that the guest leaves ticking costs four times the idle processor time.
        argv.option("-machine", "q35,hpet=off");
        argv.0.extend(self.memory_from.arguments(self.memory));
        if let Some(firmware) = &self.firmware {
            let mut blockdev = Options::new("driver=raw,node-name=firmware,read-only=on".into());
            blockdev.text(",file.driver=file,file.locking=off");
            blockdev.text(KEEP_CACHED);
            blockdev.path(",file.filename=", firmware);
            argv.option("-blockdev", blockdev.0);
            argv.option("-machine", "pflash0=firmware");
        }
        if let Some(state) = &self.incoming {
            argv.0.extend(incoming(state));
        }
        match self.accelerator {
            Accelerator::Kvm => {
                argv.option("-accel", "kvm");
                argv.option("-cpu", "host");
            }
            Accelerator::Tcg => {
                // Smaller caches of translated code cost a third of the boot.
                argv.option("-accel", "tcg,thread=multi,tb-size=256");
                // Walking five levels of page tables in software is work for nothing.
                argv.option("-cpu", "max,la57=off");
            }
        }
        argv.option("-smp", self.cpus.to_string());
        argv.option("-m", mebibytes(self.memory));
        argv.option(
            "-action",
            if self.may_restart {
                "reboot=reset,panic=pause"
            } else {
                "reboot=shutdown,panic=pause"
            },
        );
    }

    fn channels(&self, argv: &mut Argv) {
        argv.option("-chardev", format!("socket,id=qmp,fd={}", self.qmp));
        argv.option("-mon", "chardev=qmp,mode=control");
        argv.option("-chardev", "stdio,id=console,signal=off");
        argv.option("-serial", "chardev:console");
        argv.option("-device", "virtio-serial-pci,id=ports");
        argv.option(
            "-chardev",
            format!(
                "socket,id=agent-channel,fd={},server=on,wait=off",
                self.agent
            ),
        );
        argv.option(
            "-device",
            format!(
                "virtserialport,bus=ports.0,chardev=agent-channel,id={AGENT_DEVICE},name={AGENT_PORT}"
            ),
        );
        argv.option("-object", "rng-random,id=random,filename=/dev/urandom");
        argv.option("-device", "virtio-rng-pci,rng=random");
        argv.option("-device", "pvpanic-pci");
        // Tells a restored kernel that it was restored, so that no two have the same random state.
        argv.option("-device", "vmgenid,guid=auto");
    }
}

/// Bytes as QEMU takes them, rounded up.
fn mebibytes(bytes: u64) -> String {
    format!("{}M", bytes.div_ceil(1 << 20))
}

impl Memory {
    /// What gives a machine of `size` bytes this memory. It may stand behind another `-machine`.
    pub(crate) fn arguments(&self, size: u64) -> Vec<OsString> {
        let (path, how) = match self {
            Self::Own => return Vec::new(),
            Self::Shared(path) => (path, ",share=on"),
            // Opened for reading alone, so that whatever goes wrong the file is what it was.
            Self::Private(path) => (path, ",share=off,readonly=on,rom=off"),
        };
        let size = mebibytes(size);
        let mut object = Options::new(format!("memory-backend-file,id=memory,size={size}{how}"));
        object.path(",mem-path=", path);
        let mut argv = Argv::default();
        argv.option("-object", object.0);
        argv.option("-machine", "memory-backend=memory");
        argv.0
    }
}

/// What makes a machine begin with the state of the devices in `state`, as `save.rs` saves it.
fn incoming(state: &Path) -> Vec<OsString> {
    let mut argv = Argv::default();
    // What is saved says nothing of the command line that it fits (we know that), and does not
    // describe itself.
    argv.option("-global", "migration.send-configuration=off");
    argv.option("-machine", "suppress-vmdesc=on");
    // With the MAC that was saved, which may be another machine's.
    argv.option("-global", "migration.announce-rounds=0");
    let mut file = OsString::from("file:");
    file.push(state);
    argv.option("-incoming", file);
    argv.0
}

/// To QEMU a restore is the end of a migration: another host may have written to the disks, and it makes
/// this one forget what it has cached of them. Nobody has; each start would read them from the disk again.
const KEEP_CACHED: &str = ",file.drop-cache=off";

impl Drive {
    fn add(&self, argv: &mut Argv) {
        let id = &self.serial;
        let mut blockdev = Options::new(format!("driver={},node-name={id}", self.format.name()));
        blockdev.text(if self.read_only {
            // Whoever else has it open for reading is no trouble, and nobody writes it.
            ",read-only=on,file.driver=file,file.locking=off"
        } else if self.keep {
            ",discard=unmap,file.driver=file,file.discard=unmap"
        } else {
            // No waiting for the host's disk, least of all while the machine stands still for a
            // checkpoint. Nobody else has the file; who restores from it leaves it alone.
            ",discard=unmap,cache.no-flush=on,file.driver=file,file.discard=unmap\
             ,file.cache.no-flush=on,file.locking=off"
        });
        blockdev.text(KEEP_CACHED);
        blockdev.path(",file.filename=", &self.path);
        argv.option("-blockdev", blockdev.0);
        argv.option("-device", format!("virtio-blk-pci,drive={id},serial={id}"));
    }
}

impl Share {
    fn add(&self, argv: &mut Argv) {
        let tag = &self.tag;
        let mut fsdev = Options::new(format!(
            "local,id={tag},security_model=none,multidevs=remap"
        ));
        if !self.writable {
            fsdev.text(",readonly=on");
        }
        fsdev.path(",path=", &self.path);
        argv.option("-fsdev", fsdev.0);
        argv.option(
            "-device",
            format!("virtio-9p-pci,fsdev={tag},mount_tag={tag}"),
        );
    }
}

impl Nic {
    fn add(&self, number: usize, argv: &mut Argv) {
        let netdev = match &self.socket {
            Some(socket) => {
                let stream = format!("stream,id=net{number},server=off,addr.type=unix");
                let mut netdev = Options::new(stream);
                netdev.path(",addr.path=", socket);
                netdev.0
            }
            None => format!("hubport,id=net{number},hubid={number}").into(),
        };
        argv.option("-netdev", netdev);
        card(&format!("net{number}"), self.mac, argv);
    }
}

pub(super) fn card(netdev: &str, mac: [u8; 6], argv: &mut Argv) {
    let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
    // No option ROM: nothing boots from the network, and reading it takes time. And no asking the
    // guest to tell where it is after a restore: our agent does that, and QEMU 10, when it is not to
    // announce anything, drops the card's timer for it and falls over that when the card is reset.
    argv.option(
        "-device",
        format!("virtio-net-pci,netdev={netdev},mac={mac},romfile=,guest_announce=off"),
    );
}

#[derive(Default)]
pub(super) struct Argv(Vec<OsString>);

impl Argv {
    fn flag(&mut self, flag: &str) {
        self.0.push(flag.into());
    }

    pub(super) fn option(&mut self, option: &str, value: impl AsRef<std::ffi::OsStr>) {
        self.0.push(option.into());
        self.0.push(value.as_ref().into());
    }
}

/// A list of options in which a path may stand.
struct Options(OsString);

impl Options {
    fn new(text: String) -> Self {
        Self(text.into())
    }

    fn text(&mut self, text: &str) {
        self.0.push(text);
    }

    /// Commas separate options; one in a value is written twice.
    fn path(&mut self, key: &str, path: &Path) {
        self.0.push(key);
        let mut value = Vec::new();
        for &byte in path.as_os_str().as_bytes() {
            if byte == b',' {
                value.push(b',');
            }
            value.push(byte);
        }
        self.0.push(OsString::from_vec(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> VmPlan {
        VmPlan {
            name: "db".into(),
            accelerator: Accelerator::Tcg,
            memory: 512 << 20,
            memory_from: Memory::Own,
            incoming: None,
            firmware: Some("/usr/share/bios.bin".into()),
            cpus: 2,
            kernel: "/cache/vmlinuz".into(),
            initrd: "/cache/initrd".into(),
            append: "console=ttyS0".into(),
            drives: vec![
                Drive {
                    path: "/cache/root.erofs".into(),
                    format: Format::Raw,
                    read_only: true,
                    keep: false,
                    serial: "root".into(),
                },
                Drive {
                    path: "/run/a,b/disk0.img".into(),
                    format: Format::Raw,
                    read_only: false,
                    keep: false,
                    serial: "disk0".into(),
                },
            ],
            shares: vec![Share {
                tag: "volume0".into(),
                path: "/srv/data".into(),
                writable: false,
            }],
            nics: vec![Nic {
                mac: [0x52, 0x54, 0, 0x12, 1, 3],
                socket: Some("/run/vlan1/db.sock".into()),
            }],
            uplink: Uplink::No,
            qmp: 7,
            agent: 9,
            may_restart: true,
        }
    }

    fn pairs(plan: &VmPlan) -> String {
        let argv = plan.argv();
        let words: Vec<_> = argv.iter().map(|word| word.to_string_lossy()).collect();
        words.join(" ").replace(" -", "\n-")
    }

    #[test]
    fn the_command_line() {
        insta::assert_snapshot!(pairs(&plan()), @r"
        -name db,process=db
        -nodefaults
        -no-user-config
        -display none
        -machine q35,hpet=off
        -blockdev driver=raw,node-name=firmware,read-only=on,file.driver=file,file.locking=off,file.drop-cache=off,file.filename=/usr/share/bios.bin
        -machine pflash0=firmware
        -accel tcg,thread=multi,tb-size=256
        -cpu max,la57=off
        -smp 2
        -m 512M
        -action reboot=reset,panic=pause
        -chardev socket,id=qmp,fd=7
        -mon chardev=qmp,mode=control
        -chardev stdio,id=console,signal=off
        -serial chardev:console
        -device virtio-serial-pci,id=ports
        -chardev socket,id=agent-channel,fd=9,server=on,wait=off
        -device virtserialport,bus=ports.0,chardev=agent-channel,id=agent,name=org.machinist.agent.0
        -object rng-random,id=random,filename=/dev/urandom
        -device virtio-rng-pci,rng=random
        -device pvpanic-pci
        -device vmgenid,guid=auto
        -blockdev driver=raw,node-name=root,read-only=on,file.driver=file,file.locking=off,file.drop-cache=off,file.filename=/cache/root.erofs
        -device virtio-blk-pci,drive=root,serial=root
        -blockdev driver=raw,node-name=disk0,discard=unmap,cache.no-flush=on,file.driver=file,file.discard=unmap,file.cache.no-flush=on,file.locking=off,file.drop-cache=off,file.filename=/run/a,,b/disk0.img
        -device virtio-blk-pci,drive=disk0,serial=disk0
        -fsdev local,id=volume0,security_model=none,multidevs=remap,readonly=on,path=/srv/data
        -device virtio-9p-pci,fsdev=volume0,mount_tag=volume0
        -netdev stream,id=net0,server=off,addr.type=unix,addr.path=/run/vlan1/db.sock
        -device virtio-net-pci,netdev=net0,mac=52:54:00:12:01:03,romfile=,guest_announce=off
        -kernel /cache/vmlinuz
        -initrd /cache/initrd
        -append console=ttyS0
        ");
    }

    #[test]
    fn to_be_saved_and_restored() {
        let mut plan = plan();
        plan.memory_from = Memory::Shared("/tmp/a,b/memory".into());
        plan.nics[0].socket = None;
        let text = pairs(&plan);
        for line in [
            "-object memory-backend-file,id=memory,size=512M,share=on,mem-path=/tmp/a,,b/memory\n-machine memory-backend=memory\n",
            "-netdev hubport,id=net0,hubid=0\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
        plan.memory_from = Memory::Private("/cache/memory".into());
        plan.incoming = Some("/cache/state".into());
        let text = pairs(&plan);
        for line in [
            "-object memory-backend-file,id=memory,size=512M,share=off,readonly=on,rom=off,mem-path=/cache/memory\n",
            "-machine suppress-vmdesc=on\n-global migration.announce-rounds=0\n-incoming file:/cache/state\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }

    #[test]
    fn under_kvm_without_restarts() {
        let plan = VmPlan {
            accelerator: Accelerator::Kvm,
            may_restart: false,
            drives: Vec::new(),
            shares: Vec::new(),
            nics: Vec::new(),
            ..plan()
        };
        let text = pairs(&plan);
        assert!(text.contains("-accel kvm\n-cpu host"), "{text}");
        assert!(text.contains("-action reboot=shutdown"), "{text}");
        assert!(!text.contains("netdev"), "{text}");
    }

    #[test]
    fn an_uplink_is_a_card_of_its_own() {
        let mut plan = plan();
        plan.uplink = Uplink::Nowhere;
        assert!(pairs(&plan).contains("hubport,id=uplink,hubid=1000\n-device virtio-net-pci"));
        plan.uplink = Uplink::Open;
        let text = pairs(&plan);
        let lines = "-netdev user,id=uplink,ipv6=off\n-device virtio-net-pci,netdev=uplink,mac=52:54:00:12:00:01,romfile=,guest_announce=off\n";
        assert!(text.contains(lines), "{text}");
    }
}
