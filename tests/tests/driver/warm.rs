//! VMs that are restored from snapshots, since somebody asked for that.

use anyhow::{Result, ensure};
use machinist_tests::start_script::VmScript;
use machinist_tests::{Bench, Need, Ran};

use crate::Case;
use crate::stage::Stage;

pub const CASES: &[Case] = &[Case {
    name: "vms_are_saved_once_and_then_restored",
    needs: &[Need::Container, Need::Vm, Need::Python],
    run: restored,
}];

/// What NixOS' tests do to machines, whether they booted or not.
const SCRIPT: &str = r#"
start_all()
# It was printed while the machine booted.
server.wait_for_console_text("connecting to host", timeout=300)
for machine in server, client:
    machine.wait_for_unit("multi-user.target")
server.wait_for_unit("nginx.service")
server.wait_for_open_port(80)
with subtest("it is on its VLAN"):
    client.succeed("curl -fsS --max-time 20 http://192.168.1.1/ | grep Welcome")
    server.succeed("curl -fsS --max-time 20 http://192.168.1.2/ | grep Welcome")
    server.block()
    client.fail("curl -fsS --max-time 1 http://192.168.1.1/")
    server.unblock()
    client.wait_until_succeeds("curl -fsS --max-time 1 http://192.168.1.1/", timeout=200)
with subtest("it has its shared directories"):
    server.succeed("echo from the guest > /tmp/shared/file")
    t.assertEqual((server.shared_dir / "file").read_text(), "from the guest\n")
    server.copy_from_machine("/tmp/shared/file", "copied")
with subtest("QEMU is asked, tells, and shows a picture"):
    server.qmp_client.send("stop")
    server.qmp_client.send("cont")
    server.wait_for_qmp_event(lambda event: event["event"] == "RESUME", timeout=200)
    server.screenshot("screen")
with subtest("its time is now"):
    import time
    before = time.time()
    now = float(server.succeed("date +%s.%N"))
    assert before - 1 < now < time.time() + 1, (before, now)
print("random:", server.succeed("head -c 16 /dev/urandom | base64").strip())
with subtest("it starts again with what it has"):
    server.crash()
    server.start()
    server.crash()
"#;

/// A directory of the host that cannot be left, since something is in it.
const BUSY: &str = "(cd /tmp/shared; exec sleep infinity) >/dev/null 2>&1 &";

fn restored(bench: &Bench) -> Result<()> {
    let stage = Stage::with(bench, &["curl", "nginx-light"])
        .vlans(&[1])
        .vm("server", 1, &[1])?
        .vm_with("busy", 3, &[], |script| VmScript {
            before_shell: BUSY.to_owned(),
            ..script
        })?
        .container("client", 2, &[1])?;
    let cache = bench.path().join("cache").display().to_string();
    let run = |arguments: &[&str], script: &str| {
        let state = stage.state();
        if state.exists() {
            std::fs::remove_dir_all(&state)?;
        }
        let driver = stage
            .driver(arguments, script)?
            .env("MACHINIST_CACHE", &cache);
        driver.run()?.exits(0)
    };
    let busy = format!("{SCRIPT}busy.wait_for_unit('multi-user.target')\n");
    let first = run(&["--warm"], &busy)?;
    let first = first
        .complains("server: snapshot saved")?
        .complains("server: restored from a snapshot")?
        .complains("server: not restored from a snapshot: its state directory has something")?
        .complains("busy: not restored from a snapshot: 9p is mounted on /tmp/shared and in use")?;
    let second = run(
        &["--warm"],
        &SCRIPT.replace("start_all()", "server.start(); client.start()"),
    )?;
    let second = second.complains("server: restored from a snapshot")?;
    ensure!(!second.stderr.contains("snapshot saved"), "{second}");
    ensure!(random(&first) != random(&second), "{second}");
    Ok(())
}

/// What a script printed of its machine's random numbers.
fn random(ran: &Ran) -> Option<String> {
    let both = [&ran.stdout, &ran.stderr];
    let mut lines = both.into_iter().flat_map(|text| text.lines());
    lines.find_map(|line| line.split_once("random: ").map(|it| it.1.to_owned()))
}
