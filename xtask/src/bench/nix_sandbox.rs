//! A NixOS test in the sandbox of a Nix build, and outside of it.

use std::fs;

use anyhow::{Context, Result, ensure};
use machinist_tests::nix::NixHost;
use machinist_tests::start_script::ContainerScript;

use super::program::Program;
use super::{Bench, Limit, Question, Sample, Unit};

const SCRIPT: &str = include_str!("scripts/nix_sandbox.py");

/// What is done on both sides; only the driver is timed. The root is unpacked because what is bound
/// into a sandbox is owned by nobody there.
const MEASURE: &str = "\
set -e
mkdir -p /build/root /build/out
cd /build
export TMPDIR=/build
tar -x --numeric-owner --no-same-permissions -C /build/root -f /guest/root.tar
begin=$(date +%s%N)
nixos-test-driver --container-names client server \\
  --container-start-scripts /guest/run-client-nspawn /guest/run-server-nspawn \\
  --vlans 1 -o /build/out /guest/test.py
echo $(($(date +%s%N) - begin)) > $out
";

/// Two containers of NixOS' manner.
pub struct NixSandbox {
    program: Program,
    host: Option<NixHost>,
}

impl NixSandbox {
    pub const fn new(program: Program) -> Self {
        Self {
            program,
            host: None,
        }
    }
}

impl Bench for NixSandbox {
    fn questions(&self) -> Vec<Question> {
        vec![Question {
            name: "NixOS test in the sandbox of a Nix build",
            peer: Some("outside of it"),
            unit: Unit::Seconds,
            limits: vec![Limit::AtMost(1.2)],
            how: "two containers on a VLAN, waits, 400 commands and 10 MB, the whole call of `nixos-test-driver`, in a build of a real \
                  Nix with `sandbox = true`; outside is the system that runs this Nix, a Debian in a container, so that \
                  both sides have the same programs.",
        }]
    }

    fn prepare(&mut self) -> Result<()> {
        let host = NixHost::new()?.with_program(self.program.path())?;
        let guests = host.guest().directory();
        for (number, name) in (1_u8..).zip(["client", "server"]) {
            let mut script = ContainerScript::new(name, "/build/root".as_ref()).on(number, &[1]);
            script.hosts = vec![
                "192.168.1.1 client".to_owned(),
                "192.168.1.2 server".to_owned(),
            ];
            script
                .write(guests)
                .context("cannot write a start script")?;
        }
        fs::write(guests.join("test.py"), SCRIPT).context("cannot write the test script")?;
        host.derive("measure", MEASURE)?;
        self.host = Some(host);
        Ok(())
    }

    fn measure(&mut self) -> Result<Vec<Sample>> {
        let host = self.host.as_ref().context("nothing is prepared")?;
        let inside = "nix-build --out-link /tmp/result measure.nix > /dev/null\ncat /tmp/result\n";
        let outside = "export PATH=/machinist:$PATH out=/tmp/result\nbash measure > /dev/null\ncat /tmp/result\n";
        Ok(vec![Sample::pair(
            seconds(host, inside)?,
            seconds(host, outside)?,
        )])
    }
}

fn seconds(host: &NixHost, script: &str) -> Result<f64> {
    let ran = host.run(script)?;
    ensure!(ran.code() == Some(0), "{ran}");
    let nanoseconds: f64 = ran
        .stdout
        .trim()
        .parse()
        .context("no number of nanoseconds")?;
    Ok(nanoseconds / 1e9)
}
