//! A real Nix with a real sandbox, whatever the host is: Debian's nix in a container of
//! systemd-nspawn, over a root from machinist's own image store.
//!
//! ```text
//! the host          systemd-nspawn, no network, everything that is written is in memory
//!   NixHost         root of a Debian with Nix 2.34; /rig is a directory of the host
//!     Nix           single-user, sandbox = true, uid-range
//!       derivation  root of 65536 ids; /usr and /bin of the NixHost, /machinist, /guest
//! ```
//!
//! One call of the container takes 0.2 s, so each test has its own, with an empty store.

mod cgroup;
mod guest;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::{Command, Ran, images, machinist};
use cgroup::Cgroup;
pub use guest::Guest;

/// The first Debian whose Nix can give a build a range of user ids. Beside Nix it has what derivations
/// find in the sandbox: what machinist needs of a host, the programs by which tests read a screen, and
/// those of start scripts.
const HOST: Image = (
    "debian:forky",
    &[
        "e2fsprogs",
        "erofs-utils",
        "imagemagick",
        "iproute2",
        "nix-bin",
        "openssh-client",
        "openssh-server",
        "python3",
        "qemu-system-x86",
        "systemd-container",
        "tesseract-ocr",
        "vde2",
    ],
);

/// What the tests of machines boot, too.
const GUEST: Image = ("debian:bookworm", &["curl", "nginx-light"]);

