//! NixOS tests: derivations whose builder runs our driver.

use std::fs;

use anyhow::{Context, Result};
use machinist_tests::Ran;
use machinist_tests::nix::NixHost;
use machinist_tests::start_script::{ContainerScript, VmScript};

use crate::Case;

pub const CASES: &[Case] = &[
    Case {
        name: "driver::containers_and_a_vm_on_two_vlans",
        run: two_vlans,
    },
    Case {
        name: "driver::vms_need_no_user_ids",
        run: vms_alone,
    },
    Case {
        name: "driver::units_have_sandboxes_of_their_own",
        run: units,
    },
    Case {
        name: "driver::a_failing_test_keeps_its_log",
        run: failing,
    },
    Case {
        name: "driver::the_global_timeout_ends_the_build",
        run: times_out,
    },
];

/// How Nix ends when a build has failed.
pub const FAILED: i32 = 100;

/// Where derivations unpack the guests' root.
const ROOT: &str = "/build/root";

/// What derivations with machines do first.
const UNPACK: &str = "mkdir /build/root; tar -x --numeric-owner --no-same-permissions -C /build/root -f /guest/root.tar";

/// Some hosts of Nix have no terminals for builders.
const NO_TERMINALS: &str = "umount /dev/pts; [ ! -e /dev/pts/ptmx ]; [ ! -e /dev/net ];";

/// One derivation.
struct Test<'a> {
    name: &'a str,
    containers: &'a [ContainerScript],
    vms: &'a [VmScript],
    vlans: &'a [u32],
    timeout: u32,
    before: &'a str,
    arguments: &'a str,
    features: &'a [&'a str],
    script: &'a str,
}

impl Test<'_> {
    const SOME: Self = Self {
        name: "test",
        containers: &[],
        vms: &[],
        vlans: &[],
        timeout: 200,
        before: UNPACK,
        arguments: "",
        features: &["uid-range"],
        script: "",
    };

    /// Builds it, and then runs `after` with the output as `/tmp/result`.
    fn build(&self, host: &NixHost, after: &str) -> Result<Ran> {
        let scripts = host.rig().join("scripts");
        if scripts.exists() {
            fs::remove_dir_all(&scripts).context("cannot remove start scripts")?;
        }
        fs::create_dir(&scripts).context("cannot make a directory")?;
        for container in self.containers {
            container
                .write(&scripts)
                .context("cannot write a start script")?;
        }
        for vm in self.vms {
            // Beside what it boots, so that all paths in it are of one directory.
            let script = vm.write(host.guest().directory())?;
            host.guest().fit(&script)?;
            let name = script.file_name().context("a script without a name")?;
            fs::rename(&script, scripts.join(name)).context("cannot move a start script")?;
        }
        let containers: Vec<_> = self.containers.iter().map(|it| &it.name).collect();
        let vms: Vec<_> = self.vms.iter().map(|it| &it.name).collect();
        let arguments = serde_json::json!({
            "name": self.name, "containers": containers, "vms": vms, "vlans": self.vlans, "timeout": self.timeout,
            "before": self.before, "arguments": self.arguments, "features": self.features, "testScript": self.script,
        });
        fs::write(host.rig().join("test.json"), arguments.to_string())
            .context("cannot write the arguments")?;
        host.run(&format!("{BUILD}{after}"))
    }
}

