//! Ctrl-C, once and twice.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use machinist_tests::{Bench, Need, Running, wait_until};
use rustix::process::Signal;

use crate::Case;
use crate::labs::scripted;

pub const CASES: &[Case] = &[
    Case {
        name: "interrupted::once",
        needs: &[Need::Container, Need::Python],
        run: once,
    },
    Case {
        name: "interrupted::twice",
        needs: &[Need::Container, Need::Python],
        run: twice,
    },
];

/// A test that has begun and does not end.
fn endless(bench: &Bench) -> Result<Running> {
    bench.write("lab.toml", &scripted("container"))?;
    let begun = bench.path().join("begun");
    bench.write(
        "t.py",
        &format!(
            "m.succeed('true')\nopen('{}', 'w').close()\nm.succeed('sleep 1000')\n",
            begun.display()
        ),
    )?;
    let running = bench.machinist(&["test"]).start()?;
    let has_begun = wait_until(Duration::from_secs(300), || begun.exists().then_some(()));
    if has_begun.is_none() {
        running.signal(Signal::KILL);
        let ran = running.wait()?;
        anyhow::bail!("it never began: {ran}");
    }
    Ok(running)
}

fn once(bench: &Bench) -> Result<()> {
    let running = endless(bench)?;
    running.signal(Signal::INT);
    let ran = running.wait()?.exits(130)?;
    ensure!(ran.stderr.contains("interrupted"), "{ran}");
    Ok(())
}

fn twice(bench: &Bench) -> Result<()> {
    let running = endless(bench)?;
    running.signal(Signal::INT);
    // The second must be a second one: two signals that wait at once are one.
    std::thread::sleep(Duration::from_millis(30));
    running.signal(Signal::INT);
    let ran = running.wait().context("after two")?.exits(130)?;
    ensure!(ran.took < Duration::from_secs(400), "{ran}");
    Ok(())
}
