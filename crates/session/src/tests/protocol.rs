//! The protocol, spoken by the Rust client and by hand.

use std::path::Path;
use std::time::{Duration, Instant};

use machinist_events::What;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::Here;
use crate::protocol::{Command, Executed, FaultKind, Part, Program, Pty, Status, Until, Verb};
use crate::stream::Frame;
use crate::{ClientError, OnFailure};

/// A client that says whatever it likes.
struct Raw {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

impl Raw {
    async fn connect(here: &Here) -> (Self, Value) {
        let (reader, writer) = UnixStream::connect(&here.socket)
            .await
            .unwrap()
            .into_split();
        let mut raw = Self {
            reader: BufReader::new(reader),
            writer,
        };
        let hello = raw.hear().await;
        (raw, hello)
    }

    async fn say(&mut self, line: &str) {
        self.writer.write_all(line.as_bytes()).await.unwrap();
        self.writer.write_all(b"\n").await.unwrap();
    }

    async fn hear(&mut self) -> Value {
        let mut line = String::new();
        let read = tokio::time::timeout(Duration::from_secs(60), self.reader.read_line(&mut line));
        assert_ne!(read.await.unwrap().unwrap(), 0, "the server hung up");
        serde_json::from_str(&line).unwrap()
    }
}

fn execute(script: &str) -> Verb {
    Verb::Execute {
        machine: "web".into(),
        command: Command::shell(script),
        detach: false,
        purpose: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_engine_says_hello_and_how_things_are() {
    let here = Here::new().await;
    let (_, hello) = Raw::connect(&here).await;
    assert_eq!(hello["protocol"], 1);
    assert_eq!(hello["machines"], json!(["db-1", "web"]));
    assert_eq!(hello["test"], "a test");
    let status: Status = here
        .client()
        .await
        .call(Verb::Status, |_| {})
        .await
        .unwrap();
    assert_eq!(status.machines[1].name, "web");
    assert_eq!(status.machines[1].state, "up");
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_is_answered_and_harms_nobody() {
    let here = Here::new().await;
    let (mut raw, _) = Raw::connect(&here).await;
    for nonsense in [
        "",
        "{",
        "[]",
        r#"{"id":5,"do":"dance"}"#,
        r#"{"id":0,"do":"status"}"#,
    ] {
        raw.say(nonsense).await;
        let answer = raw.hear().await;
        assert_eq!(answer["error"]["kind"], "usage", "{nonsense}: {answer}");
    }
    raw.say(r#"{"id":5,"do":{"crash":{"machine":"nobody"}}}"#)
        .await;
    let answer = raw.hear().await;
    assert_eq!(answer["id"], 5);
    let message = answer["error"]["message"].as_str().unwrap();
    assert_eq!(
        message,
        "there is no machine \"nobody\"; there are: db-1, web"
    );
    raw.say(r#"{"id":6,"do":"status"}"#).await;
    assert_eq!(raw.hear().await["id"], 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_end_as_they_end() {
    let here = Here::new().await;
    let mut client = here.client().await;
    let mut run =
        async |script: &str| -> Executed { client.call(execute(script), |_| {}).await.unwrap() };
    let done = run("echo out; echo err >&2; exit 3").await;
    assert_eq!((done.status, done.stdout.to_text()), (3, "out\n".into()));
    assert_eq!(done.stderr.to_text(), "err\n");
    assert_eq!(run("kill -9 $$").await.status, 137);
    assert_eq!(run("printf '\\377\\0'").await.stdout.0, [0xff, 0]);
    assert_eq!(run("false | true").await.status, 1);
    assert_eq!(run("echo $nothing").await.status, 1);
    assert_eq!(
        run("pwd; echo $FROM_LAB").await.stdout.to_text(),
        "/tmp\nyes\n"
    );
    // Standard error may stay open, standard output is waited for.
    let began = Instant::now();
    assert_eq!(
        run("sleep 100 >/dev/null & echo on").await.stdout.to_text(),
        "on\n"
    );
    assert!(began.elapsed() < Duration::from_secs(60));
    assert_eq!(
        run("(sleep 0.3; echo late) &").await.stdout.to_text(),
        "late\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_prints_without_end_is_ended() {
    let here = Here::new().await;
    let mut client = here.client().await;
    let endless = client.call::<Executed>(execute("yes"), |_| {});
    let ended = tokio::time::timeout(Duration::from_secs(60), endless).await;
    let error = ended.expect("it went on").unwrap_err().to_string();
    assert!(error.contains("printed more than"), "{error}");
    // What goes to standard error is read on, and left out.
    let script = "head -c 40000000 /dev/zero >&2; echo on";
    let done: Executed = client.call(execute(script), |_| {}).await.unwrap();
    assert_eq!(done.stdout.to_text(), "on\n");
    assert!(done.stderr.0.len() < 40_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_has_user_environment_directory_input_and_time() {
    let here = Here::new().await;
    let mut client = here.client().await;
    let mut command = Command::of(Program::Argv(vec![
        "sh".into(),
        "-c".into(),
        "cat; pwd; echo $A".into(),
    ]));
    command.env.insert("A".into(), "b".into());
    command.cwd = Some("/usr".into());
    command.input = Some("in\n".into());
    let machine = "db-1".to_owned();
    let verb = Verb::Execute {
        machine: machine.clone(),
        command,
        detach: false,
        purpose: None,
    };
    let done: Executed = client.call(verb, |_| {}).await.unwrap();
    assert_eq!(done.stdout.to_text(), "in\n/usr\nb\n");
    let mut command = Command::shell("sleep 100");
    command.timeout = Some(0.2);
    let began = Instant::now();
    let verb = Verb::Execute {
        machine: machine.clone(),
        command,
        detach: false,
        purpose: None,
    };
    let done: Executed = client.call(verb, |_| {}).await.unwrap();
    assert_eq!(done.status, 124);
    assert!(began.elapsed() < Duration::from_secs(60));
    let mut command = Command::shell("true");
    command.timeout = Some(-1.0);
    let verb = Verb::Execute {
        machine: machine.clone(),
        command,
        detach: false,
        purpose: None,
    };
    let refused = client.call::<Executed>(verb, |_| {}).await.unwrap_err();
    assert!(matches!(refused, ClientError::Fault(fault) if fault.kind == FaultKind::Usage));
    let command = Command::of(Program::Argv(vec!["/no/such/program".into()]));
    let verb = Verb::Execute {
        machine,
        command,
        detach: false,
        purpose: None,
    };
    let refused = client.call::<Executed>(verb, |_| {}).await.unwrap_err();
    assert!(matches!(refused, ClientError::Fault(fault) if fault.kind == FaultKind::Test));
}

/// What made the file again and again is dead, or will soon be.
async fn is_made_no_more(marker: &Path) {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(60) {
        drop(std::fs::remove_file(marker));
        tokio::time::sleep(Duration::from_millis(200)).await;
        if !marker.exists() {
            return;
        }
    }
    panic!("{} is still being made", marker.display());
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_run_side_by_side_and_can_be_cancelled() {
    let here = Here::new().await;
    let (mut raw, _) = Raw::connect(&here).await;
    let marker = here.directory.path().join("alive");
    let script = format!(
        "while true; do touch {}; sleep 0.02; done",
        marker.display()
    );
    let slow = json!({"id": 1, "do": {"execute": {"machine": "web", "command": {"program": {"shell": script}}}}});
    raw.say(&slow.to_string()).await;
    raw.say(
        r#"{"id":2,"do":{"execute":{"machine":"web","command":{"program":{"shell":"echo 2"}}}}}"#,
    )
    .await;
    let answer = raw.hear().await;
    assert_eq!(
        (&answer["id"], &answer["ok"]["stdout"]),
        (&json!(2), &json!("2\n"))
    );
    raw.say(r#"{"id":2,"do":{"cancel":{"of":1}}}"#).await;
    let mut answers = [raw.hear().await, raw.hear().await];
    answers.sort_by_key(|answer| answer["id"].as_u64());
    assert_eq!(answers[0]["error"]["kind"], "cancelled");
    assert_eq!(answers[1]["ok"], Value::Null);
    is_made_no_more(&marker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_takes_its_commands_along() {
    let here = Here::new().await;
    let marker = here.directory.path().join("alive");
    let (mut raw, _) = Raw::connect(&here).await;
    let script = format!(
        "while true; do touch {}; sleep 0.02; done",
        marker.display()
    );
    let slow = json!({"id": 1, "do": {"spawn": {"machine": "web", "command": {"program": {"shell": script}}}}});
    raw.say(&slow.to_string()).await;
    assert!(raw.hear().await["part"]["started"]["command"].is_u64());
    drop(raw);
    is_made_no_more(&marker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn spawned_commands_listen() {
    let here = Here::new().await;
    let (mut raw, _) = Raw::connect(&here).await;
    raw.say(r#"{"id":1,"do":{"spawn":{"machine":"web","command":{"program":{"shell":"while read line; do echo got $line; done; exit 4"}}}}}"#).await;
    raw.hear().await;
    raw.say(r#"{"id":2,"do":{"send":{"of":1,"data":"hello\n"}}}"#)
        .await;
    let mut heard = [raw.hear().await, raw.hear().await];
    heard.sort_by_key(|line| line["id"].as_u64());
    assert_eq!(heard[0]["part"]["stdout"], "got hello\n");
    raw.say(r#"{"id":2,"do":{"close_input":{"of":1}}}"#).await;
    let mut heard = [raw.hear().await, raw.hear().await];
    heard.sort_by_key(|line| line["id"].as_u64());
    assert_eq!(heard[0]["ok"]["status"], 4);
    raw.say(r#"{"id":2,"do":{"send":{"of":1,"data":"late"}}}"#)
        .await;
    assert_eq!(raw.hear().await["error"]["kind"], "usage");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_stops_only_itself() {
    let here = Here::new().await;
    let (mut deaf, _) = Raw::connect(&here).await;
    deaf.say(r#"{"id":1,"do":{"spawn":{"machine":"web","command":{"program":{"shell":"yes"}}}}}"#)
        .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut client = here.client().await;
    let done: Executed = client.call(execute("echo on"), |_| {}).await.unwrap();
    assert_eq!(done.stdout.to_text(), "on\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn repeating_waiting_and_copying() {
    let here = Here::new().await;
    let mut client = here.client().await;
    let file = here.directory.path().join("there");
    let command = Command::shell(format!("test -e {} && echo yes", file.display()));
    let (machine, timeout) = ("web".to_owned(), Some(10.0));
    let retry = Verb::Retry {
        machine: machine.clone(),
        command,
        until: Until::Success,
        purpose: None,
        timeout,
    };
    let path = file.display().to_string();
    let wait = Verb::WaitFile {
        machine: machine.clone(),
        path,
        timeout,
    };
    let mut other = here.client().await;
    let (retried, waited, ()) = tokio::join!(
        client.call::<Executed>(retry, |_| {}),
        other.ask(wait),
        async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            std::fs::write(&file, "text").unwrap();
        }
    );
    assert_eq!(retried.unwrap().stdout.to_text(), "yes\n");
    waited.unwrap();
    let late = Verb::WaitFile {
        machine: machine.clone(),
        path: "/no/such".into(),
        timeout: Some(0.1),
    };
    let ClientError::Fault(fault) = other.ask(late).await.unwrap_err() else {
        panic!()
    };
    assert_eq!(fault.kind, FaultKind::Test);
    assert_eq!(
        fault.message,
        "web: waiting for the file /no/such timed out after 0.1 s"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_command_gives_up_and_copies_want_absolute_paths() {
    let here = Here::new().await;
    let mut client = here.client().await;
    let machine = "web".to_owned();
    let file = here.directory.path().join("there");
    std::fs::write(&file, "text").unwrap();
    let command = Command::shell("echo no; exit 5");
    let never = Verb::Retry {
        machine: machine.clone(),
        command,
        until: Until::Success,
        purpose: None,
        timeout: Some(0.1),
    };
    let ClientError::Fault(fault) = client.ask(never).await.unwrap_err() else {
        panic!()
    };
    assert_eq!(fault.command.unwrap().stdout, "no\n");
    let target = here.directory.path().join("copied");
    let guest = target.display().to_string();
    client
        .ask(Verb::CopyIn {
            machine: machine.clone(),
            host: file,
            guest,
        })
        .await
        .unwrap();
    assert_eq!(std::fs::read(&target).unwrap(), b"text");
    let relative = Verb::CopyIn {
        machine,
        host: "file".into(),
        guest: "/tmp/x".into(),
    };
    let ClientError::Fault(fault) = client.ask(relative).await.unwrap_err() else {
        panic!()
    };
    assert_eq!(fault.kind, FaultKind::Usage);
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_in_the_log() {
    let here = Here::new().await;
    let mut client = here.client().await;
    client
        .call::<Executed>(execute("echo one; echo two >&2; exit 1"), |_| {})
        .await
        .unwrap();
    let mut seen = Vec::new();
    let events = Verb::Events {
        past: true,
        follow: false,
        machines: vec!["web".into()],
    };
    client
        .call::<Value>(events, |part| {
            if let Part::Event(event) = part {
                assert_eq!(event.machine.as_deref(), Some("web"));
                seen.push(event.what);
            }
        })
        .await
        .unwrap();
    assert!(
        matches!(&seen[0], What::CommandStarted { command, .. } if command.contains("echo one"))
    );
    assert!(matches!(
        seen.last(),
        Some(What::CommandFinished { status: 1, .. })
    ));
    let lines = seen
        .iter()
        .filter(|what| matches!(what, What::CommandOutput { .. }));
    assert_eq!(lines.count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn shells_carry_streams_and_terminals() {
    let here = Here::new().await;
    let command = Some(Command::shell("cat; echo err >&2; exit 7"));
    let mut shell = here
        .client()
        .await
        .shell("web", command, None)
        .await
        .unwrap();
    shell.writer.input(b"in").await.unwrap();
    shell.writer.input(b"").await.unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let exit = loop {
        match shell.reader.next().await.unwrap().unwrap() {
            Frame::Output(bytes) => out.extend(bytes),
            Frame::Error(bytes) => err.extend(bytes),
            last => break last,
        }
    };
    assert_eq!(
        (out.as_slice(), err.as_slice(), exit),
        (&b"in"[..], &b"err\n"[..], Frame::Exit(7))
    );
    let pty = Pty {
        rows: 10,
        cols: 33,
        term: "dumb".into(),
    };
    let command = Some(Command::shell("stty size; echo $TERM"));
    let mut shell = here
        .client()
        .await
        .shell("web", command, Some(pty))
        .await
        .unwrap();
    let mut out = Vec::new();
    while let Frame::Output(bytes) = shell.reader.next().await.unwrap().unwrap() {
        out.extend(bytes);
    }
    assert_eq!(String::from_utf8_lossy(&out), "10 33\r\ndumb\r\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_dies_ends_what_runs_in_it() {
    let here = Here::new().await;
    let mut client = here.client().await;
    let mut other = here.client().await;
    let mut log = here.hub.log.follow(true).unwrap();
    let crash = async {
        while let Some(event) = log.next().await.unwrap() {
            if matches!(event.what, What::CommandStarted { .. }) {
                break;
            }
        }
        other
            .ask(Verb::Crash {
                machine: "web".into(),
            })
            .await
            .unwrap();
    };
    let (ended, ()) = tokio::join!(client.call::<Executed>(execute("sleep 60"), |_| {}), crash);
    let ClientError::Fault(fault) = ended.unwrap_err() else {
        panic!()
    };
    assert_eq!(fault.kind, FaultKind::Machinery);
    assert_eq!(fault.message, "`sleep 60`: its agent was killed");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_session_ends_its_connections() {
    let here = Here::new().await;
    let mut client = here.client().await;
    let hub = here.hub.clone();
    let over = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        hub.over.cancel();
    };
    let (ended, ()) = tokio::join!(client.call::<Executed>(execute("sleep 60"), |_| {}), over);
    assert!(ended.is_err());
    assert_eq!(OnFailure::default(), OnFailure::Report);
}
