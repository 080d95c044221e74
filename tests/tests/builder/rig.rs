//! What the tests stand on.
//!
//! ```text
//! the host         machinist builder ..., the services and machines of builders
//!   /rig           a directory that both see; the builders are in it
//!   NixHost        the client: nix-daemon, and an ordinary user whose builds go to builders
//! ```

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use machinist_tests::nix::NixHost;
use machinist_tests::{Bench, Ran, wait_until};
use serde_json::Value;

/// Before each script of a client.
const CLIENT: &str = r#"
export MACHINIST_BUILDERS=/rig/builders
cat > /etc/nix/nix.conf <<'END'
build-users-group =
sandbox = true
auto-allocate-uids = true
experimental-features = nix-command auto-allocate-uids cgroups
substituters =
max-jobs = 0
END
# The machines NAME..., for 8 builds at once each.
machines() {
    for name; do
        echo "ssh-ng://localhost?remote-program=/machinist/machinist%20connect%20$name" \
            "x86_64-linux - 8 1 benchmark,big-parallel,nixos-test,uid-range - -"
    done > /etc/nix/machines
}
# As somebody whom the daemon does not trust.
user() {
    HOME=/home/user setpriv --reuid 1000 --regid 1000 --clear-groups env NIX_REMOTE=daemon "$@"
}
# The derivation NAME, that SCRIPT builds, with more attributes.
derive() {
    cat > "$1.nix" <<END
derivation ({
  name = "$1";
  system = "x86_64-linux";
  builder = "/bin/sh";
  args = [ "-c" ''
    exec 9<> <(:)
    pause() { read -t \$1 -u 9 || true; }
    $2
  '' ];
} // { $3 })
END
}
build() { user nix build --print-build-logs --no-link --print-out-paths --file "$@"; }
nix-daemon 2> /rig/daemon.log &
until [ -S /nix/var/nix/daemon-socket/socket ]; do sleep 0.02; done
mkdir -p /home/user
chown 1000:1000 /home/user
cd /home/user
"#;

/// Builders in a directory of their own, and a client.
pub struct Rig {
    host: Arc<NixHost>,
    bench: Bench,
}

impl Rig {
    pub fn new(host: Arc<NixHost>) -> Result<Self> {
        let rig = Self {
            host,
            bench: Bench::new()?,
        };
        match fs::remove_dir_all(rig.builders()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error)?,
            _ => {}
        }
        Ok(rig)
    }

    /// The directory of builders.
    pub fn builders(&self) -> PathBuf {
        self.host.rig().join("builders")
    }

    /// The client, and what is in it.
    pub fn host(&self) -> &NixHost {
        &self.host
    }

    /// A file that both see.
    pub fn file(&self, name: &str) -> PathBuf {
        self.host.rig().join(name)
    }

    /// `machinist builder` with these arguments.
    pub fn builder(&self, args: &[&str]) -> machinist_tests::Command {
        self.bench
            .machinist(&["builder"])
            .args(args)
            .env("MACHINIST_BUILDERS", self.builders())
    }

    /// Creates a builder, and starts its service.
    pub fn create(&self, name: &str, options: &[&str]) -> Result<()> {
        let words = [&["create", name, "--memory", "1G"], options].concat();
        self.builder(&words).run()?.exits(0)?;
        Ok(())
    }

    /// The same, with the sessions of its machine where the client sees them, too.
    pub fn create_shared(&self, name: &str, options: &[&str]) -> Result<()> {
        let runtime = self.host.rig().join("run");
        let words = [&["create", name, "--memory", "1G"], options].concat();
        let created = self.builder(&words).env("MACHINIST_RUNTIME", &runtime);
        created.run()?.exits(0)?;
        Ok(())
    }

    /// Its service, as a child of ours.
    pub fn serve(&self, name: &str) -> Result<machinist_tests::Running> {
        let service = self.builder(&["serve", name]).start()?;
        let socket = self.builders().join(name).join("socket");
        let listens = || std::os::unix::net::UnixStream::connect(&socket).ok();
        let listens = wait_until(Duration::from_secs(60), listens);
        ensure!(listens.is_some(), "its service does not listen");
        Ok(service)
    }

    /// Its service as an init system runs it, with a socket that listens already.
    pub fn serve_at(&self, name: &str, socket: OwnedFd) -> Result<Child> {
        let service = std::process::Command::new(machinist_tests::machinist())
            .args(["builder", "serve", name])
            .env("MACHINIST_BUILDERS", self.builders())
            .stdin(socket)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        service.context("cannot start the service")
    }

    /// What Nix's daemon runs to reach a builder, with pipes.
    pub fn connect(&self, name: &str) -> Result<Child> {
        let connect = std::process::Command::new(machinist_tests::machinist())
            .args(["connect", name, "--stdio"])
            .env("MACHINIST_BUILDERS", self.builders())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        connect.context("cannot run machinist connect")
    }

    /// What `status` says of a builder.
    pub fn status(&self, name: &str) -> Result<Value> {
        let words = ["status", name, "--format", "json"];
        self.builder(&words).run()?.exits(0)?.json()
    }

    /// Waits until a builder's machine is in a state.
    pub fn until(&self, name: &str, state: &str, within: Duration) -> Result<Value> {
        let mut seen = Value::Null;
        let reached = wait_until(within, || {
            seen = self.status(name).ok()?;
            (seen["machine"] == state).then_some(())
        });
        reached.with_context(|| format!("{name} is not {state}: {seen}"))?;
        Ok(seen)
    }

    /// Runs `script` as the client.
    pub fn client(&self, script: &str) -> Result<Ran> {
        let same = format!("ln -s /rig {}\n", self.host.rig().display());
        self.host.run(&format!("{same}{CLIENT}{script}"))
    }

    /// Runs `script` as the client, with `before` before its daemon is started.
    pub fn client_after(&self, before: &str, script: &str) -> Result<Ran> {
        let same = format!("ln -s /rig {}\n", self.host.rig().display());
        self.host.run(&format!("{same}{before}{CLIENT}{script}"))
    }

    /// Starts `script` as the client, with its output in the file `client` of the rig.
    pub fn start_client(&self, script: &str) -> Result<Client> {
        let output = fs::File::create(self.file("client")).context("cannot make a file")?;
        let mut command = self.host.command(&format!("{CLIENT}{script}"))?;
        command.stdout(output.try_clone()?).stderr(output);
        let child = command.stdin(Stdio::null()).spawn();
        Ok(Client {
            child: child.context("cannot start the client")?,
            output: self.file("client"),
        })
    }

    /// Ends a builder's service, and with it its machine.
    pub fn end(&self, name: &str) -> Result<()> {
        let words = ["stop", name, "--force", "--service"];
        self.builder(&words).run()?.exits(0)?;
        Ok(())
    }

    pub fn nothing_left(&self) -> Result<()> {
        self.bench.nothing_left()
    }
}

/// A test that has failed has not ended its services, which outlive whoever starts them.
impl Drop for Rig {
    fn drop(&mut self) {
        for entry in fs::read_dir(self.builders())
            .into_iter()
            .flatten()
            .flatten()
        {
            let name = entry.file_name().to_string_lossy().into_owned();
            drop(self.end(&name));
        }
    }
}

/// A client that runs.
pub struct Client {
    child: Child,
    output: PathBuf,
}

impl Client {
    /// What it has said by now.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.output).unwrap_or_default()
    }

    /// Waits until it has said something.
    pub fn until(&self, part: &str, within: Duration) -> Result<()> {
        let said = wait_until(within, || self.said().contains(part).then_some(()));
        said.with_context(|| format!("{part:?} expected: {}", self.said()))
    }

    /// Waits until it has ended, and checks that it did so well.
    pub fn passes(mut self, within: Duration) -> Result<String> {
        let ended = wait_until(within, || self.child.try_wait().ok().flatten());
        let status = ended.with_context(|| format!("the client hangs: {}", self.said()))?;
        ensure!(status.success(), "the client: {status}: {}", self.said());
        Ok(self.said())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // It may have ended.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Whether a file or directory is there.
pub fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
