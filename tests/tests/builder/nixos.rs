//! A NixOS test as a derivation on a builder: machines in the sandbox of a build, in a machine.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use machinist_tests::start_script::ContainerScript;
use rustix::mount::{MountFlags, UnmountFlags, mount_bind, mount_remount, unmount};

use crate::Case;
use crate::rig::Rig;

pub const CASES: &[Case] = &[Case {
    name: "nixos::a_test_with_containers_is_a_build_like_any_other",
    run,
}];

/// Where the derivation unpacks the machines' root.
const ROOT: &str = "/build/root";

/// What nixpkgs would have brought as inputs is shown to the sandboxes of the builder: a Debian with what
/// the driver needs, the machines' root, and our program.
const SANDBOX: &str = "
echo 'sandbox-paths = /usr=/nix/host/usr /lib=/nix/host/usr/lib /lib64=/nix/host/usr/lib64 \
/bin=/nix/host/usr/bin /guest=/nix/guest /machinist=/nix/machinist' >> /etc/nix/machinist.conf
systemctl stop nix-daemon.service
";

const TEST: &str = r#"
start_all()
for machine in machines:
    machine.wait_for_unit("nginx.service")
with subtest("they see each other"):
    a.succeed("curl -fsS http://192.168.1.2/ > /tmp/page")
a.copy_from_machine("/tmp/page", "pages")
"#;

fn run(rig: &Rig) -> Result<()> {
    rig.create("b", &[])?;
    let store = rig.builders().join("b/store");
    let programs = store.join("machinist");
    fs::create_dir(&programs)?;
    fs::copy(machinist_tests::machinist(), programs.join("machinist"))?;
    symlink("machinist", programs.join("nixos-test-driver"))?;
    let shown = [
        Shown::at(store.join("host"), rig.host().root())?,
        Shown::at(store.join("guest"), rig.host().guest().directory())?,
    ];
    rig.builder(&["start", "b"]).run()?.exits(0)?;
    rig.builder(&["shell", "b", "--", "sh", "-ec", SANDBOX])
        .run()?
        .exits(0)?;

    let scripts = rig.file("scripts");
    fs::create_dir(&scripts)?;
    for (name, number) in [("a", 1), ("c", 2)] {
        ContainerScript::new(name, ROOT.as_ref())
            .on(number, &[1])
            .write(&scripts)?;
    }
    let test = serde_json::json!({
        "name": "on-a-builder", "containers": ["a", "c"], "vlans": [1], "timeout": 200,
        "before": format!("umask 022; mkdir {ROOT}; tar -x --numeric-owner --no-same-permissions -C {ROOT} -f /guest/root.tar"),
        "features": ["nixos-test", "uid-range"], "arguments": "--junit-xml $out/junit.xml",
        "testScript": TEST,
    });
    fs::write(rig.file("test.json"), test.to_string())?;
    let script = r#"
machines b
cp -r /rig/scripts /rig/test.json .
cat > test.nix <<'END'
import /repository/tests/tests/nix/driver.nix
  ((builtins.fromJSON (builtins.readFile ./test.json)) // { scripts = ./scripts; })
END
result=$(build test.nix)
cat $result/pages/page
grep '<test' $result/junit.xml
"#;
    let ran = rig.client(script)?.exits(0)?;
    ran.says("Welcome to nginx")?
        .says("name=\"they see each other\"")?
        .complains("vm-test-run-on-a-builder> ")?;
    fs::remove_dir_all(scripts)?;
    rig.end("b")?;
    drop(shown);
    Ok(())
}

/// A directory of the host at another place.
struct Shown(PathBuf);

impl Shown {
    fn at(place: PathBuf, source: &Path) -> Result<Self> {
        fs::create_dir(&place)?;
        mount_bind(source, &place).with_context(|| format!("cannot bind {}", source.display()))?;
        let shown = Self(place);
        mount_remount(&shown.0, MountFlags::BIND | MountFlags::RDONLY, c"")
            .context("cannot make it read-only")?;
        Ok(shown)
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        // Nothing is left that could be told.
        _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}
