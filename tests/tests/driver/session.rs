//! The session of a driver: where things are, how long they live, who can attach.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use machinist_tests::{Bench, Need, wait_until};
use rustix::process::Signal;

use crate::Case;
use crate::stage::Stage;

pub const CASES: &[Case] = &[
    Case {
        name: "containers_talk_and_can_be_cut_off",
        needs: &[Need::Container, Need::Python],
        run: containers_talk,
    },
    Case {
        name: "ports_lead_into_machines_without_a_network",
        needs: &[Need::Container, Need::Python],
        run: forwarded,
    },
    Case {
        name: "a_paused_driver_is_attached_to",
        needs: &[Need::Container, Need::Python],
        run: attached,
    },
    Case {
        name: "time_that_is_over_ends_everything",
        needs: &[Need::Container, Need::Python],
        run: timed_out,
    },
    Case {
        name: "a_killed_driver_leaves_nothing_that_runs",
        needs: &[Need::Container, Need::Python],
        run: killed,
    },
    Case {
        name: "states_are_kept_if_that_is_wanted",
        needs: &[Need::Container, Need::Python],
        run: kept,
    },
    Case {
        name: "a_vm_and_a_container_talk_and_are_cut_off",
        needs: &[Need::Container, Need::Vm, Need::Python],
        run: vm_and_container,
    },
    Case {
        name: "vms_restart_and_are_made_by_the_script",
        needs: &[Need::Vm, Need::Python],
        run: made_by_the_script,
    },
    Case {
        name: "a_vm_that_takes_no_agent_serves_all_the_same",
        needs: &[Need::Vm, Need::Python],
        run: without_an_agent,
    },
    Case {
        name: "containers_are_sent_off_before_they_are_up",
        needs: &[Need::Container, Need::Python],
        run: shut_early,
    },
    Case {
        name: "start_scripts_that_die_say_why",
        needs: &[Need::Container, Need::Vm, Need::Python],
        run: died,
    },
];

fn containers_talk(bench: &Bench) -> Result<()> {
    let stage = Stage::new(bench)
        .vlans(&[1, 2])
        .container("one", 1, &[1, 2])?
        .container("two", 2, &[1, 2])?;
    let script = r#"
start_all()
knock = "(timeout 3 bash -c 'exec 3<>/dev/tcp/192.168.1.2/9' 2>&1 || true) | grep refused"
one.succeed(knock)
one.block()
one.fail(knock)
one.unblock()
one.wait_until_succeeds(knock, timeout=200)
two.shutdown()
assert not two.is_up()
two.wait_for_shutdown()
one.succeed("echo kept > /var/kept")
one.copy_from_machine("/var/kept")
"#;
    stage.driver(&[], script)?.run()?.exits(0)?;
    ensure!(bench.read("out/kept")? == "kept\n");
    let kept = stage.state_of("one").join("var/kept");
    ensure!(kept.exists(), "the state is not there: {}", kept.display());
    Ok(())
}

fn forwarded(bench: &Bench) -> Result<()> {
    let stage = Stage::new(bench).container("one", 1, &[])?;
    let script = r#"
import shlex, socket, subprocess

for port in 22, 8000:
    one.succeed(f"systemd-run systemd-socket-activate -l {port} --inetd -a /bin/cat")
    one.wait_for_open_port(port)

# A port of this host.
where = {"machine": "one", "host_port": 0, "guest_port": 8000}
address = driver.connection.call("forward", where)["address"]
host, port = address.split(":")
for _ in range(2):
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"hello")
        connection.shutdown(socket.SHUT_WR)
        assert connection.makefile("rb").read() == b"hello"

# What SSH would call.
words = shlex.split(one.ssh_backdoor_command(1))
assert words[0] == "ssh", words
proxy = next(word for word in words if word.startswith("ProxyCommand="))
said = subprocess.run(proxy[len("ProxyCommand="):], shell=True, input=b"x" * 200_000, capture_output=True)
assert said.stdout == b"x" * 200_000, said
"#;
    stage.driver(&[], script)?.run()?.exits(0)?;
    Ok(())
}

