//! Tests of labs, to their end.

use std::num::NonZero;
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use machinist_events::{FailureKind, Outcome, Stream, What};
use machinist_session::protocol::{Command, Verb};
use machinist_session::{Brief, Cancel, Client, OnFailure, Session, TestResult, run_test};

use crate::lab::{Place, runtime};

fn passed(result: &TestResult) {
    assert_eq!(result.outcome, Outcome::Passed, "{:#?}", result.failure);
}

pub fn steps_pass() -> Result<(), Failed> {
    let place = Place::new();
    std::fs::write(place.directory.path().join("hello"), "hello\n")?;
    let result = place.run(place.job(
        r#"steps = [
            { machine = "a", copy_in = "hello", to = "/tmp/hello" },
            { machine = "a", run = "cat /tmp/hello", stdout = { equals = "hello" } },
            { machine = "a", wait = "file:/tmp/hello", timeout = "5s" },
            { machine = "a", wait = "unit:basic.target", timeout = "30s" },
            { machine = "a", run = ["getent", "hosts", "b"], stdout = { contains = "b" }, timeout = "10s" },
            { machine = "b", run = "exit 3", status = 3 },
        ]"#,
    ));
    passed(&result);
    assert!(place.sessions().is_empty());
    Ok(())
}

pub fn journal_waits() -> Result<(), Failed> {
    let place = Place::new();
    let result = place.run(place.job(
        r#"machines = ["a"]
        steps = [
            { machine = "a", run = "systemd-run --on-active=1 --timer-property=AccuracySec=1ms logger it-came-late" },
            { machine = "a", wait = 'journal:^it-came-l\w+$', timeout = "30s" },
            # Seen as well where it lies behind.
            { machine = "a", wait = "journal:it-came-late", timeout = "30s" },
            { machine = "a", wait = "journal:^never said", timeout = "300ms" },
        ]"#,
    ));
    let failure = result.failure.unwrap();
    assert!(
        failure
            .message
            .starts_with("step 4 (a: wait for journal /^never said/): ")
            && failure.message.ends_with("timed out after 0.3 s"),
        "{failure:?}"
    );
    Ok(())
}

