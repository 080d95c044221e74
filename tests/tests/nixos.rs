//! `nixos-test-driver` and `generate-driver-symbols`, where no machine is needed: arguments, what is
//! said and written, exit codes, breakpoints.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use machinist_tests::{Bench, Command, Running, wait_until};
use rustix::process::Signal;

/// The driver, here.
fn driver(bench: &Bench, args: &[&str]) -> Command {
    let driver = bench.machinist(args).called("nixos-test-driver");
    let ours = [
        "LOGFILE",
        "testScript",
        "startScripts",
        "vlans",
        "logLevel",
        "NIX_LOG_FD",
    ];
    let driver = ours
        .iter()
        .fold(driver, |driver, name| driver.without(name));
    // What all machines share stays there, as in NixOS.
    let state = bench.path().join("state").display().to_string();
    driver.env("XDG_RUNTIME_DIR", state)
}

/// Checks with a strict parser that a file is XML.
fn is_xml(bench: &Bench, name: &str) -> Result<String> {
    let text = bench.read(name)?;
    let parsed = std::process::Command::new("python3")
        .args([
            "-c",
            "import sys, xml.etree.ElementTree as t; t.parse(sys.argv[1])",
        ])
        .arg(bench.path().join(name))
        .output()?;
    let error = String::from_utf8_lossy(&parsed.stderr);
    ensure!(parsed.status.success(), "{name}: {error}\n{text}");
    Ok(text)
}

#[test]
fn a_wrong_call_is_told_as_argparse_does() -> Result<()> {
    let bench = Bench::new()?;
    let ran = driver(&bench, &[]).run()?.exits(2)?;
    let (usage, error) = ran
        .stderr
        .trim_end()
        .rsplit_once('\n')
        .context("two lines")?;
    ensure!(usage.starts_with("usage: nixos-test-driver [-h]"), "{ran}");
    let missing = "nixos-test-driver: error: the following arguments are required: testscript";
    assert_eq!(error, missing);
    assert_eq!(ran.stdout, "");
    for (args, told) in [
        (&["--bad", "x.py"][..], "unrecognized arguments: --bad"),
        (
            &["-o", "gone", "x.py"][..],
            "argument -o/--output_directory: gone is not a directory",
        ),
        (
            &["x.py", "--vlans", "-2"][..],
            "not the number of a VLAN: '-2'",
        ),
        (
            &["x.py", "--vm-names", "a"][..],
            "--vm-names: 1 for 0 start scripts",
        ),
        (
            &["--config", "a", "--vlans", "1"][..],
            "not allowed with argument -c/--config",
        ),
    ] {
        driver(&bench, args).run()?.exits(2)?.complains(told)?;
    }
    let help = driver(&bench, &["--help"]).run()?.exits(0)?;
    ensure!(
        help.stderr.is_empty() && help.stdout.contains("--container-start-scripts"),
        "{help}"
    );
    let verb = bench
        .machinist(&["nixos-test-driver", "-h"])
        .run()?
        .exits(0)?;
    assert_eq!(verb.stdout, help.stdout);
    bench.nothing_left()
}

#[test]
fn what_cannot_be_run_is_named_before_anything_boots() -> Result<()> {
    let bench = Bench::new()?;
    bench.write("t.py", "print('it ran')")?;
    let dull = bench.write("run-dull-vm", "")?.display().to_string();
    let ran = driver(
        &bench,
        &["t.py", "--start-scripts", "/gone/run-a-vm", &dull],
    )
    .run()?
    .exits(1)?
    .complains("a: start script /gone/run-a-vm: No such file")?
    .complains("is not executable")?;
    ensure!(!ran.stdout.contains("it ran"), "{ran}");
    let twice = ["t.py", "--start-scripts", "/bin/true", "/bin/false"];
    driver(&bench, &twice)
        .run()?
        .exits(1)?
        .complains("two machines are called \"machine\"")?;
    driver(&bench, &["gone.py"])
        .run()?
        .exits(1)?
        .complains("cannot read the test script")?;
    bench.write("bad.json", "{\n \"vlans\": [\"x\"]}")?;
    driver(&bench, &["--config", "bad.json"])
        .run()?
        .exits(1)?
        .complains("line 2")?;
    driver(&bench, &["--config", "gone.json"])
        .run()?
        .exits(1)?
        .complains("gone.json")?;
    bench.write("empty.json", "{}")?;
    driver(&bench, &["-c", "empty.json"])
        .run()?
        .exits(2)?
        .complains("no test script")?;
    bench.nothing_left()
}

