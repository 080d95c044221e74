//! Logging in by SSH, as `--dump-vsocks` tells it.

use anyhow::{Context, Result, ensure};
use machinist_tests::start_script::ContainerScript;
use machinist_tests::{Bench, Need, images};

use crate::Case;

pub const CASES: &[Case] = &[Case {
    name: "the_line_that_is_printed_logs_in",
    needs: &[Need::Container, Need::Python, Need::Ssh],
    run: logs_in,
}];

/// The line works in a shell that has nothing of the driver's environment.
const SCRIPT: &str = r#"
import subprocess

machine.succeed("passwd -d root")
machine.wait_for_unit("ssh")
machine.wait_for_open_port(22)
line = machine.ssh_backdoor_command(1)
print("line:", line)
elsewhere = ["env", "-i", f"PATH={os.environ['PATH']}", "sh", "-c", f"{line} hostname"]
ran = subprocess.run(elsewhere, stdin=subprocess.DEVNULL, capture_output=True, timeout=120)
assert (ran.returncode, ran.stdout) == (0, b"one\n"), ran
"#;

fn logs_in(bench: &Bench) -> Result<()> {
    let root = images::root("debian:bookworm", &["openssh-server"])?;
    let mut container = ContainerScript::new("one", &root);
    let config = "PermitRootLogin yes\nPermitEmptyPasswords yes\nUsePAM no\n".to_owned();
    let place = "/etc/ssh/sshd_config.d/open.conf".to_owned();
    container.files.push((place, config));
    let script = container.write(&bench.path())?.display().to_string();
    bench.write("test.py", SCRIPT)?;
    let args = ["test.py", "--dump-vsocks", "2", "--container-start-scripts"];
    let driver = bench.machinist(&args).args([&script]);
    let driver = driver.called("nixos-test-driver");
    let ran = driver
        .env("XDG_RUNTIME_DIR", bench.path().join("state"))
        .run()?;
    let ran = ran.exits(0)?.says("SSH backdoor enabled")?;
    let lines = || ran.stdout.lines();
    let line = lines()
        .find_map(|line| line.strip_prefix("line: "))
        .context("no line")?;
    ensure!(
        lines().any(|told| told == format!("    one:  {line}")),
        "{ran}"
    );
    Ok(())
}
