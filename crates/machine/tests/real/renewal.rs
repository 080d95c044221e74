//! A machine that is settled and made right again, without a snapshot in between.

use std::time::Duration;

use libtest_mimic::Failed;
use machinist_guest::Renewal;
use machinist_machine::{Accel, Boot, StartOptions};

use crate::lab::{Bench, LONG, check, run, vm_spec};

/// Calendar timers that were due do not fire; what was held goes on.
pub fn settles() -> Result<(), Failed> {
    run(async {
        let bench = Bench::new(vm_spec(Accel::Tcg, Boot::System)?)?;
        bench.machine.start(StartOptions::default()).await?;
        bench.machine.ready(LONG).await?;
        bench
            .sh("cd /etc/systemd/system
                 printf '[Timer]\nOnCalendar=daily\nPersistent=yes\n' > due.timer
                 printf '[Service]\nType=oneshot\nExecStart=touch /run/due\n' > due.service
                 systemctl daemon-reload; date -s '2021-03-04 05:06:07'; systemctl start due.timer
                 systemd-run -q --on-calendar=daily --unit=loose true")
            .await?;
        let agent = bench.machine.agent()?;
        let settled = agent.settle("before").await?;
        let timers = settled
            .timers
            .iter()
            .map(|timer| (timer.unit.as_str(), timer.loose));
        let mut timers: Vec<_> = timers
            .filter(|(unit, _)| unit.ends_with("e.timer"))
            .collect();
        timers.sort_unstable();
        check(
            timers == [("due.timer", false), ("loose.timer", true)],
            &settled,
        )?;
        check(settled.agent.lacks.is_empty(), &settled)?;
        tokio::time::sleep(Duration::from_millis(100)).await;
        let renewal = Renewal {
            settled,
            mark: "probe".into(),
            ..Renewal::again()?
        };
        let renewed = agent.renew(&renewal).await?;
        // One that nobody could start again goes on, and that is said.
        let lacks: Vec<_> = renewed.lacks.iter().map(|lack| lack.why.as_str()).collect();
        check(
            lacks.len() == 1 && lacks[0].starts_with("loose.timer "),
            &renewed,
        )?;
        // They are on their way when the machine is right.
        let state = bench
            .sh("until systemctl -q is-active due.timer; do :; done
                 systemctl is-active due.timer loose.timer; journalctl -q -o cat -t machinist; [ ! -e /run/due ]")
            .await?;
        check(state == "active\nactive\nbefore\nprobe", state)?;
        bench.machine.shutdown(LONG).await?;
        Ok(())
    })
}
