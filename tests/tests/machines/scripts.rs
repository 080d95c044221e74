//! Tests that are Python scripts: passing, failing, not ending.

use anyhow::{Result, ensure};
use machinist_tests::{Bench, Need};

use crate::Case;
use crate::labs::scripted;

pub const CASES: &[Case] = &[
    Case {
        name: "scripts::the_methods_of_a_machine",
        needs: &[Need::Container, Need::Python],
        run: methods,
    },
    Case {
        name: "scripts::one_that_raises_shows_its_own_line",
        needs: &[Need::Container, Need::Python],
        run: raises,
    },
    Case {
        name: "scripts::one_that_does_not_end_is_timed_out",
        needs: &[Need::Container, Need::Python],
        run: times_out,
    },
    Case {
        name: "scripts::commands_side_by_side_keep_their_output",
        needs: &[Need::Container, Need::Python],
        run: side_by_side,
    },
];

fn methods(bench: &Bench) -> Result<()> {
    bench.write("lab.toml", &scripted("container"))?;
    bench.write("sent", "from the host")?;
    bench.write(
        "t.py",
        r#"
start_all()
m.wait_for_unit("nginx.service")
m.wait_for_open_port(80)
assert "Welcome" in m.succeed("curl -fsS http://localhost/")
assert m.execute("exit 5")[0] == 5
m.fail("false")
r = m.run(["sh", "-c", "echo out; echo err >&2; exit 3"])
assert (r.status, r.stdout, r.stderr) == (3, "out\n", "err\n"), r
m.succeed("(sleep 0.3; touch /tmp/flag) >/dev/null 2>&1 &")
m.wait_for_file("/tmp/flag")
with subtest("units"):
    assert m.get_unit_property("nginx.service", "ActiveState") == "active"
    m.succeed("systemctl stop nginx")
    m.wait_for_closed_port(80)
    assert m.systemctl("is-active nginx")[0] == 3
m.copy_from_host("sent", "/tmp/sent")
assert m.succeed("cat /tmp/sent") == "from the host"
m.wait_until_succeeds("test -e /tmp/sent")
with m.spawn("read line; echo got $line") as p:
    p.send("hello\n")
    p.expect("got hello", timeout=200)
m.shutdown()
m.start()
m.succeed("test ! -e /tmp/flag")
t.assertEqual(m.succeed("hostname").strip(), "m")
"#,
    )?;
    let ran = bench
        .machinist(&["test", "--junit", "junit.xml", "--logs", "logs"])
        .run()?
        .exits(0)?;
    ensure!(ran.stderr.contains("1 test run: 1 passed"), "{ran}");
    let junit = bench.read("junit.xml")?;
    ensure!(
        junit.contains("tests=\"1\"") && junit.contains("failures=\"0\""),
        "{junit}"
    );
    ensure!(junit.contains("subtest.units"), "{junit}");
    ensure!(
        bench.path().join("logs/t/events.jsonl").is_file(),
        "no event log is kept"
    );
    Ok(())
}

fn raises(bench: &Bench) -> Result<()> {
    bench.write("lab.toml", &scripted("container"))?;
    bench.write(
        "t.py",
        "def look():\n    m.succeed('echo seen; echo why >&2; exit 9')\n\nlook()\n",
    )?;
    let ran = bench
        .machinist(&["test", "--junit", "junit.xml"])
        .run()?
        .exits(100)?;
    for part in ["t.py", "m.succeed(", "look()", "seen", "why", "9"] {
        ensure!(ran.stderr.contains(part), "{part:?}: {ran}");
    }
    for foreign in ["_machine.py", "_connection.py", "Traceback"] {
        ensure!(!ran.stderr.contains(foreign), "{foreign:?}: {ran}");
    }
    ensure!(bench.read("junit.xml")?.contains("failures=\"1\""));
    // An exception that is the script's own is a failed test, too.
    bench.write("t.py", "raise ValueError('not so')\n")?;
    let ran = bench.machinist(&["test"]).run()?.exits(100)?;
    ran.complains("not so")?;
    Ok(())
}

fn times_out(bench: &Bench) -> Result<()> {
    let lab = scripted("container") + "timeout = \"2s\"\n";
    bench.write("lab.toml", &lab)?;
    bench.write("t.py", "m.succeed('sleep 1000')\n")?;
    let ran = bench.machinist(&["test"]).run()?.exits(100)?;
    ensure!(ran.took.as_secs() < 40, "{ran}");
    ensure!(
        ran.stderr.contains("TIMEOUT") || ran.stderr.contains("timed out"),
        "{ran}"
    );
    // One that does not even speak to the session ends, too.
    bench.write("t.py", "import time\nwhile True: time.sleep(1)\n")?;
    bench.machinist(&["test"]).run()?.exits(100)?;
    // The time limit of a whole run has a code of its own.
    bench.write("lab.toml", &scripted("container"))?;
    bench
        .machinist(&["test", "--global-timeout", "2s"])
        .run()?
        .exits(124)?;
    Ok(())
}

fn side_by_side(bench: &Bench) -> Result<()> {
    bench.write("lab.toml", &scripted("container"))?;
    bench.write(
        "t.py",
        r#"
import threading
lines = 20000
results = {}
def one(n):
    results[n] = m.run(["sh", "-c", f"i=0; while [ $i -lt {lines} ]; do echo {n} $i; i=$((i+1)); done; echo done {n} >&2"])
threads = [threading.Thread(target=one, args=(n,)) for n in range(6)]
for thread in threads: thread.start()
# A loud command blocks no other.
assert m.succeed("echo quick") == "quick\n"
for thread in threads: thread.join()
for n in range(6):
    assert results[n].stdout == "".join(f"{n} {i}\n" for i in range(lines)), n
    assert results[n].stderr == f"done {n}\n", results[n].stderr
"#,
    )?;
    bench.machinist(&["test"]).run()?.exits(0)?;
    Ok(())
}
