//! A lab by hand: up, ps, attach, cp, logs, down; and a test that stands still.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use machinist_tests::{Bench, Need, wait_until};

use crate::Case;
use crate::labs::{IMAGE, scripted};

pub const CASES: &[Case] = &[
    Case {
        name: "by_hand::up_ps_attach_cp_logs_down",
        needs: &[Need::Container],
        run: by_hand,
    },
    Case {
        name: "by_hand::a_failed_test_stands_still",
        needs: &[Need::Container, Need::Python],
        run: paused,
    },
];

fn by_hand(bench: &Bench) -> Result<()> {
    bench.write(
        "lab.toml",
        &format!("{IMAGE}\n[machine.a]\nimage = \"small\"\n[machine.b]\nimage = \"small\"\n"),
    )?;
    let up = bench.machinist(&["up"]).run()?.exits(0)?;
    let session = up.stdout.trim().to_owned();
    ensure!(!session.is_empty(), "{up}");
    let used = use_it(bench, &session);
    let down = bench.machinist(&["down"]).run();
    used?;
    down?.exits(0)?;
    bench
        .machinist(&["ps", "--format", "json"])
        .run()?
        .exits(0)?
        .says("[]")?;
    Ok(())
}

fn use_it(bench: &Bench, session: &str) -> Result<()> {
    let ps = bench
        .machinist(&["ps", "--format", "json"])
        .run()?
        .exits(0)?
        .json()?;
    ensure!(
        ps[0]["session"] == session && ps[0]["machines"][1]["name"] == "b",
        "{ps}"
    );
    ensure!(ps[0]["machines"][0]["state"] == "ready", "{ps}");
    // Names are known everywhere, and the status of a command comes through.
    bench
        .machinist(&["attach", session, "a", "--", "curl", "-fsS", "http://b/"])
        .run()?
        .exits(0)?
        .says("Welcome to nginx")?;
    bench
        .machinist(&["attach", session, "a", "--", "sh", "-c", "exit 9"])
        .run()?
        .exits(9)?;
    bench
        .machinist(&["attach", session])
        .run()?
        .exits(2)?
        .complains("a, b")?;
    bench.write("here", "to and fro\n")?;
    bench
        .machinist(&["cp", "here", "a:/tmp/"])
        .run()?
        .exits(0)?;
    bench
        .machinist(&["cp", "a:/tmp/here", "back"])
        .run()?
        .exits(0)?;
    ensure!(bench.read("back")? == "to and fro\n");
    bench
        .machinist(&["cp", "a:/tmp/nothing", "back"])
        .run()?
        .exits(2)?
        .complains("cannot read /tmp/nothing")?;
    for words in [&["logs", session, "b"][..], &["logs", "b"]] {
        let logs = bench.machinist(words).run()?.exits(0)?;
        let logs = logs.says("b: ready after")?;
        ensure!(!logs.stdout.contains("a: ready"), "{logs}");
    }
    Ok(())
}

fn paused(bench: &Bench) -> Result<()> {
    bench.write("lab.toml", &scripted("container"))?;
    bench.write("t.py", "m.succeed('echo clue > /tmp/clue; false')\n")?;
    let running = bench
        .machinist(&["test", "--on-failure", "pause"])
        .start()?;
    let stands = wait_until(Duration::from_secs(200), || {
        let ps = bench
            .machinist(&["ps", "--format", "json"])
            .run()
            .ok()?
            .json()
            .ok()?;
        (ps[0]["paused"] == true).then(|| ps[0]["session"].as_str().map(str::to_owned))?
    });
    let looked = stands.context("it never stood still").and_then(|session| {
        bench
            .machinist(&["attach", &session, "--", "cat", "/tmp/clue"])
            .run()?
            .exits(0)?
            .says("clue")?;
        bench
            .machinist(&["attach", &session, "--continue"])
            .run()?
            .exits(0)
    });
    if looked.is_err() {
        running.signal(rustix::process::Signal::INT);
    }
    let ran = running.wait()?;
    looked.with_context(|| ran.to_string())?;
    ran.exits(100)?.complains("machinist attach")?;
    Ok(())
}
