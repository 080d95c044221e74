//! A VM's start script, as NixOS tests have one.
//!
//! It does what NixOS' does, over a Debian: it boots the image's own init, in which a service attaches
//! a root shell to `/dev/hvc0`; host and guest share directories by 9p; the driver's own arguments
//! come last. The root is a read-only disk under an overlay in memory, laid by a small initrd of
//! busybox, which also puts the files of this machine there.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::cpio;
use crate::Modules;

/// What a script's VM boots.
#[derive(Debug, Clone)]
pub struct VmSystem {
    /// The kernel, as QEMU takes it. It must have 9p.
    pub kernel: PathBuf,
    /// The directory that has `modules.dep`.
    pub modules: PathBuf,
    /// The root file system, an erofs.
    pub disk: PathBuf,
}

/// What a script's VM is to be.
#[derive(Debug, Clone)]
pub struct VmScript {
    /// Its name.
    pub name: String,
    /// Its number, from 1: the last part of its addresses.
    pub number: u8,
    /// The VLANs that it is on: `eth1` is on the first.
    pub vlans: Vec<u32>,
    /// What it boots.
    pub system: VmSystem,
    /// Lines of its `/etc/hosts`, beside those for itself.
    pub hosts: Vec<String>,
    /// Whether it mounts what it shares with the host.
    pub shares: bool,
    /// What is done before the shell is announced.
    pub before_shell: String,
    /// What reads the commands, without its terminal.
    pub shell: String,
    /// Files that it has beside those of the root, by their absolute paths: text and mode.
    pub files: Vec<(String, String, u32)>,
    /// More arguments of QEMU, for a shell.
    pub options: String,
    /// Whether it stops in its initrd, with a shell there (`testing.initrdBackdoor` of NixOS).
    pub initrd_shell: bool,
}

/// What the initrd needs. A kernel that has one of them built in has no such file.
const MODULES: [&str; 9] = [
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "virtio_console",
    "crc32c_generic",
    "erofs",
    "overlay",
    "9p",
    "9pnet_virtio",
];

impl VmScript {
    /// One without a network but the one to the host.
    #[must_use]
    pub fn new(name: &str, system: &VmSystem) -> Self {
        Self {
            name: name.to_owned(),
            number: 1,
            vlans: Vec::new(),
            system: system.clone(),
            hosts: Vec::new(),
            shares: true,
            before_shell: String::new(),
            shell: "/bin/bash --norc".to_owned(),
            files: Vec::new(),
            options: String::new(),
            initrd_shell: false,
        }
    }

    /// Puts it on `vlans`, as machine `number` of them.
    #[must_use]
    pub fn on(mut self, number: u8, vlans: &[u32]) -> Self {
        self.number = number;
        self.vlans = vlans.to_vec();
        self
    }

    /// Writes `run-NAME-vm`, and what that needs beside it, into `directory`.
    ///
    /// # Errors
    /// It cannot be written, or there is no busybox on the host.
    pub fn write(&self, directory: &Path) -> io::Result<PathBuf> {
        let initrd = directory.join(format!("{}.initrd", self.name));
        fs::write(&initrd, self.initrd()?)?;
        let name = format!("run-{}-vm", self.name);
        super::write_program(directory, &name, &self.text(&initrd))
    }

