//! The life of a builder, without a build.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::Case;
use crate::rig::{Rig, is_there};

pub const CASES: &[Case] = &[
    Case {
        name: "life::bad_wishes_are_named_before_anything_is_made",
        run: bad,
    },
    Case {
        name: "life::from_create_to_destroy",
        run: life,
    },
    Case {
        name: "life::who_cannot_start_says_so",
        run: broken,
    },
];

fn bad(rig: &Rig) -> Result<()> {
    let words = [
        "create",
        "a_b",
        "--cores",
        "9999",
        "--disk",
        "1M",
        "--max-jobs",
        "0",
    ];
    rig.builder(&words)
        .run()?
        .exits(2)?
        .complains("host names have no '_'")?
        .complains("--cores cannot be 9999")?
        .complains("--disk cannot be 1M")?
        .complains("--max-jobs cannot be 0")?;
    ensure!(!is_there(&rig.builders()));
    let words = ["create", "b", "--idle-timeout", "soon"];
    rig.builder(&words)
        .run()?
        .exits(2)?
        .complains("no idle timeout")?;
    rig.builder(&["start", "b"])
        .run()?
        .exits(4)?
        .complains("there is no builder \"b\"")?;
    Ok(())
}

fn life(rig: &Rig) -> Result<()> {
    rig.create("b", &["--idle-timeout", "2s"])?;
    rig.builder(&["create", "b"])
        .run()?
        .exits(2)?
        .complains("already")?;
    let status = rig.status("b")?;
    ensure!(
        status["machine"] == "off" && status["service"].is_null(),
        "{status}"
    );
    ensure!(
        status["kind"] == "container" && status["max_jobs"] == status["cores"],
        "{status}"
    );

    // By hand: the service is started, and lives on.
    rig.builder(&["start", "b"])
        .run()?
        .exits(0)?
        .complains("b: up")?;
    rig.builder(&["start", "b"])
        .run()?
        .exits(0)?
        .complains("it runs already")?;
    let status = rig.status("b")?;
    ensure!(
        status["machine"] == "up" && status["sessions"] == 0,
        "{status}"
    );
    ensure!(
        status["stops_in"].as_f64().is_some_and(|left| left <= 2.0),
        "{status}"
    );
    ensure!(
        status["features"].to_string().contains("uid-range"),
        "{status}"
    );
    rig.builder(&["serve", "b"])
        .run()?
        .exits(75)?
        .complains("has a service already")?;
    rig.builder(&["destroy", "b", "--yes"])
        .run()?
        .exits(2)?
        .complains("`machinist builder stop b` first")?;

    idle(rig)?;
    rig.builder(&["destroy", "b"])
        .run()?
        .exits(2)?
        .complains("--yes")?;
    rig.builder(&["destroy", "b", "--yes"]).run()?.exits(0)?;
    ensure!(!is_there(&rig.builders().join("b")));
    Ok(())
}

/// It stops when nobody is in it, and starts again with all that it had.
fn idle(rig: &Rig) -> Result<()> {
    // Who is in it keeps it from stopping.
    let words = [
        "shell",
        "b",
        "--",
        "sh",
        "-c",
        "sleep 3; nix --version; touch /nix/kept",
    ];
    rig.builder(&words).run()?.exits(0)?.says("2.34")?;
    rig.until("b", "off", Duration::from_secs(120))?;
    // Idle: a second start takes a second, and finds the store as it was.
    let began = Instant::now();
    rig.builder(&["shell", "b", "--", "test", "-e", "/nix/kept"])
        .run()?
        .exits(0)?;
    ensure!(
        began.elapsed() < Duration::from_secs(30),
        "{:?}",
        began.elapsed()
    );
    rig.builder(&["stop", "b"])
        .run()?
        .exits(0)?
        .complains("b: off")?;
    rig.end("b")?;
    rig.builder(&["logs", "b"])
        .run()?
        .exits(0)?
        .says("stopping: nobody has used it")?;
    rig.builder(&["logs", "b", "--console"])
        .run()?
        .exits(0)?
        .says("nix-daemon.socket")?;
    Ok(())
}

/// The user of the daemon hears why.
fn broken(rig: &Rig) -> Result<()> {
    rig.create("b", &[])?;
    std::fs::remove_dir(rig.builders().join("b/store"))?;
    let mut service = rig.serve("b")?;
    let script = "
machines b nobody
derive a 'echo > $out' ''
build a.nix 2>&1 && exit 1
true
";
    rig.client(script)?
        .exits(0)?
        .says("starting builder b")?
        .says("builder b did not boot: ")?
        .says("see `machinist builder logs b`")?
        .says("there is no builder \"nobody\"")?;
    let status = rig.status("b")?;
    ensure!(
        status["failure"].is_string() && status["machine"] == "off",
        "{status}"
    );
    rig.end("b")?;
    ensure!(service.has_ended() || service.wait()?.code() == Some(0));
    Ok(())
}