fn attached(bench: &Bench) -> Result<()> {
    let stage = Stage::new(bench).container("one", 1, &[])?;
    let script = r#"
one.start()
def deep(wanted):
    assert one.succeed("cat /etc/hostname").strip() == wanted
deep("two")
"#;
    let driver = stage.driver(&["--debug-hook-attach", "/x/attach"], script)?;
    let mut running = driver.start()?;
    let paused = || {
        let sessions = bench.machinist(&["ps", "--format", "json"]).run().ok()?;
        let sessions = sessions.json().ok()?;
        let session = sessions.as_array()?.first()?.clone();
        (session["paused"] == true).then_some(session)
    };
    let session = wait_until(Duration::from_secs(200), paused);
    ensure!(!running.has_ended(), "it ended: {}", running.wait()?);
    let session = session.context("it does not stand still")?;
    let id = session["session"].as_str().context("it has no id")?;
    ensure!(session["machines"][0]["kind"] == "container", "{session}");
    let shell = ["attach", id, "one", "--", "sh", "-c", "hostname"];
    let ran = bench.machinist(&shell).run()?.exits(0)?;
    ensure!(ran.stdout == "one\n", "{ran}");
    let path = bench.runtime().join(id).display().to_string();
    let prompt = bench.machinist(&["attach", &path, "--python"]);
    let ran = prompt.run_with_input(b"print('wanted', wanted, one.succeed('echo here'))\n")?;
    ensure!(ran.stdout.contains("wanted two here"), "{ran}");
    bench
        .machinist(&["attach", id, "--continue"])
        .run()?
        .exits(0)?;
    let ran = running.wait()?.exits(1)?;
    ensure!(ran.stderr.contains("deep(\"two\")"), "{ran}");
    Ok(())
}

fn timed_out(bench: &Bench) -> Result<()> {
    let stage = Stage::new(bench).container("one", 1, &[])?;
    let script = r#"
one.start()
while True:
    try:
        one.succeed("sleep 1000")
    except Exception:
        pass
"#;
    let began = Instant::now();
    let ran = stage
        .driver(&["--global-timeout", "6"], script)?
        .run()?
        .exits(1)?;
    ensure!(began.elapsed() > Duration::from_secs(6), "{ran}");
    ensure!(began.elapsed() < Duration::from_secs(200), "{ran}");
    Ok(())
}

fn killed(bench: &Bench) -> Result<()> {
    let stage = Stage::new(bench).vlans(&[3]).container("one", 1, &[3])?;
    let script = r#"
import pathlib, time
one.succeed("true")
pathlib.Path("up").touch()
time.sleep(1000)
"#;
    let mut running = stage.driver(&[], script)?.start()?;
    let up = bench.path().join("up");
    let seen = wait_until(Duration::from_secs(200), || up.exists().then_some(()));
    ensure!(!running.has_ended(), "it ended: {}", running.wait()?);
    seen.context("the container does not come up")?;
    running.signal(Signal::KILL);
    running.wait()?;
    // Its state stays; but nothing in it is immutable any more, as its start script would leave it.
    let removed = || std::fs::remove_dir_all(stage.state()).ok();
    wait_until(Duration::from_secs(200), removed).context("its state cannot be removed")?;
    // The bench looks for what else is left.
    Ok(())
}

fn kept(bench: &Bench) -> Result<()> {
    let stage = Stage::new(bench).container("one", 1, &[])?;
    let first = "one.succeed('echo 1 > /var/word')\none.shutdown()\n";
    stage.driver(&[], first)?.run()?.exits(0)?;
    // A guest's link leads nowhere on the host.
    let precious = bench.write("precious", "")?;
    std::os::unix::fs::symlink(bench.path(), stage.state_of("one").join("var/out"))?;
    let second = "assert one.succeed('cat /var/word') == '1\\n'\n";
    stage.driver(&["-K"], second)?.run()?.exits(0)?;
    let third = "one.fail('cat /var/word')\n";
    stage.driver(&[], third)?.run()?.exits(0)?;
    ensure!(precious.exists(), "the state's removal followed a link");
    Ok(())
}

