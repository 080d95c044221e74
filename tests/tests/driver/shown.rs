//! What is seen of a test, on the terminal and in files.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use machinist_tests::{Bench, Need, Ran};

use crate::Case;
use crate::stage::Stage;

pub const CASES: &[Case] = &[
    Case {
        name: "lines_and_files_are_those_that_are_known",
        needs: &[Need::Container, Need::Python],
        run: known,
    },
    Case {
        name: "root_attaches_from_outside_of_the_namespaces",
        needs: &[Need::Container, Need::Python],
        run: from_outside,
    },
];

/// What a machine can do to a log.
const SCRIPT: &str = r#"
machine.wait_for_unit("multi-user.target")
with subtest("speaks"):
    machine.succeed("printf 'out\\n'; printf '\\033[2J]]><b>\\001 \\377\\n' >&2")
    machine.fail("exit 3")
    machine.wait_until_succeeds("test -e /etc/hostname")
serial_stdout_off()
machine.succeed("echo unseen >&2")
serial_stdout_on()
machine.execute("true")
with machine.nested("in parts"):
    machine.log("a line")
with subtest("breaks"):
    machine.succeed("echo so sorry; exit 7")
"#;

/// Beginnings of lines.
const LINES: &[&str] = &[
    "Machine state will be reset. To keep it, pass --keep-machine-state",
    "one: waiting for unit multi-user.target",
    "one: starting container",
    "one: connected to guest root shell",
    "one: (finished: waiting for unit multi-user.target, in ",
    "subtest: speaks",
    "one: must succeed: printf 'out",
    "one # ]]><b> \u{fffd}",
    "one: (finished: must succeed: printf 'out",
    "one: must fail: exit 3",
    "one: (finished: must fail: exit 3, in ",
    "one: waiting for success: test -e /etc/hostname",
    "one: (finished: waiting for success: test -e /etc/hostname, in ",
    "(finished: subtest: speaks, in ",
    "one: must succeed: echo unseen",
    "one: in parts",
    "one: a line",
    "one: (finished: in parts, in ",
    "subtest: breaks",
    "one: must succeed: echo so sorry; exit 7",
    "one: output: so sorry",
    "!!! Test \"breaks\" failed with error: \"command `echo so sorry; exit 7` failed (exit code 7)\"",
    "!!! Traceback (most recent call last):",
    "!!!     machine.succeed(\"echo so sorry; exit 7\")",
    "!!! RequestedAssertionFailed: command `echo so sorry; exit 7` failed (exit code 7)",
];

fn known(bench: &Bench) -> Result<()> {
    let stage = Stage::new(bench).container("one", 1, &[])?;
    let log = bench.path().join("log.xml");
    let driver = stage.driver(&["--junit-xml", "junit.xml"], SCRIPT)?;
    let ran = driver.env("LOGFILE", &log).run()?.exits(1)?;
    in_order(&ran, LINES)?;
    ensure!(!ran.stderr.contains("one # unseen"), "{ran}");
    ensure!(!ran.stderr.contains(['\x1b', '\x01']), "{ran}");
    let (log, junit) = (xml(bench, "log.xml")?, xml(bench, "out/junit.xml")?);
    ensure!(
        log.contains("<line machine=\"one\" type=\"serial\">]]&gt;&lt;b&gt; \u{fffd}</line>"),
        "{log}"
    );
    ensure!(
        log.contains("<nest><head machine=\"one\">must fail: exit 3</head>"),
        "{log}"
    );
    ensure!(
        junit.contains("tests=\"2\" skipped=\"0\" failures=\"1\" errors=\"0\""),
        "{junit}"
    );
    Ok(())
}

/// As from outside of a Nix build: the driver has processes and directories that nobody else sees.
fn from_outside(bench: &Bench) -> Result<()> {
    bench.write("test.py", "inside = 41\ndebug.breakpoint()\n")?;
    let script = r#"
mount -t tmpfs none /run
mount -t proc none /proc
exec -a nixos-test-driver "$0" --debug-hook-attach hook test.py
"#;
    let mut driver = std::process::Command::new("unshare")
        .args([
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "bash",
            "-ec",
            script,
        ])
        .arg(machinist_tests::machinist())
        .current_dir(bench.path())
        .env("MACHINIST_RUNTIME", "/run/machinist")
        .env("XDG_RUNTIME_DIR", bench.path().join("state"))
        .env("NIX_LOG_FD", "2")
        .stderr(Stdio::piped())
        .spawn()?;
    let said = BufReader::new(driver.stderr.take().context("no stderr")?);
    let mut said = said.lines().map_while(Result::ok);
    let attach = said.find_map(|line| {
        let (_, command) = line.split_once("Python prompt of the script: sudo machinist ")?;
        Some(command.split(' ').map(str::to_owned).collect::<Vec<_>>())
    });
    let attach = attach.context("it does not stand still")?;
    let attach: Vec<&str> = attach.iter().map(String::as_str).collect();
    let ran = bench
        .machinist(&attach)
        .run_with_input(b"print(inside + 1)\n");
    let ran = ran?.exits(0)?.says("42")?;
    let &["attach", id, "--python"] = attach.as_slice() else {
        bail!("{attach:?}: {ran}");
    };
    bench
        .machinist(&["attach", id, "--continue"])
        .run()?
        .exits(0)?;
    let rest: Vec<String> = said.collect();
    let status = driver.wait()?;
    ensure!(status.success(), "{status}: {rest:?}");
    Ok(())
}

/// Whether lines that begin so are on standard error, in this order.
fn in_order(ran: &Ran, wanted: &[&str]) -> Result<()> {
    let mut lines = ran.stderr.lines();
    for wanted in wanted {
        ensure!(
            lines.any(|line| line.starts_with(wanted)),
            "{wanted:?} expected: {ran}"
        );
    }
    Ok(())
}

/// A file that a strict parser takes for XML.
fn xml(bench: &Bench, name: &str) -> Result<String> {
    let parsed = std::process::Command::new("python3")
        .args([
            "-c",
            "import sys, xml.etree.ElementTree as t; t.parse(sys.argv[1])",
        ])
        .arg(bench.path().join(name))
        .output()?;
    let (text, error) = (bench.read(name)?, String::from_utf8_lossy(&parsed.stderr));
    ensure!(parsed.status.success(), "{name}: {error}\n{text}");
    Ok(text)
}
