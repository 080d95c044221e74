//! A machine that is settled and made right again, without a snapshot in between.

use std::time::Duration;

use libtest_mimic::Failed;
use machinist_guest::Renewal;
use machinist_machine::{Accel, Boot, StartOptions};

use crate::lab::{Bench, LONG, check, run, vm_spec};

/// Calendar timers are stopped and come back; what was held goes on.
pub fn settles() -> Result<(), Failed> {
    run(async {
        let bench = Bench::new(vm_spec(Accel::Tcg, Boot::System)?)?;
        bench.machine.start(StartOptions::default()).await?;
        bench.machine.ready(LONG).await?;
        bench
            .sh("cd /etc/systemd/system
                 printf '[Timer]\nOnCalendar=daily\nPersistent=yes\n' > due.timer
                 printf '[Service]\nType=oneshot\nExecStart=touch /run/due\n' > due.service
                 systemctl daemon-reload; systemctl start due.timer
                 systemd-run -q --on-calendar=daily --unit=loose true")
            .await?;
        let agent = bench.machine.agent()?;
        let settled = agent.settle().await?;
        check(settled.timers == ["due.timer"], &settled)?;
        // One that nobody could start again goes on, and that is said.
        let lack = settled.agent.lacks.first().ok_or("nothing is lacking")?;
        check(lack.why.starts_with("loose.timer "), &settled)?;
        tokio::time::sleep(Duration::from_millis(100)).await;
        let renewal = Renewal {
            settled,
            mark: "probe".into(),
            ..Renewal::again()?
        };
        let renewed = agent.renew(&renewal).await?;
        check(renewed.lacks.is_empty(), &renewed)?;
        // They are on their way when the machine is right.
        let state = bench
            .sh("until systemctl -q is-active due.timer; do :; done
                 systemctl is-active due.timer loose.timer; journalctl -q -o cat -t machinist; [ ! -e /run/due ]")
            .await?;
        check(state == "active\nactive\nprobe", state)?;
        bench.machine.shutdown(LONG).await?;
        Ok(())
    })
}