/// A source of the image store, and packages.
type Image = (&'static str, &'static [&'static str]);

/// The settings that docs/nix.md tells users to make, and what makes programs of Debian visible in
/// the sandbox. Never a directory and something in it: Nix would empty the file on the host.
const SETTINGS: &str = "\
build-users-group =
sandbox = true
sandbox-fallback = false
auto-allocate-uids = true
experimental-features = nix-command flakes auto-allocate-uids cgroups
system-features = uid-range nixos-test
substituters =
flake-registry =
sandbox-paths = /usr=/usr /lib=/usr/lib /lib64=/usr/lib64 /bin=/usr/bin /guest=/guest /machinist=/machinist
";

/// What happens before the container is made, in namespaces of its own.
const BEFORE: &str = r#"echo 0 > "$0"; mount -t tmpfs tmpfs /run; exec "$@""#;

/// What happens in the container before anything else.
const BEGIN: &str = "\
set -eu
export PATH=/usr/bin:/usr/sbin HOME=/root
mkdir -p /etc/nix
cp /rig/nix.conf /etc/nix/
ln -s machinist /machinist/nixos-test-driver
ln -s machinist /machinist/generate-driver-symbols
";

/// Runs the script in a container that systemd boots, and ends with it.
const BOOTED: &str = "\
[Unit]
SuccessAction=exit-force
FailureAction=exit-force
[Service]
Type=oneshot
WorkingDirectory=/rig
ExecStart=/bin/bash /rig/script
StandardOutput=append:/rig/stdout
StandardError=append:/rig/stderr
";

/// A derivation whose builder is the file `/rig/NAME`.
const DERIVATION: &str = r#"
derivation {
  name = "@NAME@";
  system = builtins.currentSystem;
  builder = "/bin/bash";
  args = [ (builtins.path { name = "@NAME@"; path = /rig/@NAME@; }) ];
  requiredSystemFeatures = [ "uid-range" ];
  PATH = "/machinist:/usr/bin:/usr/sbin";
}
"#;

/// A Debian with Nix, of which any number of containers may run.
#[derive(Debug)]
pub struct NixHost {
    root: PathBuf,
    rig: TempDir,
    cgroup: Option<Cgroup>,
    guest: Guest,
}

impl NixHost {
    /// Builds its root and its guests, unless the image store has them.
    ///
    /// # Errors
    /// An image cannot be built.
    pub fn new() -> Result<Self> {
        let root = images::root(HOST.0, HOST.1)?;
        let rig = tempfile::Builder::new()
            .prefix("mt-nix-")
            .tempdir_in("/tmp")
            .context("cannot make a directory in /tmp")?;
        let cgroup = Cgroup::new(&format!("mt-nix-{}", std::process::id()))?;
        let guest = Guest::new(rig.path().join("guest"), GUEST)?;
        fs::write(rig.path().join("nix.conf"), SETTINGS).context("cannot write nix.conf")?;
        let host = Self {
            root,
            rig,
            cgroup,
            guest,
        };
        host.with_program(machinist())
    }

    /// With this `machinist` in the place of the one that the tests build.
    ///
    /// # Errors
    /// It cannot be copied.
    pub fn with_program(self, program: &Path) -> Result<Self> {
        // A copy: who builds it anew takes nothing away from machines that run.
        let copied = fs::copy(program, self.program());
        copied.with_context(|| format!("cannot copy {}", program.display()))?;
        Ok(self)
    }

    fn program(&self) -> PathBuf {
        self.rig().join("machinist")
    }

    /// The directory that containers see as `/rig`.
    #[must_use]
    pub fn rig(&self) -> &Path {
        self.rig.path()
    }

    /// Its root. Not to be written to.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What machines of derivations boot.
    #[must_use]
    pub fn guest(&self) -> &Guest {
        &self.guest
    }

    /// Writes `/rig/NAME.nix`: a derivation that bash builds by `script`, as root of 65536 ids.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn derive(&self, name: &str, script: &str) -> Result<()> {
        let derivation = DERIVATION.replace("@NAME@", name);
        let write = |file: &str, text: &str| {
            fs::write(self.rig().join(file), text).with_context(|| format!("cannot write {file}"))
        };
        write(name, script)?;
        write(&format!("{name}.nix"), &derivation)
    }

    /// Runs `script` by bash in a container, with `/rig` as its directory.
    ///
    /// # Errors
    /// The container cannot be started, or does not end.
    pub fn run(&self, script: &str) -> Result<Ran> {
        Command::of(self.command(script)?).run()
    }

    /// The same, for who wants to see its output as it comes.
    ///
    /// # Errors
    /// The script cannot be written.
    pub fn command(&self, script: &str) -> Result<std::process::Command> {
        let mut nspawn = self.container(script)?;
        nspawn
            .args(["--as-pid2", "--chdir=/rig"])
            .args(["/bin/bash", "/rig/script"]);
        Ok(nspawn)
    }

    /// Runs `script` as the one service of a container that systemd boots, with more of the host's
    /// directories to be seen there. Its words are those of the script.
    ///
    /// # Errors
    /// The container cannot be started, or does not end.
    pub fn booted(&self, script: &str, shown: &[(&Path, &str)]) -> Result<Ran> {
        let write = |name: &str, text: &str| {
            fs::write(self.rig().join(name), text).with_context(|| format!("cannot write {name}"))
        };
        write("rig.service", BOOTED)?;
        write("stdout", "")?;
        write("stderr", "")?;
        let mut nspawn = self.container(script)?;
        let unit = self.rig().join("rig.service");
        nspawn.arg(bind("--bind-ro", &unit, "/etc/systemd/system/rig.service"));
        for (path, target) in shown {
            nspawn.arg(bind("--bind", path, target));
        }
        nspawn.args(["--boot", "systemd.unit=rig.service"]);
        let mut ran = Command::of(nspawn).run()?;
        let read = |name: &str| {
            fs::read_to_string(self.rig().join(name)).with_context(|| format!("cannot read {name}"))
        };
        ran.stdout = read("stdout")?;
        // Why systemd has not come so far.
        let of_script = read("stderr")?;
        ran.stderr = match of_script.is_empty() {
            true => ran.stderr,
            false => of_script,
        };
        Ok(ran)
    }

    /// A container, but for what runs in it.
    fn container(&self, script: &str) -> Result<std::process::Command> {
        let path = self.rig().join("script");
        fs::write(&path, format!("{BEGIN}{script}")).context("cannot write the script")?;
        // What nspawn keeps in /run is gone with it, and so is all that it started.
        let mut nspawn = std::process::Command::new("unshare");
        nspawn
            .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .args(["sh", "-ec", BEFORE])
            .arg(
                self.cgroup
                    .as_ref()
                    .map_or("/dev/null".into(), Cgroup::processes),
            )
            .arg("systemd-nspawn")
            // Hosts with an older layout of cgroups have a cgroup2 beside it.
            .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")
            // The root is shared, and never written to.
            .env("SYSTEMD_NSPAWN_LOCK", "0")
            .args(["--quiet", "--register=no", "--keep-unit"])
            .args(["--volatile=overlay", "--console=pipe", "--private-network"])
            // A sandbox of 65536 ids, with keyrings as Nix wants them.
            .args(["--capability=all", "--system-call-filter=@keyring"])
            .arg(format!("--machine=mt-nix-{}", std::process::id()))
            .arg(bind("--bind", self.rig(), "/rig"))
            .arg(bind("--bind-ro", self.guest.directory(), "/guest"))
            .arg(bind("--bind-ro", &self.program(), "/machinist/machinist"))
            .arg(bind("--bind-ro", &repository()?, "/repository"))
            .arg("--directory")
            .arg(&self.root)
            .stdin(Stdio::null());
        Ok(nspawn)
    }
}

fn bind(option: &str, source: &Path, target: &str) -> String {
    format!("{option}={}:{target}", source.display())
}

/// The root of this repository.
fn repository() -> Result<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = own.parent().context("this package lies in no workspace")?;
    ensure!(
        root.join("flake.nix").is_file(),
        "{}: no flake",
        root.display()
    );
    Ok(root.to_owned())
}