pub fn unit_waits() -> Result<(), Failed> {
    let place = Place::new();
    let wait = |unit: &str| {
        let test = format!(
            "machines = [\"a\"]\nsteps = [
                {{ machine = \"a\", run = \"systemd-run --unit=dies --service-type=oneshot --no-block sh -c 'sleep 1; exit 3'\" }},
                {{ machine = \"a\", wait = \"unit:{unit}\", timeout = \"60s\" }},
            ]"
        );
        let began = Instant::now();
        let result = place.run(place.job(&test));
        // Told at once, not when the time is over.
        assert!(began.elapsed() < Duration::from_secs(50), "{result:?}");
        result.failure.unwrap().message
    };
    let failed = wait("dies");
    assert!(
        failed.ends_with("unit \"dies.service\" reached state \"failed\""),
        "{failed}"
    );
    let idle = wait("debug-shell");
    assert!(
        idle.ends_with("unit \"debug-shell.service\" is inactive and there are no pending jobs"),
        "{idle}"
    );
    Ok(())
}

pub fn step_fails() -> Result<(), Failed> {
    let place = Place::new();
    let result = place.run(place.job(
        r#"machines = ["a"]
        steps = [
            { machine = "a", run = "echo got; echo why >&2", stdout = { contains = "wanted" } },
        ]"#,
    ));
    assert_eq!(result.outcome, Outcome::Failed);
    let failure = result.failure.unwrap();
    assert_eq!(
        failure.message,
        "step 1 (a: run `echo got; echo why >&2`): standard output does not contain \"wanted\""
    );
    let command = failure.command.unwrap();
    assert_eq!(
        (command.stdout.as_str(), command.stderr.as_str()),
        ("got\n", "why\n")
    );
    assert!(
        failure.frames[0].source.contains("echo got"),
        "{:?}",
        failure.frames
    );
    assert!(
        !place
            .told()
            .iter()
            .any(|what| matches!(what, What::MachineStarting { .. }) && place.sessions().len() > 1)
    );
    Ok(())
}

pub fn script_passes() -> Result<(), Failed> {
    let mut place = Place::new();
    place.settings.starts = NonZero::<usize>::MIN;
    let mut job = place.script(
        r#"
import helper
# A start that has to wait for its place, and what is said after it.
a.start()
b.start()
t.assertTrue(b.booted)
b.crash()
a.wait_until_ready()
a.succeed("true")
t.assertFalse(b.booted)
b.start()
with t.assertRaises(Exception):
    b.wait_for_shutdown(timeout=0.1)
start_all()
with subtest("names"):
    for machine in machines:
        t.assertEqual(machine.succeed("hostname").strip(), machine.name)
a.wait_for_unit("multi-user.target", timeout=120)
t.assertEqual(a.get_unit_property("basic.target", "ActiveState"), "active")
a.require_unit_state("basic.target")
a.systemctl("status")
a.spawn(["python3", "-m", "http.server", "8000"])
a.wait_for_open_port(8000, timeout=30)
helper.look(b)
b.shutdown()
t.assertFalse(b.is_up())
print("done")
a.copy_from_machine("/etc/hostname")
"#,
        "timeout = \"3m\"",
    );
    std::fs::write(
        place.directory.path().join("helper.py"),
        "def look(b):\n    b.succeed('exec 3<>/dev/tcp/a/8000', timeout=10)\n",
    )?;
    let kept = place.directory.path().join("kept");
    job.keep_logs = Some(kept.clone());
    passed(&place.run(job));
    let told = place.told();
    let line = What::ScriptOutput {
        stream: Stream::Stdout,
        line: "done".into(),
    };
    assert!(told.contains(&line));
    assert!(matches!(told.last(), Some(What::SessionFinished)));
    assert!(kept.join("events.jsonl").is_file());
    assert_eq!(std::fs::read_to_string(kept.join("out/hostname"))?, "a\n");
    assert!(place.sessions().is_empty());
    Ok(())
}

pub fn disk_full() -> Result<(), Failed> {
    let place = Place::new();
    let runtime = &place.settings.runtime;
    std::fs::create_dir(runtime)?;
    let mount = |program: &str, words: &[&str]| -> Result<(), Failed> {
        let done = std::process::Command::new(program)
            .args(words)
            .arg(runtime)
            .status()?;
        assert!(done.success(), "{program}: {done}");
        Ok(())
    };
    // Room for a session, and not for the package that its script imports.
    mount(
        "mount",
        &["-t", "tmpfs", "-o", "size=128k,mode=700", "tmpfs"],
    )?;
    let result = place.run(place.script("print()", ""));
    mount("umount", &["-l"])?;
    assert_eq!(result.outcome, Outcome::Error, "{result:?}");
    let message = result.failure.unwrap().message;
    assert!(message.contains("No space left on device"), "{message}");
    Ok(())
}

pub fn script_fails() -> Result<(), Failed> {
    let place = Place::new();
    let result = place.run(place.script(
        "def inner():\n    a.succeed('echo out; exit 7')\n\na.succeed('systemd-run false; sleep 1')\ninner()\n",
        "",
    ));
    assert_eq!(result.outcome, Outcome::Failed);
    let failure = result.failure.unwrap();
    assert_eq!(failure.kind, FailureKind::Test);
    assert_eq!(
        failure.message,
        "command `echo out; exit 7` failed (exit code 7)"
    );
    let lines: Vec<u32> = failure.frames.iter().map(|frame| frame.line).collect();
    assert_eq!(lines, [5, 2]);
    assert_eq!(failure.frames[1].source, "a.succeed('echo out; exit 7')");
    assert_eq!(failure.command.unwrap().status, Some(7));
    assert!(
        failure
            .also
            .iter()
            .any(|also| also.starts_with("a: unit run-")),
        "{:?}",
        failure.also
    );
    Ok(())
}

pub fn script_late() -> Result<(), Failed> {
    let place = Place::new();
    let began = Instant::now();
    let result = place.run(place.script("a.succeed('sleep 600')\n", "timeout = \"15s\""));
    assert_eq!(result.outcome, Outcome::TimedOut);
    let failure = result.failure.unwrap();
    assert_eq!(failure.message, "the test took longer than 15 s");
    assert_eq!(failure.frames[0].source, "a.succeed('sleep 600')");
    assert!(began.elapsed() < Duration::from_secs(300));
    assert!(place.sessions().is_empty());
    Ok(())
}

pub fn script_interrupted() -> Result<(), Failed> {
    let place = Place::new();
    let text = "import subprocess, time\nsubprocess.Popen(['sleep', '7654'])\ntime.sleep(600)\n";
    let job = place.script(text, "");
    let result = runtime().block_on(async {
        let (engine, cancel, kill) = (place.engine().await, Cancel::new(), Cancel::new());
        let interrupt = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            cancel.cancel();
        };
        let test = run_test(&engine, job, &cancel, &kill);
        tokio::join!(test, interrupt).0
    });
    assert_eq!(result.outcome, Outcome::Interrupted);
    assert!(result.seconds < 300.0);
    assert!(place.sessions().is_empty());
    let left = std::process::Command::new("pgrep")
        .args(["-f", "sleep 7654"])
        .output()?;
    assert!(
        left.stdout.is_empty(),
        "{}",
        String::from_utf8_lossy(&left.stdout)
    );
    Ok(())
}

pub fn script_dies() -> Result<(), Failed> {
    let place = Place::new();
    let result = place.run(place.script("import os\nos.kill(os.getpid(), 9)\n", ""));
    assert_eq!(result.outcome, Outcome::Failed);
    let message = result.failure.unwrap().message;
    assert_eq!(
        message,
        "the script's Python ended with signal: 9 (SIGKILL)"
    );
    let result = place.run(place.job("script = \"missing.py\""));
    let failure = result.failure.unwrap();
    assert_eq!(failure.kind, FailureKind::Test);
    assert!(
        failure.message.starts_with("cannot read the script"),
        "{}",
        failure.message
    );
    Ok(())
}

pub fn no_python() -> Result<(), Failed> {
    let mut place = Place::new();
    let empty = place.directory.path().join("bin");
    std::fs::create_dir(&empty)?;
    place.settings.search = empty.clone().into();
    let result = place.run(place.script("", ""));
    assert_eq!(result.outcome, Outcome::Error);
    let message = result.failure.unwrap().message;
    assert!(
        message.contains("there is no python3 on the search path"),
        "{message}"
    );
    // One that is as an old one is.
    let old = empty.join("python3");
    std::fs::write(&old, "#!/bin/sh\nexit 213\n")?;
    std::fs::set_permissions(&old, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let message = place.run(place.script("", "")).failure.unwrap().message;
    assert!(message.contains("bin/python3 is older"), "{message}");
    Ok(())
}

pub fn paused() -> Result<(), Failed> {
    let place = Place::new();
    let mut job = place.script("a.fail('true')\n", "machines = [\"a\"]");
    job.on_failure = OnFailure::Pause;
    let result = runtime().block_on(async {
        let engine = place.engine().await;
        let visit = async {
            let paused = async {
                let is_it = |what: &What| matches!(what, What::TestPaused { .. });
                while !place.told().iter().any(is_it) {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            let paused = tokio::time::timeout(Duration::from_secs(200), paused).await;
            paused.expect("it does not stand still");
            let found = machinist_session::live_sessions(&place.settings.runtime).unwrap();
            assert_eq!(found[0].card.test.as_deref(), Some("it"));
            let mut client = Client::connect(&found[0].socket).await.unwrap();
            let status: machinist_session::protocol::Status =
                client.call(Verb::Status, |_| {}).await.unwrap();
            assert!(status.paused);
            client.ask(Verb::Continue).await.unwrap();
        };
        let (cancel, kill) = (Cancel::new(), Cancel::new());
        tokio::join!(run_test(&engine, job, &cancel, &kill), visit).0
    });
    assert_eq!(result.outcome, Outcome::Failed);
    assert!(place.sessions().is_empty());
    Ok(())
}

pub fn dropped() -> Result<(), Failed> {
    let place = Place::new();
    let job = place.job("machines = [\"a\"]\nsteps = [{ machine = \"a\", run = \"true\" }]\n");
    runtime().block_on(async {
        let engine = place.engine().await;
        let brief = Brief {
            test: Some(job.test),
            ..Brief::new(job.lab, job.file, job.base)
        };
        let session = Session::open(&engine, brief).await.unwrap();
        session.start(&[]).await.unwrap();
        let mut client = Client::connect(session.socket()).await.unwrap();
        let execute = Verb::Execute {
            machine: "a".into(),
            command: Command::shell("sleep 1000"),
            detach: true,
            purpose: None,
        };
        client.ask(execute).await.unwrap();
        drop(session);
        // What runs there holds the session no longer.
        let ended = async { while client.ask(Verb::Status).await.is_ok() {} };
        tokio::time::timeout(Duration::from_secs(120), ended).await
    })?;
    Ok(())
}