/// Builds the derivation as `/tmp/result`. Of one that fails, shows the log that was kept.
const BUILD: &str = r#"
test='import /repository/tests/tests/nix/driver.nix
  ((builtins.fromJSON (builtins.readFile /rig/test.json)) // { scripts = /rig/scripts; })'
nix-build --out-link /tmp/result --expr "$test" || {
  status=$?
  nix-store --read-log "$(nix-instantiate --quiet --expr "$test")"
  exit $status
}
"#;

/// Outputs of all sorts, too: one boot of a VM is enough.
fn two_vlans(host: &NixHost) -> Result<()> {
    let system = host.guest().system()?;
    let containers = [
        ContainerScript::new("a", ROOT.as_ref()).on(1, &[1]),
        ContainerScript::new("b", ROOT.as_ref()).on(2, &[2]),
    ];
    let vms = [VmScript::new("v", &system).on(3, &[1, 2])];
    let script = r#"
start_all()
for machine in machines:
    machine.wait_for_unit("nginx.service")
with subtest("the VM and the containers see each other"):
    a.succeed("curl -fsS http://192.168.1.3/ > /tmp/page")
    b.succeed("curl -fsS -g 'http://[2001:db8:2::3]/'")
    v.succeed("curl -fsS http://192.168.1.1/", "curl -fsS http://192.168.2.2/")
with subtest("VLANs are apart"):
    a.succeed("ip addr add 192.168.2.77/24 dev eth1")
    a.fail("ping -c 1 -W 1 192.168.2.2")
    a.fail("ping -c 1 -W 1 192.168.2.3")
with subtest("files and pictures come out"):
    a.copy_from_machine("/tmp/page", "pages")
    v.copy_from_machine("/etc/os-release")
    v.screenshot("screen")
"#;
    let ran = Test {
        containers: &containers,
        vms: &vms,
        vlans: &[1, 2],
        before: &format!("{NO_TERMINALS} {UNPACK}"),
        arguments: "--junit-xml $out/junit.xml",
        script,
        ..Test::SOME
    }
    .build(host, OUTPUTS)?
    .exits(0)?;
    ran.says("Welcome to nginx")?
        .says("ID=debian")?
        .says("PNG image")?
        .says("name=\"the VM and the containers see each other\"")?
        .says("name=\"files and pictures come out\"")?;
    Ok(())
}

/// As nearly all tests of NixOS are built: by an ordinary user of the sandbox.
fn vms_alone(host: &NixHost) -> Result<()> {
    let system = host.guest().system()?;
    let vms = [VmScript::new("v", &system).on(1, &[1])];
    let script = r#"
import os
t.assertNotEqual(os.getuid(), 0)
start_all()
v.wait_for_unit("nginx.service")
v.copy_from_host(os.environ["NIX_BUILD_TOP"] + "/sent", "/tmp/sent")
v.succeed("grep 'from the build' /tmp/sent", "ip addr show eth1 | grep 192.168.1.1")
v.copy_from_machine("/etc/os-release")
"#;
    let ran = Test {
        name: "vm",
        vms: &vms,
        vlans: &[1],
        before: "echo 'from the build' > $NIX_BUILD_TOP/sent",
        features: &[],
        script,
        ..Test::SOME
    }
    .build(host, "cat /tmp/result/os-release\n")?
    .exits(0)?;
    ran.says("ID=debian")?;
    Ok(())
}

/// Shows what a derivation has put out.
const OUTPUTS: &str = r#"
cd /tmp/result
cat pages/page os-release
grep '<test' junit.xml
head -c 8 screen.png | grep -q PNG && echo PNG image
"#;

/// In a start script's container.
fn units(host: &NixHost) -> Result<()> {
    let mut container = ContainerScript::new("m", ROOT.as_ref());
    container.files = vec![(
        "/etc/systemd/system/nginx.service.d/strict.conf".to_owned(),
        STRICT.to_owned(),
    )];
    Test {
        name: "units",
        containers: &[container],
        script: include_str!("../../../nix/tests/units.py"),
        ..Test::SOME
    }
    .build(host, "")?
    .exits(0)?;
    Ok(())
}

/// What careful services of Debian's say, and NixOS's.
const STRICT: &str = include_str!("../../../nix/tests/strict.conf");

fn failing(host: &NixHost) -> Result<()> {
    let containers = [ContainerScript::new("m", ROOT.as_ref())];
    let ran = Test {
        name: "failing",
        containers: &containers,
        script: "m.start()\nm.succeed('echo what it said: $((40 + 2)); false')\n",
        ..Test::SOME
    }
    .build(host, "")?
    .exits(FAILED)?;
    ran.complains("builder failed with exit code 1")?
        .complains("what it said: 42")?
        .complains("m.succeed('echo what it said")?
        // The log is kept, though the output is not.
        .says("what it said: 42")?;
    Ok(())
}

fn times_out(host: &NixHost) -> Result<()> {
    let containers = [ContainerScript::new("m", ROOT.as_ref())];
    let ran = Test {
        name: "hanging",
        containers: &containers,
        timeout: 5,
        script: "m.start()\nm.succeed('sleep 100')\n",
        ..Test::SOME
    }
    .build(host, "")?
    .exits(FAILED)?;
    ran.says("timeout reached")?;
    Ok(())
}