#[test]
fn the_environment_and_a_configuration_have_the_defaults() -> Result<()> {
    let bench = Bench::new()?;
    let script = bench.write("t.py", "print('vlans:', [vlan.nr for vlan in vlans])")?;
    let path = script.display().to_string();
    let environment = |driver: Command| driver.env("testScript", &path).env("vlans", " 2 1 ");
    environment(driver(&bench, &[]))
        .run()?
        .exits(0)?
        .says("vlans: [1, 2]")?;
    environment(driver(&bench, &["--vlans"]))
        .run()?
        .exits(0)?
        .says("vlans: []")?;
    let config = serde_json::json!({
        "vms": {}, "containers": {}, "vlans": [4, 3], "global_timeout": 60,
        "enable_ssh_backdoor": false, "test_script": path, "from_tomorrow": {},
    });
    bench.write("c.json", &config.to_string())?;
    driver(&bench, &["--config", "c.json"])
        .run()?
        .exits(0)?
        .says("vlans: [3, 4]")?;
    bench.write("other.py", "print('the other one')")?;
    let ran = driver(&bench, &["--conf=c.json", "--test-script", "other.py"]).run()?;
    ran.exits(0)?.says("the other one")?;
    bench.nothing_left()
}

#[test]
fn machines_have_the_names_of_their_scripts_and_a_line_to_log_in() -> Result<()> {
    let bench = Bench::new()?;
    let script = bench.path().join("run-web-1-vm");
    std::fs::copy("/bin/true", &script)?;
    bench.write(
        "t.py",
        "print([(m.name, m.booted, str(m.state_dir)) for m in machines], web_1 is machine)\n",
    )?;
    let state = bench.path().join("state/vm-state-web-1");
    let says = format!("[('web-1', False, '{}')] True", state.display());
    let args = [
        "t.py",
        "--dump-vsocks",
        "2",
        "--start-scripts",
        "./run-web-1-vm",
    ];
    let ran = driver(&bench, &args).run()?.exits(0)?.says(&says)?;
    let ran = ran
        .says("SSH backdoor enabled")?
        .says("additionally exposed symbols:\n    web-1,\n    start_all, ")?;
    ensure!(
        ran.stdout.contains("web-1:") && ran.stdout.contains("ProxyCommand="),
        "{ran}"
    );
    bench.nothing_left()
}

#[test]
fn a_test_that_passes() -> Result<()> {
    let bench = Bench::new()?;
    std::fs::create_dir(bench.path().join("out"))?;
    bench.write(
        "t.py",
        "print('printed')\n\
         with subtest('part \\x1b[31m<1>\\x07 ]]>'):\n    log.info('in it \\x00\\x1b[2J & so')\n\
         log.debug('a detail')\n\
         log.log('whatever the level')\n\
         driver.out_dir.joinpath('result').write_text('x')\n",
    )?;
    // In a build there is no home.
    let ran = driver(
        &bench,
        &["t.py", "-o", "out", "--junit-xml", "sub/junit.xml"],
    )
    .without("HOME")
    .env("LOGFILE", bench.path().join("log.xml"))
    .run()?
    .exits(0)?
    .says("additionally exposed symbols:\n    start_all, test_script, ")?
    .says("printed")?
    .complains("Machine state will be reset. To keep it, pass --keep-machine-state\n")?
    .complains("subtest: part <1> ]]>\nin it  & so\n(finished: subtest: part <1> ]]>, in 0.")?
    .complains("test script finished in ")?;
    ensure!(
        !ran.stderr.contains("a detail") && !ran.stderr.contains('\x1b'),
        "{ran}"
    );
    let log = is_xml(&bench, "log.xml")?;
    ensure!(
        log.contains("<nest><head>subtest: part &lt;1&gt; ]]&gt;</head>"),
        "{log}"
    );
    let junit = is_xml(&bench, "out/sub/junit.xml")?;
    ensure!(
        junit.contains("tests=\"1\"") && junit.contains("failures=\"0\""),
        "{junit}"
    );
    assert_eq!(bench.read("out/result")?, "x");
    let loud = driver(&bench, &["t.py", "--log-level", "debug"])
        .run()?
        .exits(0)?;
    loud.complains("a detail")?;
    let quiet = driver(&bench, &["t.py", "--log-level", "error"])
        .run()?
        .exits(0)?
        .complains("whatever the level\n")?;
    ensure!(!quiet.stderr.contains("in it"), "{quiet}");
    bench.nothing_left()
}

