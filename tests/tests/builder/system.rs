//! A builder whose machine is somebody's NixOS. There is no NixOS here, so a Debian with Nix is laid out as one:
//! `system.sh`. Its store is one that Nix on the host knows.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::Case;
use crate::rig::{Rig, is_there};
use crate::web::Web;

pub const CASES: &[Case] = &[
    Case {
        name: "system::of_a_container_and_the_next_one",
        run: container,
    },
    Case {
        name: "system::of_a_vm",
        run: vm,
    },
];

const MAKE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/builder/system.sh");
const NIX: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/builder/nix.sh");

/// An emulated machine on a busy host. Nothing but a machine that hangs takes so long.
const BOOT: Duration = Duration::from_secs(400);

/// A build that the shell of the system can run.
const BUILD: &str = r#"
machines s
made() {
    cat > $1.nix <<END
derivation {
  name = "$1"; system = "x86_64-linux"; builder = "/bin/sh"; requiredSystemFeatures = [ "uid-range" ];
  args = [ "-c" ''
    echo in the log
    while read -r map; do echo "map: \$map"; done < /proc/self/uid_map
    read -r said < \$input
    echo "\$said, in $1" > \$out
  '' ];
  input = ./input;
}
END
    echo from the client > input
    cat $(build $1.nix)
}
"#;

/// A system in a store that is not the host's, and a `nix-store` that knows it.
struct Made {
    root: PathBuf,
    toplevel: PathBuf,
    search: String,
}

impl Made {
    /// One of this name, with a kernel and its modules where it is to have one.
    fn new(rig: &Rig, name: &str, kernel: Option<(&Path, &Path)>) -> Result<Self> {
        let root = rig.file("system");
        let debian = rig.host().root();
        let mut make = Command::new("sh");
        make.args([Path::new(MAKE), &root, debian]).arg(name);
        if let Some((image, modules)) = kernel {
            make.args([image, modules]);
        }
        let made = make.output().context("cannot run sh")?;
        let said = String::from_utf8_lossy(&made.stderr);
        ensure!(made.status.success(), "{MAKE}: {said}");
        let toplevel = String::from_utf8(made.stdout)?;
        let programs = rig.file("programs");
        fs::create_dir_all(&programs)?;
        let nix = programs.join("nix-store");
        let words = [root.display(), debian.display()].map(|path| format!("'{path}'"));
        let text = format!("#!/bin/sh\nexec sh {NIX} {} \"$@\"\n", words.join(" "));
        fs::write(&nix, text)?;
        fs::set_permissions(&nix, fs::Permissions::from_mode(0o755))?;
        let usual = std::env::var("PATH")?;
        Ok(Self {
            toplevel: root.join(toplevel.trim().trim_start_matches('/')),
            root,
            search: format!("{}:{usual}", programs.display()),
        })
    }

    /// Creates, or changes, a builder with it.
    fn create(&self, rig: &Rig, options: &[&str]) -> Result<machinist_tests::Ran> {
        let toplevel = self.toplevel.to_string_lossy();
        let words = ["create", "s", "--memory", "1G", "--system", &toplevel];
        let created = rig.builder(&[&words, options].concat());
        created.env("PATH", &self.search).run()
    }
}

/// That it has the system's features, and those alone that it really has.
fn is_of(state: &Value, made: &Made, kind: &str) -> Result<()> {
    let toplevel = made.toplevel.strip_prefix(&made.root)?;
    let toplevel = format!("/{}", toplevel.display());
    ensure!(state["system"]["toplevel"] == toplevel.as_str(), "{state}");
    ensure!(state["system"]["version"] == "26.05.test", "{state}");
    ensure!(state["kind"] == kind, "{state}");
    let features = serde_json::json!(["marked", "uid-range"]);
    ensure!(state["features"] == features, "{state}");
    Ok(())
}

