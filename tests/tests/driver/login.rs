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

import shlex, socket, select, time
machine.succeed("systemd-run systemd-socket-activate -l 8000 --inetd -a /bin/cat")
machine.wait_for_open_port(8000)
words = shlex.split(line)
proxy = next(w for w in words if w.startswith("ProxyCommand="))[13:].replace(" 22", " 8000")
p = subprocess.Popen(shlex.split(proxy), stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
for n in (b"hello", b"x"*10, b"y"*1500, b"z"):
    p.stdin.write(n)
    got = b""
    end = time.time()+3
    while len(got) < len(n) and time.time() < end:
        r,_,_ = select.select([p.stdout],[],[],1)
        if r:
            got += os.read(p.stdout.fileno(), 65536)
    print("DIAL", len(n), len(got))
p.kill()
proxy = proxy.replace(" 8000", " 22")
p = subprocess.Popen(shlex.split(proxy), stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
time.sleep(1)
print("BANNER", os.read(p.stdout.fileno(), 65536))
p.stdin.write(b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u6\r\n")
r,_,_ = select.select([p.stdout],[],[],3)
print("KEX", len(os.read(p.stdout.fileno(), 65536)) if r else None)
print(machine.succeed("ss -tnp; journalctl -u ssh -n 5"))
p.kill()
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
