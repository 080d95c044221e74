//! VMs. Each costs many seconds where there is no hardware virtualization: few boots, much seen.

use std::path::Path;

use libtest_mimic::Failed;
use machinist_guest::Command;
use machinist_image::Want;
use machinist_machine::{
    Accel, Boot, Disk, DiskAccess, Kind, Report, StartOptions, State, Verdicts, Volume,
};

use crate::lab::{Bench, LONG, check, debian, failure, image, processes_with, run, spec, vm_spec};

/// Under `auto`, whatever the host has. Where its KVM is useless, the first start falls back with
/// one clear report, and the second one knows.
pub fn automatic() -> Result<(), Failed> {
    run(async {
        let cache = tempfile::tempdir()?;
        let verdicts = || Verdicts::open(cache.path(), "/usr/bin/qemu-system-x86_64".as_ref());
        let spec = vm_spec(Accel::Auto, Boot::Agent)?;
        let bench = Bench::with_verdicts(spec.clone(), verdicts())?;
        bench.machine.start(StartOptions::default()).await?;
        bench.machine.ready(LONG).await?;
        let release = bench.sh("uname -r").await?;
        let expected = &spec.image.boot.as_ref().ok_or("no kernel")?.kernel_version;
        check(release == *expected, release)?;
        bench.machine.shutdown(LONG).await?;
        let reports = bench.reports();
        let fell_back = reports
            .iter()
            .filter(|report| matches!(report, Report::AccelFallback { .. }))
            .count();
        check(fell_back <= 1, &reports)?;
        check(reports.last() == Some(&Report::Stopped), &reports)?;
        if fell_back == 0 {
            return Ok(());
        }
        // Known now, also to another process of the same boot: who insists is told at once.
        check(verdicts().kvm().is_some(), "the verdict is forgotten")?;
        let insisting = Bench::with_verdicts(vm_spec(Accel::Kvm, Boot::Agent)?, verdicts())?;
        let (reason, _) = failure(insisting.machine.start(StartOptions::default()).await)?;
        check(reason.starts_with("KVM does not work here"), reason)?;
        check(
            verdicts().choose(Accel::Auto).map(|chosen| chosen.name()) == Ok("tcg"),
            "the next one tries KVM again",
        )
    })
}

/// The image's own system: disks, a restart from inside, an orderly end.
pub fn life() -> Result<(), Failed> {
    run(async {
        let mut spec = vm_spec(Accel::Tcg, Boot::System)?;
        spec.cpus = 2;
        spec.kind = Kind::Vm {
            accel: Accel::Tcg,
            disks: vec![Disk::Scratch { size: 64 << 20 }],
        };
        let bench = Bench::new(spec)?;
        bench.machine.start(StartOptions::default()).await?;
        let found = bench
            .sh("hostname; nproc; cat /etc/machine-id; cat /sys/block/vd?/serial | tr '\\n' ' '")
            .await?;
        check(
            found.starts_with("probe\n2\n0123456789abcdef0123456789abcdef\n")
                && found.contains("disk0"),
            found,
        )?;
        bench.machine.ready(LONG).await?;
        bench
            .sh("grep -q disk0 /sys/block/vdb/serial && echo kept > /dev/vdb; sync")
            .await?;
        bench.machine.reboot().await?;
        let kept = bench
            .sh("grep -q disk0 /sys/block/vdb/serial && head -n1 /dev/vdb")
            .await?;
        check(kept == "kept", kept)?;
        bench.machine.shutdown(LONG).await?;
        let reports = bench.reports();
        check(reports.last() == Some(&Report::Stopped), &reports)?;
        let boots = bench.machine.status().borrow().boots;
        check(boots == 2, boots)
    })
}

/// Folders by 9p, and disks that are files of the host.
pub fn shares() -> Result<(), Failed> {
    run(async {
        let shared = tempfile::tempdir()?;
        std::fs::write(shared.path().join("from-host"), "hello")?;
        let file = shared.path().join("disk.img");
        std::fs::write(&file, "original".repeat(1024))?;
        let disk = |access| Disk::File {
            path: file.clone(),
            access,
        };
        let want = Want::Vm {
            shared_folders: true,
        };
        let kind = Kind::Vm {
            accel: Accel::Tcg,
            disks: vec![disk(DiskAccess::Discard)],
        };
        let mut spec = spec(image(&debian(), want)?, kind);
        spec.boot = Boot::Agent;
        spec.volumes = [("writable", true), ("readable", false)]
            .map(|(name, writable)| Volume {
                source: shared.path().to_owned(),
                target: Path::new("/mnt").join(name),
                writable,
            })
            .to_vec();
        let bench = Bench::new(spec)?;
        bench.machine.start(StartOptions::default()).await?;
        let read = bench.sh("cat /mnt/readable/from-host").await?;
        check(read == "hello", read)?;
        bench
            .sh("echo back > /mnt/writable/from-machine; ! touch /mnt/readable/x 2>/dev/null")
            .await?;
        let back = std::fs::read_to_string(shared.path().join("from-machine"))?;
        check(back == "back\n", back)?;
        let disk = bench
            .sh(
                "disk=/dev/$(grep -l disk0 /sys/block/vd?/serial | cut -d/ -f4)
                 head -c8 $disk; printf replaced > $disk; sync; head -c8 $disk",
            )
            .await?;
        check(disk == "originalreplaced", disk)?;
        bench.machine.shutdown(LONG).await?;
        let kept = std::fs::read_to_string(&file)?;
        check(
            kept.starts_with("original"),
            "the host's file was written to",
        )
    })
}

pub fn panics() -> Result<(), Failed> {
    run(async {
        let bench = Bench::new(vm_spec(Accel::Tcg, Boot::Agent)?)?;
        bench.machine.start(StartOptions::default()).await?;
        let agent = bench.machine.agent()?;
        let crash = Command::shell("echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger");
        let running = tokio::spawn(async move { agent.output(&crash).await });
        let (reason, words) = failure(bench.machine.wait_for_shutdown(LONG).await)?;
        check(reason.starts_with("kernel panic: "), &reason)?;
        check(
            words.iter().any(|line| line.contains("Kernel panic")),
            &words,
        )?;
        // Whoever waits for a command learns it, too.
        let command = running.await?;
        check(command.is_err(), command)
    })
}

pub fn killed() -> Result<(), Failed> {
    run(async {
        let mut spec = vm_spec(Accel::Tcg, Boot::Agent)?;
        spec.name = "victim".into();
        let bench = Bench::new(spec)?;
        bench.machine.start(StartOptions::default()).await?;
        let pid = processes_with("-name victim,process=victim")
            .first()
            .and_then(|line| line.split(' ').next().map(str::to_owned))
            .ok_or("no QEMU")?;
        std::process::Command::new("kill")
            .args(["-9", &pid])
            .status()?;
        let (reason, _) = failure(bench.machine.wait_for_shutdown(LONG).await)?;
        check(reason == "QEMU was killed by signal 9", reason)?;
        check(
            matches!(bench.machine.status().borrow().state, State::Failed { .. }),
            "state",
        )
    })
}