    fn text(&self, initrd: &Path) -> String {
        let mut devices = String::new();
        for (at, vlan) in self.vlans.iter().enumerate() {
            // Writing to a string cannot fail.
            _ = write!(
                devices,
                " \\\n    -netdev vde,id=vlan{vlan},sock=\"$QEMU_VDE_SOCKET_{vlan}\" \
                 -device virtio-net-pci,netdev=vlan{vlan},mac=52:54:00:12:{vlan:02x}:{:02x},addr=1{at}",
                self.number
            );
        }
        format!(
            r#"#!/bin/bash
set -e
if [ -z "$TMPDIR" ] || [ -z "$USE_TMPDIR" ]; then
    TMPDIR=$(mktemp -d vm.XXXXXXXXXX --tmpdir)
fi
mkdir -p "$TMPDIR/xchg"
cd "$TMPDIR"
exec qemu-system-x86_64 -name {name} -machine accel=tcg -cpu max,la57=off -m 512 -smp 1 \
    -device virtio-rng-pci \
    -netdev user,id=user.0 -device virtio-net-pci,netdev=user.0,romfile={devices} \
    -virtfs local,path="$TMPDIR"/xchg,security_model=none,mount_tag=xchg \
    -virtfs local,path="${{SHARED_DIR:-$TMPDIR/xchg}}",security_model=none,mount_tag=shared \
    -drive file={disk},if=none,id=root,format=raw,readonly=on,file.locking=off \
    -device virtio-blk-pci,drive=root \
    -kernel {kernel} -initrd {initrd} \
    -append "console=tty0 console=ttyS0 quiet panic=1 net.ifnames=0 systemd.show_status=0" \
    {options} $QEMU_OPTS "$@"
"#,
            name = self.name,
            disk = self.system.disk.display(),
            kernel = self.system.kernel.display(),
            initrd = initrd.display(),
            options = self.options,
        )
    }

    fn initrd(&self) -> io::Result<Vec<u8>> {
        let busybox = ["/bin/busybox", "/usr/bin/busybox"]
            .iter()
            .find_map(|path| fs::read(path).ok())
            .ok_or_else(|| io::Error::other("no busybox (Debian: busybox-static)"))?;
        let mut archive = cpio::Archive::default();
        for name in [
            "bin", "dev", "proc", "sys", "lower", "memory", "new", "modules",
        ] {
            archive.directory(name);
        }
        archive.file("bin/busybox", 0o755, &busybox);
        let mut init =
            String::from("#!/bin/busybox sh\nexport PATH=/bin\n/bin/busybox --install -s /bin\n");
        let dependencies = fs::read_to_string(self.system.modules.join("modules.dep"))?;
        // What this kernel has built in, it does not need.
        let modules = Modules::find(&dependencies, &MODULES);
        for (number, module) in modules.in_order.into_iter().enumerate() {
            let name = format!("modules/{number}.ko");
            archive.file(&name, 0o644, &fs::read(self.system.modules.join(module))?);
            _ = writeln!(init, "insmod /{name}");
        }
        init += LAY_ROOT;
        init += if self.initrd_shell { STOP } else { ENTER };
        archive.file("init", 0o755, init.as_bytes());
        archive.directory("own");
        for (path, text, mode) in self.own_files() {
            let path = Path::new("own").join(path.trim_start_matches('/'));
            let above: Vec<&Path> = path.ancestors().skip(1).collect();
            for directory in above.into_iter().rev().filter(|it| it.iter().count() > 1) {
                archive.directory(&directory.to_string_lossy());
            }
            archive.file(&path.to_string_lossy(), mode, text.as_bytes());
        }
        Ok(archive.finish())
    }

    /// The files that make the image this machine.
    fn own_files(&self) -> Vec<(String, String, u32)> {
        let mut hosts = String::from("127.0.0.1 localhost\n::1 localhost\n");
        for line in &self.hosts {
            hosts += line;
            hosts += "\n";
        }
        let mut network = String::from("ip link set lo up\nip link set eth0 up\n");
        for (at, vlan) in self.vlans.iter().enumerate() {
            let (at, number) = (at + 1, self.number);
            _ = writeln!(hosts, "192.168.{vlan}.{number} {}", self.name);
            _ = writeln!(
                network,
                "ip link set eth{at} up\nip addr add 192.168.{vlan}.{number}/24 dev eth{at}\n\
                 ip addr add 2001:db8:{vlan}::{number}/64 dev eth{at} nodad"
            );
        }
        let shared = if self.shares { MOUNT_SHARED } else { "" };
        let text = |path: &str, text: &str| (path.to_owned(), text.to_owned(), 0o644);
        let program = |path: &str, text: String| (path.to_owned(), text, 0o755);
        let mut files = vec![
            text("/etc/hostname", &format!("{}\n", self.name)),
            text("/etc/hosts", &hosts),
            text("/etc/systemd/system/backdoor.service", BACKDOOR),
            text("/etc/systemd/system/early.service", EARLY),
            program("/etc/test/early", format!("#!/bin/sh\n{shared}{network}")),
            program(
                "/etc/test/backdoor",
                SHELL
                    .replace("@before@", &self.before_shell)
                    .replace("@shell@", &self.shell),
            ),
        ];
        files.extend(self.files.iter().cloned());
        files
    }
}