fn container(rig: &Rig) -> Result<()> {
    let made = Made::new(rig, "first", None)?;
    made.create(rig, &["--kernel", "/dev/null"])?
        .exits(2)?
        .complains("it is empty, not a kernel")?;
    made.create(rig, &[])?.exits(0)?;
    // What needs our own system in the machine says so.
    let ssh = rig.builder(&["ssh", "s"]).run()?.exits(2)?;
    ssh.complains("machinist's own system")?;
    let service = rig.serve("s")?;
    let web = Web::open()?;
    let download = web.derivation("127.0.0.1");
    let script = format!("{BUILD}{download}made one\ncat $(build download.nix)\n");
    rig.client(&script)?
        .exits(0)?
        .says("from the client, in one\nfrom the host")?
        .complains("one> in the log")?
        .complains("65536")?;
    is_of(&rig.status("s")?, &made, "container")?;
    service.signal(Signal::TERM);
    ensure!(service.wait()?.code() == Some(0));

    // Another system: the store stays, also what was built under the first.
    let next = Made::new(rig, "second", None)?;
    next.create(rig, &["--keep"])?.exits(0)?;
    // As if a collector that was killed had left a part of it.
    let half = next.toplevel.file_name().context("it has no name")?;
    fs::create_dir(rig.builders().join("s/store/store").join(half))?;
    rig.serve("s")?;
    let script = format!("{BUILD}made two\n");
    rig.client(&script)?.exits(0)?.says("in two")?;
    is_of(&rig.status("s")?, &next, "container")?;
    let script = "export PATH=/run/current-system/sw/bin; set -e; cd /nix/store
        nix-store --check-validity $PWD/*-one $PWD/*-two /run/current-system/
        nix-store --gc > /dev/null 2>&1
        ls -d *";
    let words = ["shell", "s", "--", "sh", "-c", script];
    let there = rig.builder(&words).run()?.exits(0)?.stdout;
    ensure!(there.contains("nixos-system-test-second"), "{there}");
    ensure!(!there.contains("nixos-system-test-first"), "{there}");
    rig.end("s")?;

    // Machinist's own, with the same store.
    let words = ["create", "s", "--keep", "--memory", "1G"];
    rig.builder(&words).run()?.exits(0)?;
    let script = "nix-store --check-validity /nix/store/*-second && echo sound";
    let words = ["shell", "s", "--", "sh", "-c", script];
    rig.builder(&words).run()?.exits(0)?.says("sound")?;
    rig.end("s")?;
    rig.builder(&["destroy", "s", "--yes"]).run()?.exits(0)?;
    ensure!(!is_there(&rig.builders().join("s")));
    Ok(())
}

fn vm(rig: &Rig) -> Result<()> {
    let boots = rig.host().guest().system()?;
    let made = Made::new(rig, "vm", Some((&boots.kernel, &boots.modules)))?;
    let file = |name: &str| made.toplevel.join(name).to_string_lossy().into_owned();
    // They lead to where the store is for those in it.
    let linux = made
        .root
        .join("nix/store/00000000000000000000000000000003-linux");
    let (kernel, initrd) = (linux.join("bzImage"), linux.join("initrd"));
    let (kernel, initrd) = (kernel.to_string_lossy(), initrd.to_string_lossy());
    made.create(rig, &["--kernel", &initrd, "--initrd", &kernel])?
        .exits(2)?
        .complains("they look swapped")?;
    made.create(rig, &["--kernel", &file("init")])?
        .exits(2)?
        .complains("it is a script, not a kernel")?;
    ensure!(!is_there(&rig.builders().join("s")));
    let options = ["--kernel", &kernel, "--initrd", &initrd, "--cores", "1"];
    made.create(rig, &[&options[..], &["--disk", "2G"]].concat())?
        .exits(0)?;
    rig.serve("s")?;
    let client = rig.start_client(&format!("{BUILD}made one\n"))?;
    let said = client.passes(BOOT)?;
    ensure!(said.contains("from the client, in one"), "{said}");
    ensure!(said.contains("one> in the log"), "{said}");
    is_of(&rig.status("s")?, &made, "vm")?;
    rig.builder(&["stop", "s"]).run()?.exits(0)?;
    // It is all there for the next start.
    let blocks = fs::metadata(rig.builders().join("s/store.img"))?;
    ensure!(blocks.len() == 2 << 30, "{blocks:?}");
    let console = rig.builder(&["logs", "s", "--console"]).run()?.exits(0)?;
    console
        .says("copying the system into the builder's store")?
        .says("Power")?;
    rig.end("s")
}