fn vm_and_container(bench: &Bench) -> Result<()> {
    let stage = Stage::new(bench)
        .vlans(&[1, 2, 300])
        .container("box", 1, &[1, 2])?
        .vm("vm", 2, &[1, 2])?;
    let script = r#"
def carriers(machine):
    return machine.succeed("cat /sys/class/net/eth[12]/carrier")

def knock(number):
    return f"(timeout 3 bash -c 'exec 3<>/dev/tcp/192.168.1.{number}/9' 2>&1 || true) | grep refused"

vm.start()
status = vm.send_monitor_command("info status")
assert "running" in status and status.endswith("(qemu) "), status
box.wait_until_succeeds(knock(2))
vm.succeed(knock(1))
t.assertEqual(carriers(vm), "1\n1\n")
vm.block()
t.assertEqual(carriers(vm), "0\n1\n")
box.fail(knock(2))
vm.unblock()
t.assertEqual(carriers(vm), "1\n1\n")
box.wait_until_succeeds(knock(2))
box.block()
t.assertEqual(carriers(box), "0\n1\n")
vm.fail(knock(1))
box.unblock()
vm.wait_until_succeeds(knock(1))
vlan1.block()
vm.fail(knock(1))
vlan1.unblock()
vm.wait_until_succeeds(knock(1))
assert vm.qmp_client.send("query-status")["return"]["running"]
vm.screenshot("screen")
vm.succeed("echo word > /tmp/word")
vm.copy_from_machine("/tmp/word", "deep")
pid = vm.pid
vm.shutdown()
assert not vm.is_up() and not os.path.exists(f"/proc/{pid}")
"#;
    stage.driver(&[], script)?.run()?.exits(0)?;
    ensure!(bench.read("out/deep/word")? == "word\n");
    let picture = std::fs::read(bench.path().join("out/screen.png"))?;
    ensure!(picture.starts_with(b"\x89PNG"), "that is no PNG");
    Ok(())
}

fn made_by_the_script(bench: &Bench) -> Result<()> {
    let stage = Stage::new(bench).vm("vm", 1, &[])?;
    let script = r#"
import pathlib

script = os.path.join(os.getcwd(), "run-vm-vm")

# The machine of the command line is never started.
other = create_machine(f"env FOO=1 {script}", name="other")
assert other.name == "other" and not other.is_up()
os.environ["NIX_DISK_IMAGE"] = "/a disk"
other.start(allow_reboot=True)
boot = other.succeed("cat /proc/sys/kernel/random/boot_id")
environment = pathlib.Path(f"/proc/{other.pid}/environ").read_bytes()
assert b"NIX_DISK_IMAGE=/a disk" in environment.split(b"\0"), environment
# It goes by itself, and the script waits for the next start.
assert other.execute("systemctl reboot >&2 &", check_return=False) == (-1, "")
other.connected = False
assert not other.connected
assert other.succeed("cat /proc/sys/kernel/random/boot_id") != boot
assert other.connected
reset = other.wait_for_qmp_event(lambda event: event["event"] == "RESET", timeout=200)
assert "timestamp" in reset
pathlib.Path(other.state_dir, "disk").write_text("installed")

# A QEMU that dies is the end of its machine, and of what waits for it.
import signal, threading, time
threading.Timer(0.2, os.kill, (other.pid, signal.SIGKILL)).start()
began = time.monotonic()
try:
    other.succeed("sleep 1000")
    assert False, "it went on"
except MachineError as error:
    assert "other" in str(error), error
assert time.monotonic() - began < 300
other.wait_for_shutdown()
assert not other.is_up()

# What one machine has installed, another boots.
vm.state_dir = other.state_dir
del os.environ["NIX_DISK_IMAGE"]
vm.start()
vm.succeed("true")
environment = pathlib.Path(f"/proc/{vm.pid}/environ").read_bytes()
assert f"TMPDIR={other.state_dir}".encode() in environment.split(b"\0"), environment
assert b"NIX_DISK_IMAGE" not in environment, environment
assert pathlib.Path(vm.state_dir, "disk").read_text() == "installed"
# Without leave to restart, that is its end.
vm.execute("systemctl reboot", check_return=False)
vm.wait_for_shutdown()
"#;
    stage.driver(&[], script)?.run()?.exits(0)?;
    Ok(())
}