/// What the initrd does once its modules are there.
const LAY_ROOT: &str = "mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
until [ -b /dev/vda ]; do sleep 0.01; done
mount -t erofs -o ro /dev/vda /lower || mount -t ext4 -o ro /dev/vda /lower
mount -t tmpfs -o mode=0755 memory /memory
mkdir /memory/upper /memory/work
cp -a /own/. /memory/upper/
for unit in backdoor early; do
    mkdir -p /memory/upper/etc/systemd/system/multi-user.target.wants
    ln -s ../$unit.service /memory/upper/etc/systemd/system/multi-user.target.wants/
done
for name in hvc0 ttyS0; do
    [ -e /own/etc/test/getty ] || ln -s /dev/null /memory/upper/etc/systemd/system/serial-getty@$name.service
done
mount -t overlay -o lowerdir=/lower,upperdir=/memory/upper,workdir=/memory/work overlay /new
tr -d - </proc/sys/kernel/random/uuid >/new/etc/machine-id
";

/// Goes on into the system.
const ENTER: &str = "mount --move /dev /new/dev
umount /proc /sys
exec switch_root /new /sbin/init
echo the root cannot be entered >/dev/console
";

/// Goes on into another system with the same files, which takes itself for an initrd, because it has
/// `/etc/initrd-release`, and has the real root on `/sysroot`. Its shell comes early, and goes with it.
const STOP: &str = "mkdir -p /initrd /memory/upper1 /memory/work1
cp -a /own/. /memory/upper1/
cd /memory/upper1/etc
echo ID=test >initrd-release
mkdir -p systemd/system/initrd.target.wants
ln -s ../backdoor.service systemd/system/initrd.target.wants/
for name in hvc0 ttyS0; do
    ln -s /dev/null systemd/system/serial-getty@$name.service
done
{
    echo '[Unit]'
    echo DefaultDependencies=no
    echo Conflicts=shutdown.target initrd-switch-root.target
    echo Before=shutdown.target initrd-switch-root.target
    echo '[Service]'
    echo ExecStart=/etc/test/backdoor
    echo KillSignal=SIGHUP
} >systemd/system/backdoor.service
printf '[Unit]\\nDefaultDependencies=no\\n[Service]\\nType=oneshot\\nExecStart=/bin/true\\n' >systemd/system/initrd-cleanup.service
cp /new/etc/machine-id machine-id
cd /
mount -t overlay -o lowerdir=/lower,upperdir=/memory/upper1,workdir=/memory/work1 overlay /initrd
mkdir /initrd/sysroot
mount --move /new /initrd/sysroot
mount --move /dev /initrd/dev
umount /proc /sys
export SYSTEMD_IN_INITRD=lenient
exec switch_root /initrd /sbin/init
echo the root cannot be entered >/dev/console
";

/// NixOS mounts these before any service, too.
const MOUNT_SHARED: &str = "mkdir -p /tmp/shared /tmp/xchg
mount -t 9p -o trans=virtio,version=9p2000.L,msize=16384 shared /tmp/shared
mount -t 9p -o trans=virtio,version=9p2000.L,msize=16384 xchg /tmp/xchg
";

const EARLY: &str = "[Unit]
DefaultDependencies=no
After=local-fs.target
Before=backdoor.service network.target
Conflicts=shutdown.target
Before=shutdown.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/etc/test/early
";

const BACKDOOR: &str = "[Unit]
After=early.service
[Service]
ExecStart=/etc/test/backdoor
KillSignal=SIGHUP
";

/// What stands between the system and the driver.
const SHELL: &str = "#!/bin/bash
export USER=root HOME=/root DISPLAY=:0.0
[ -e /etc/profile ] && source /etc/profile
export PAGER=
cd /tmp
@before@
exec </dev/hvc0 >/dev/hvc0
until exec 2>/dev/ttyS0; do sleep 0.1; done
echo 'connecting to host...' >&2
stty -F /dev/hvc0 raw -echo
echo 'Spawning backdoor root shell...'
PS1= exec @shell@ /dev/hvc0
";