#[test]
fn a_test_that_fails() -> Result<()> {
    let bench = Bench::new()?;
    bench.write(
        "t.py",
        "def check():\n    t.assertEqual(1, 2)\nwith subtest('sums'):\n    check()\n",
    )?;
    let ran = driver(&bench, &["t.py", "--junit-xml=j.xml", "-K"])
        .env("LOGFILE", bench.path().join("log.xml"))
        .run()?
        .exits(1)?;
    let expected = "subtest: sums\n\
                    !!! Test \"sums\" failed with error: \"1 != 2\"\n\
                    !!! Traceback (most recent call last):\n\
                    !!!   File \"HERE/t.py\", line 4, in <module>\n\
                    !!!     check()\n\
                    !!!   File \"HERE/t.py\", line 2, in check\n\
                    !!!     t.assertEqual(1, 2)\n\
                    !!!\n\
                    !!! RequestedAssertionFailed: 1 != 2\n";
    let here = bench.path().display().to_string();
    ensure!(
        ran.stderr.contains(&expected.replace("HERE", &here)),
        "{ran}"
    );
    ensure!(
        !ran.stderr.contains("reset") && !ran.stderr.contains("finished in"),
        "{ran}"
    );
    is_xml(&bench, "log.xml")?;
    let junit = is_xml(&bench, "j.xml")?;
    ensure!(
        junit.contains("<testcase name=\"sums\"") && junit.contains("<failure"),
        "{junit}"
    );
    bench.nothing_left()
}

#[test]
fn a_test_that_takes_too_long() -> Result<()> {
    let bench = Bench::new()?;
    bench.write("t.py", "import time\nprint('begun')\ntime.sleep(600)\n")?;
    let args = ["t.py", "--global-timeout", "1", "--junit-xml", "j.xml"];
    let ran = driver(&bench, &args).run()?.exits(1)?;
    let ran = ran.complains("timeout reached; test terminating...")?;
    ensure!(ran.took < Duration::from_secs(200), "{ran}");
    let junit = is_xml(&bench, "j.xml")?;
    ensure!(
        junit.contains("<testcase name=\"main\"") && junit.contains("<failure"),
        "{junit}"
    );
    bench.nothing_left()
}

#[test]
fn ctrl_c_ends_it_and_the_reports_are_whole() -> Result<()> {
    let bench = Bench::new()?;
    bench.write("t.py", "import time\nopen('begun', 'w')\ntime.sleep(600)\n")?;
    let mut running = driver(&bench, &["t.py", "--junit-xml", "j.xml"])
        .env("LOGFILE", bench.path().join("log.xml"))
        .start()?;
    appears(&mut running, || bench.path().join("begun").exists())?;
    running.signal(Signal::INT);
    running.wait()?.exits(130)?;
    is_xml(&bench, "log.xml")?;
    let junit = is_xml(&bench, "j.xml")?;
    ensure!(junit.contains("<error"), "{junit}");
    bench.nothing_left()
}

#[test]
fn a_killed_driver_leaves_a_whole_log() -> Result<()> {
    let bench = Bench::new()?;
    let script =
        "import time\nwith subtest('endless'):\n    open('begun', 'w')\n    time.sleep(600)\n";
    bench.write("t.py", script)?;
    let mut running = driver(&bench, &["t.py"])
        .env("LOGFILE", bench.path().join("log.xml"))
        .start()?;
    appears(&mut running, || bench.path().join("begun").exists())?;
    running.signal(Signal::KILL);
    running.wait()?;
    let log = is_xml(&bench, "log.xml")?;
    ensure!(
        log.ends_with("<head>subtest: endless</head></nest></nest></logfile>\n"),
        "{log}"
    );
    bench.nothing_left()
}

