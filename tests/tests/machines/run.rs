//! `machinist run`.

use std::time::Duration;

use anyhow::{Result, ensure};
use machinist_tests::{Bench, Need};

use crate::Case;
use crate::labs::run;

pub const CASES: &[Case] = &[
    Case {
        name: "run::streams_and_status_pass",
        needs: &[Need::Container],
        run: streams_and_status,
    },
    Case {
        name: "run::a_reader_that_goes_away_ends_it",
        needs: &[Need::Container],
        run: no_reader,
    },
    Case {
        name: "run::environment_directory_and_volumes",
        needs: &[Need::Container],
        run: environment,
    },
    Case {
        name: "run::the_whole_system",
        needs: &[Need::Container],
        run: system,
    },
    Case {
        name: "run::a_vm_has_its_own_kernel",
        needs: &[Need::Vm],
        run: vm,
    },
    Case {
        name: "run::a_published_port_answers",
        needs: &[Need::Container],
        run: publish,
    },
];

fn streams_and_status(bench: &Bench) -> Result<()> {
    let script = "cat; echo oops >&2; exit 7";
    let input: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
    let ran = bench
        .machinist(&run(&[], &["sh", "-c", script]))
        .run_with_input(&input)?
        .exits(7)?;
    ensure!(
        ran.stdout_bytes == input,
        "{} bytes came back",
        ran.stdout_bytes.len()
    );
    ensure!(ran.stderr.ends_with("oops\n"), "{ran}");
    // A signal is told as a shell tells it.
    bench
        .machinist(&run(&[], &["sh", "-c", "kill -TERM $$"]))
        .run()?
        .exits(143)?;
    let ran = bench.machinist(&run(&[], &["no-such-program"])).run()?;
    ensure!(matches!(ran.code(), Some(125 | 127)), "{ran}");
    ran.complains("no-such-program")?;
    Ok(())
}

fn no_reader(bench: &Bench) -> Result<()> {
    let mut words = vec![machinist_tests::machinist().display().to_string()];
    words.extend(run(&[], &["yes"]).iter().map(ToString::to_string));
    let script = format!(
        "timeout 30 {} | head -n 1; exit ${{PIPESTATUS[0]}}",
        words.join(" ")
    );
    let status = std::process::Command::new("bash")
        .args(["-c", &script])
        .current_dir(bench.path())
        .status()?;
    // 128 + SIGPIPE, as if it had run here.
    ensure!(status.code() == Some(141), "{status}");
    Ok(())
}

fn environment(bench: &Bench) -> Result<()> {
    bench.write("shown", "from the host\n")?;
    let options = [
        "--env",
        "GREETING=hello",
        "--workdir",
        "/srv",
        "--volume",
        ".:/mnt/lab",
        "--volume",
        ".:/mnt/work:rw",
    ];
    let script =
        "echo $GREETING; pwd; cat /mnt/lab/shown; touch /mnt/lab/no; echo made > /mnt/work/made";
    bench
        .machinist(&run(&options, &["sh", "-c", script]))
        .run()?
        .exits(0)?
        .says("hello\n/srv\nfrom the host\n")?
        .complains("Read-only file system")?;
    ensure!(bench.read("made")? == "made\n");
    ensure!(!bench.path().join("no").exists());
    Ok(())
}

fn system(bench: &Bench) -> Result<()> {
    bench
        .machinist(&run(
            &["--system"],
            &["systemctl", "is-active", "nginx.service"],
        ))
        .run()?
        .exits(0)?
        .says("active\n")?;
    Ok(())
}

fn vm(bench: &Bench) -> Result<()> {
    let ours = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let ran = bench
        .machinist(&run(
            &["--kind", "vm"],
            &["sh", "-c", "uname -r; id -u; exit 3"],
        ))
        .run()?
        .exits(3)?;
    let release = ran.stdout.lines().next().unwrap_or_default();
    ensure!(!release.is_empty() && release != ours.trim(), "{ran}");
    ran.says("\n0\n")?;
    Ok(())
}

fn publish(bench: &Bench) -> Result<()> {
    let port = free_port()?;
    let published = format!("{port}:80");
    let options = ["--publish", published.as_str()];
    let running = bench
        .machinist(&run(&options, &["nginx", "-g", "daemon off;"]))
        .start()?;
    let answer = machinist_tests::wait_until(Duration::from_secs(120), || {
        let output = std::process::Command::new("curl")
            .args([
                "-fsS",
                "--max-time",
                "5",
                &format!("http://127.0.0.1:{port}/"),
            ])
            .output()
            .ok()?;
        output.status.success().then_some(output.stdout)
    });
    running.signal(rustix::process::Signal::INT);
    let ran = running.wait()?;
    let answer = String::from_utf8_lossy(&answer.unwrap_or_default()).into_owned();
    ensure!(answer.contains("Welcome to nginx"), "{answer:?}: {ran}");
    Ok(())
}

/// A port that nobody listened on a moment ago.
fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?
        .local_addr()?
        .port())
}