/// Nothing can be written there that could be executed.
const NO_PLACE: &str = "for place in /run /dev/shm; do mount -o remount,noexec $place; done
for place in /tmp /var/tmp; do mount -t tmpfs -o noexec none $place; done
mount -o remount,ro /
cd /tmp";

fn without_an_agent(bench: &Bench) -> Result<()> {
    let stage = Stage::new(bench).vm_with("vm", 1, &[], |mut script| {
        script.shares = false;
        script.before_shell = NO_PLACE.to_owned();
        script
    })?;
    let script = r#"
vm.wait_for_unit("multi-user.target")
assert vm.execute("echo out; echo err >&2; exit 3") == (3, "out\n")
vm.succeed("echo word > /tmp/word")
vm.wait_for_file("/tmp/word")
vm.copy_from_machine("/tmp/word")
vm.fail("false | true")
assert vm.execute("sleep 100", timeout=1)[0] == 124
try:
    vm.wait_for_unit("no-such.service", timeout=200)
    assert False, "it came"
except RequestedAssertionFailed as error:
    assert "inactive and there are no pending jobs" in str(error), error
vm.succeed("systemd-run --unit=broken /bin/false || true")
try:
    vm.wait_for_unit("broken.service", timeout=200)
    assert False, "it came"
except RequestedAssertionFailed as error:
    assert 'reached state "failed"' in str(error), error
vm.succeed(
    "install -d -m 700 -o daemon /run/user/1",
    "systemd-run --uid=daemon --property=Delegate=yes --setenv=XDG_RUNTIME_DIR=/run/user/1 /lib/systemd/systemd --user",
)
vm.wait_for_unit("basic.target", user="daemon", timeout=200)
vm.shutdown()
"#;
    stage.driver(&[], script)?.run()?.exits(0)?;
    ensure!(bench.read("out/word")? == "word\n");
    Ok(())
}

/// Machines that are sent off before they have a system that could go off.
fn shut_early(bench: &Bench) -> Result<()> {
    let stage = Stage::new(bench).vlans(&[1]).container("early", 1, &[1])?;
    let script = r#"
import time
for pause in 0, 0.1, 0.3, 0.6, 1:
    early.start()
    time.sleep(pause)
    begun = time.monotonic()
    early.shutdown()
    took = time.monotonic() - begun
    assert took < 60, (pause, took)
    assert not early.is_up()
for _ in range(5):
    # As soon as it is launched: nothing starts it once more.
    early.start()
    early.crash()
    assert not early.is_up()
early.succeed("true")
"#;
    stage.driver(&[], script)?.run()?.exits(0)?;
    Ok(())
}

/// A start script that cannot do its work says why, and is believed.
fn died(bench: &Bench) -> Result<()> {
    for kind in ["container", "vm"] {
        let script = bench.write("run-lost", "#!/bin/sh\nno-such-program --foo\n")?;
        std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755))?;
        let stage = Stage::new(bench);
        let path = script.display().to_string();
        let (names, scripts) = (format!("--{kind}-names"), format!("--{kind}-start-scripts"));
        let words = [names.as_str(), "lost", scripts.as_str(), path.as_str()];
        let ran = stage.driver(&words, "lost.succeed('true')\n")?.run()?;
        ran.exits(1)?.complains("no-such-program: not found")?;
    }
    Ok(())
}
