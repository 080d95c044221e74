//! Machines that die: told at once, with their last words, as failed machinery.

use std::time::Duration;

use anyhow::{Result, ensure};
use machinist_tests::{Bench, Need, processes, wait_until};
use rustix::process::{Pid, Signal, kill_process};

use crate::Case;
use crate::labs::scripted;

pub const CASES: &[Case] = &[
    Case {
        name: "trouble::a_guest_that_panics",
        needs: &[Need::Vm, Need::Python],
        run: panics,
    },
    Case {
        name: "trouble::a_qemu_that_is_killed",
        needs: &[Need::Vm, Need::Python],
        run: qemu_killed,
    },
    Case {
        name: "trouble::a_container_whose_init_exits",
        needs: &[Need::Container, Need::Python],
        run: container_exits,
    },
];

fn panics(bench: &Bench) -> Result<()> {
    bench.write("lab.toml", &scripted("vm"))?;
    bench.write(
        "t.py",
        "m.succeed('true')\nm.execute('echo c > /proc/sysrq-trigger; sleep 1000')\n",
    )?;
    let ran = bench.machinist(&["test"]).run()?.exits(105)?;
    ensure!(ran.stderr.to_lowercase().contains("panic"), "{ran}");
    Ok(())
}

fn qemu_killed(bench: &Bench) -> Result<()> {
    bench.write("lab.toml", &scripted("vm"))?;
    let up = bench.path().join("up");
    bench.write(
        "t.py",
        &format!(
            "m.succeed('true')\nopen('{}', 'w').close()\nm.succeed('sleep 1000')\n",
            up.display()
        ),
    )?;
    let mut running = bench.machinist(&["test"]).start()?;
    let runtime = bench.runtime().display().to_string();
    let killed = wait_until(Duration::from_secs(300), || {
        if running.has_ended() {
            return Some(false);
        }
        up.exists().then_some(())?;
        let all = processes();
        let qemu = all
            .iter()
            .find(|it| it.command.contains("qemu-system") && it.command.contains(&runtime))?;
        let pid = Pid::from_raw(i32::try_from(qemu.pid).ok()?)?;
        kill_process(pid, Signal::KILL).ok().map(|()| true)
    });
    if killed.is_none() {
        running.signal(Signal::INT);
    }
    let ran = running.wait()?;
    ensure!(
        killed == Some(true),
        "no QEMU was there to be killed: {ran}"
    );
    ran.exits(105)?.complains("signal 9")?;
    Ok(())
}

fn container_exits(bench: &Bench) -> Result<()> {
    bench.write("lab.toml", &scripted("container"))?;
    bench.write(
        "t.py",
        "m.succeed('systemctl poweroff --force --force; sleep 1000')\n",
    )?;
    let ran = bench.machinist(&["test"]).run()?.exits(105)?;
    ensure!(ran.took < Duration::from_secs(200), "{ran}");
    Ok(())
}