#[test]
fn a_breakpoint_can_be_attached_to() -> Result<()> {
    let bench = Bench::new()?;
    bench.write(
        "t.py",
        "def check(wanted):\n    debug.breakpoint()\n    assert wanted == 2\ncheck(1)\n",
    )?;
    let mut running = driver(&bench, &["t.py", "--debug-hook-attach", "/x/attach"]).start()?;
    let session = session(&bench, &mut running)?;
    let path = session.display().to_string();
    appears(&mut running, || session.join("python.sock").exists())?;
    let prompt = bench.machinist(&["attach", &path, "--python"]);
    prompt
        .run_with_input(b"print(wanted + 40)\n")?
        .exits(0)?
        .says("41")?;
    // From another place, as if from outside of a build, by its id.
    let id = session
        .file_name()
        .context("a name")?
        .to_string_lossy()
        .into_owned();
    let elsewhere = Bench::new()?;
    let go_on = || elsewhere.machinist(&["attach", &id, "--continue"]);
    go_on().run()?.exits(0)?.complains("goes on")?;
    // It stops once more, at the assertion that fails.
    let again = wait_until(Duration::from_secs(120), || {
        go_on().run().ok()?.exits(0).ok()
    });
    ensure!(again.is_some(), "it does not stand still at the failure");
    let ran = running.wait()?.exits(1)?;
    let ran = ran
        .complains(&format!("machinist attach {id} --python"))?
        .complains("Breakpoint reached, run 'sudo /x/attach ")?
        .complains("!!! AssertionError")?;
    assert_eq!(ran.stderr.matches("!!! Traceback").count(), 1, "{ran}");
    bench.machinist(&["attach", &path]).run()?.exits(4)?;
    bench.nothing_left()
}

#[test]
fn a_person_types() -> Result<()> {
    let bench = Bench::new()?;
    bench.write("t.py", "print('the script', 'ran')\n")?;
    // Python's own prompt, whatever else is installed here.
    let python = bench.path().join("venv");
    let made = std::process::Command::new("python3")
        .args(["-m", "venv", "--without-pip"])
        .arg(&python)
        .status()?;
    ensure!(made.success(), "python3 -m venv: {made}");
    let path = std::env::var("PATH").context("PATH")?;
    let path = format!("{}:{path}", python.join("bin").display());
    let typist = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nixos/at_terminal.py");
    let typed = std::process::Command::new("python3")
        .arg(typist)
        .arg(machinist_tests::machinist())
        .args(["nixos-test-driver", "--interactive", "t.py"])
        .current_dir(bench.path())
        .env("PATH", path)
        .env("TERM", "dumb")
        .env("MACHINIST_RUNTIME", bench.runtime())
        .env("XDG_RUNTIME_DIR", bench.path().join("state"))
        .output()?;
    let said = String::from_utf8_lossy(&typed.stderr);
    ensure!(typed.status.success(), "{said}");
    ensure!(bench.read(".nixos-test-history")?.contains("6 * 7"));
    bench.nothing_left()
}

#[test]
fn what_is_typed_may_come_from_a_pipe() -> Result<()> {
    let bench = Bench::new()?;
    bench.write("t.py", "")?;
    std::fs::copy("/bin/true", bench.path().join("run-web-vm"))?;
    let args = ["t.py", "-I", "--start-scripts", "./run-web-vm"];
    let ran = driver(&bench, &args).run_with_input(b"print(20 + 22, web.name)\n")?;
    let ran = ran
        .exits(0)?
        .says("42 web\n")?
        .says("symbols:\n    web,\n")?;
    ensure!(!ran.stderr.contains("finished in"), "{ran}");
    bench.nothing_left()
}

#[test]
fn symbols_are_written_where_we_are() -> Result<()> {
    let bench = Bench::new()?;
    bench
        .machinist(&[])
        .called("/x/generate-driver-symbols")
        .run()?
        .exits(0)?;
    let names = bench.read("driver-symbols")?;
    ensure!(
        names.starts_with("start_all,") && names.contains(",NspawnMachine,"),
        "{names}"
    );
    ensure!(!names.ends_with('\n'), "{names:?}");
    Ok(())
}

/// Waits until something is there, as long as the driver runs.
fn appears(running: &mut Running, there: impl Fn() -> bool) -> Result<()> {
    let mut ended = false;
    let found = wait_until(Duration::from_secs(120), || {
        ended = running.has_ended();
        (ended || there()).then_some(())
    });
    if ended || found.is_none() {
        bail!("what was waited for did not come");
    }
    Ok(())
}

/// The directory of the only session.
fn session(bench: &Bench, running: &mut Running) -> Result<PathBuf> {
    let find = || {
        let entries = std::fs::read_dir(bench.runtime()).ok()?.flatten();
        entries
            .map(|entry| entry.path())
            .find(|path| path.join("session.sock").exists())
    };
    appears(running, || find().is_some())?;
    find().context("the session has gone")
}
