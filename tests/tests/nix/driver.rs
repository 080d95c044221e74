//! NixOS tests: derivations whose builder runs our driver.

use std::fs;

use anyhow::{Context, Result, ensure};
use machinist_tests::Ran;
use machinist_tests::nix::NixHost;
use machinist_tests::start_script::ContainerScript;

use crate::Case;

pub const CASES: &[Case] = &[
    Case {
        name: "driver::outputs_of_two_containers",
        run: outputs,
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
    vlans: &'a [u32],
    timeout: u32,
    before: &'a str,
    arguments: &'a str,
    script: &'a str,
}

impl Test<'_> {
    const SOME: Self = Self {
        name: "test",
        containers: &[],
        vlans: &[],
        timeout: 200,
        before: UNPACK,
        arguments: "",
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
        let names: Vec<_> = self.containers.iter().map(|it| it.name.as_str()).collect();
        let arguments = serde_json::json!({
            "name": self.name, "containers": names, "vlans": self.vlans, "timeout": self.timeout,
            "before": self.before, "arguments": self.arguments, "testScript": self.script,
        });
        fs::write(host.rig().join("test.json"), arguments.to_string())
            .context("cannot write the arguments")?;
        host.run(&format!(
            "nix-build --out-link /tmp/result --expr 'import /repository/tests/tests/nix/driver.nix \
             ((builtins.fromJSON (builtins.readFile /rig/test.json)) // {{ scripts = /rig/scripts; }})'\n{after}"
        ))
    }
}

fn outputs(host: &NixHost) -> Result<()> {
    let containers = [
        ContainerScript::new("client", ROOT.as_ref()).on(1, &[1]),
        ContainerScript::new("web", ROOT.as_ref()).on(2, &[1]),
    ];
    let ran = Test {
        containers: &containers,
        vlans: &[1],
        before: &format!("{NO_TERMINALS} {UNPACK}"),
        arguments: "--junit-xml $out/junit.xml",
        script: r#"
start_all()
with subtest("over the network"):
    web.wait_for_unit("nginx.service")
    web.wait_for_open_port(80)
    page = client.succeed("curl -fsS http://192.168.1.2/")
    t.assertIn("Welcome to nginx", page)
with subtest("a file comes out"):
    client.succeed("curl -fsS http://192.168.1.2/ > /tmp/page")
    client.copy_from_machine("/tmp/page", "pages")
"#,
        ..Test::SOME
    }
    .build(host, "cat /tmp/result/pages/page /tmp/result/junit.xml\n")?
    .exits(0)?;
    ran.says("Welcome to nginx")?
        .says("name=\"over the network\"")?
        .says("name=\"a file comes out\"")?;
    Ok(())
}

fn failing(host: &NixHost) -> Result<()> {
    let containers = [ContainerScript::new("m", ROOT.as_ref())];
    let ran = Test {
        name: "failing",
        containers: &containers,
        script: "m.start()\nm.succeed('echo what it said: $((40 + 2)); false')\n",
        ..Test::SOME
    }
    // The log is kept, though the output is not.
    .build(host, "")?
    .exits(FAILED)?;
    ensure!(ran.stdout.is_empty(), "{ran}");
    ran.complains("builder failed with exit code 1")?
        .complains("what it said: 42")?
        .complains("m.succeed('echo what it said")?;
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
    ran.complains("timeout reached")?;
    Ok(())
}
