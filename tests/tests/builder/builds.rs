//! Builds on a builder that is a container.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::Case;
use crate::rig::Rig;

pub const CASES: &[Case] = &[
    Case {
        name: "builds::of_all_kinds",
        run: kinds,
    },
    Case {
        name: "builds::eight_at_once",
        run: eight,
    },
    Case {
        name: "builds::come_while_it_stops",
        run: stream,
    },
];

/// Inputs are copied in and outputs back, the log is streamed, and what fails says why.
fn kinds(rig: &Rig) -> Result<()> {
    rig.create("b", &[])?;
    rig.builder(&["start", "b"]).run()?.exits(0)?;
    let script = r#"
machines b
echo from the client > input
derive several 'echo in the log; echo "$(<$input)" > $out; echo two > $dev' \
    'input = ./input; outputs = [ "out" "dev" ];'
build several.nix '^*' > paths
sort $(cat paths)

derive range 'echo "map: $(</proc/self/uid_map)"; echo > $out' 'requiredSystemFeatures = [ "uid-range" ];'
build range.nix

derive structured ". \$NIX_ATTRS_SH_FILE; echo \"\$(<\$NIX_ATTRS_JSON_FILE)\" > ''\${outputs[out]}" \
    '__structuredAttrs = true; answer = [ 42 { deep = true; } ];'
grep -o '"answer":\[42,{"deep":true}\]' $(build structured.nix)

hash=$(echo fixed | sha256sum | cut -d' ' -f1)
derive fixed 'echo fixed > $out' "outputHashMode = \"flat\"; outputHashAlgo = \"sha256\"; outputHash = \"$hash\";"
cat $(build fixed.nix)

derive failing 'echo on fire; exit 3' ''
build failing.nix && exit 1

derive elsewhere 'echo > $out' 'requiredSystemFeatures = [ "moon" ];'
build elsewhere.nix && exit 1
echo done
"#;
    let ran = rig.client(script)?.exits(0)?;
    let ran = ran
        .says("from the client\ntwo")?
        .says("\"answer\":[42,{\"deep\":true}]")?
        .says("fixed")?
        .says("done")?
        .complains("several> in the log")?
        .complains("65536")?
        .complains("failing> on fire")?
        .complains("builder failed with exit code 3")?
        .complains("{moon}")?;
    let told = ran.stderr.matches("starting builder").count();
    ensure!(told == 0, "it ran already: {ran}");
    rig.end("b")
}

fn eight(rig: &Rig) -> Result<()> {
    rig.create("b", &["--idle-timeout", "never"])?;
    let mut service = rig.serve("b")?;
    // None of them ends before it is told to, which is when all have begun.
    let script = r#"
machines b
cat > eight.nix <<'END'
map (n: derivation {
  name = "one-of-${toString n}";
  system = "x86_64-linux";
  builder = "/bin/sh";
  args = [ "-c" "exec 9<> <(: one-of-eight); read -u 9; echo ${toString n} > $out" ];
}) [ 1 2 3 4 5 6 7 8 ]
END
SECONDS=0
build eight.nix > paths
echo "in $SECONDS s"
cat $(cat paths) | sort | tr '\n' ' '
"#;
    let client = rig.start_client(script)?;
    rig.until("b", "up", Duration::from_secs(200))?;
    let mut most = 0;
    let all = machinist_tests::wait_until(Duration::from_secs(200), || {
        most = most.max(rig.status("b").ok()?["sessions"].as_u64()?);
        (most == 8).then_some(())
    });
    let mut let_go = LetGo::default();
    let eight = machinist_tests::wait_until(Duration::from_secs(200), || {
        let_go.all("one-of-eight");
        (let_go.count() == 8).then_some(())
    });
    ensure!(eight.is_some(), "{} builds", let_go.count());
    let said = client.passes(Duration::from_secs(200))?;
    ensure!(all.is_some(), "at most {most} sessions: {said}");
    ensure!(said.contains("1 2 3 4 5 6 7 8"), "{said}");
    rig.end("b")?;
    ensure!(service.has_ended() || service.wait()?.code() == Some(0));
    Ok(())
}

/// Builds that read a line from their descriptor 9 before they go on, and were given it. The builder is
/// a container, so the host sees them; each is a shell with this command line.
#[derive(Default)]
pub struct LetGo(BTreeSet<u32>);

impl LetGo {
    /// Gives it to those whose command lines have `marker`.
    pub fn all(&mut self, marker: &str) {
        for process in machinist_tests::processes() {
            let said = &process.command;
            // What defines the builds is the client.
            let is_build = said.contains(marker) && !said.contains("derivation");
            if !is_build || self.0.contains(&process.pid) {
                continue;
            }
            // One that has not yet come to open it is there at the next look.
            let line = OpenOptions::new()
                .write(true)
                .open(format!("/proc/{}/fd/9", process.pid));
            if line.is_ok_and(|mut line| line.write_all(b"\n").is_ok()) {
                self.0.insert(process.pid);
            }
        }
    }

    /// How many have it.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

/// A builder that stops with each build, under builds that come one after another and at once.
fn stream(rig: &Rig) -> Result<()> {
    rig.create("b", &["--idle-timeout", "0s"])?;
    let mut service = rig.serve("b")?;
    let script = r#"
machines b
for n in 1 2 3 4 5 6; do
    derive a$n "echo $n > \$out" ''
done
build a1.nix
build a2.nix
build a3.nix & build a4.nix & build a5.nix & wait %2 %3 %4
build a6.nix
cat $(for n in 1 2 3 4 5 6; do build a$n.nix; done) | tr '\n' ' '
"#;
    let ran = rig.client(script)?.exits(0)?.says("1 2 3 4 5 6")?;
    rig.until("b", "off", Duration::from_secs(200))?;
    let log = rig.builder(&["logs", "b"]).run()?.exits(0)?.stdout;
    let starts = log.matches("up after").count();
    ensure!((2..=6).contains(&starts), "{starts} starts: {log}\n{ran}");
    rig.end("b")?;
    ensure!(service.has_ended() || service.wait()?.code() == Some(0));
    Ok(())
}
