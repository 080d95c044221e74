//! Ways into machines, and standing still.

use std::os::unix::net::UnixListener;
use std::time::Duration;

use machinist_events::What;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::Here;
use crate::ClientError;
use crate::protocol::{
    Description, Fault, FaultKind, Forwarded, ScriptKind, ScriptReport, Status, Verb,
};

/// A socket of "the machine" that answers every client with its own words.
fn echo(here: &Here) -> String {
    let path = here.directory.path().join("echo");
    let listener = UnixListener::bind(&path).unwrap();
    // It ends with the process.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut back = stream.try_clone().unwrap();
            std::thread::spawn(move || std::io::copy(&mut stream, &mut back));
        }
    });
    path.display().to_string()
}

async fn speaks(stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin)) {
    let word = vec![b'x'; 300_000];
    let mut heard = vec![0; word.len()];
    let (mut reader, mut writer) = tokio::io::split(stream);
    let spoken = async { tokio::join!(writer.write_all(&word), reader.read_exact(&mut heard)) };
    let (said, read) = tokio::time::timeout(Duration::from_secs(60), spoken)
        .await
        .unwrap();
    said.unwrap();
    read.unwrap();
    assert_eq!(heard, word);
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_of_machines_are_reached_from_here() {
    let here = Here::new().await;
    let inside = echo(&here);
    let mut client = here.client().await;
    let mut forward = async |host_socket, guest_socket, guest_port| {
        let verb = Verb::Forward {
            machine: "web".into(),
            host_port: 0,
            host_socket,
            guest_port,
            guest_socket,
        };
        client.call::<Forwarded>(verb, |_| {}).await
    };
    let port = forward(None, Some(inside.clone()), None).await.unwrap();
    speaks(&mut TcpStream::connect(&port.address).await.unwrap()).await;
    speaks(&mut TcpStream::connect(&port.address).await.unwrap()).await;
    let path = here.directory.path().join("forwarded");
    let socket = forward(Some(path.clone()), Some(inside.clone()), None);
    assert_eq!(socket.await.unwrap().address, path.display().to_string());
    speaks(&mut UnixStream::connect(&path).await.unwrap()).await;
    let left = path.clone();
    for (host, socket, port) in [
        (None, None, None),
        (None, Some(inside.clone()), Some(80)),
        (Some("relative".into()), Some(inside), None),
        (Some(path), None, Some(80)),
    ] {
        let refused = forward(host, socket, port).await.unwrap_err();
        assert!(
            matches!(&refused, ClientError::Fault(fault) if fault.kind == FaultKind::Usage),
            "{refused}"
        );
    }
    // The session's end takes it away.
    here.hub.over.cancel();
    let gone = async {
        while left.exists() {
            tokio::task::yield_now().await
        }
    };
    tokio::time::timeout(Duration::from_secs(60), gone)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_becomes_one_into_a_machine() {
    let here = Here::new().await;
    let dial = |guest_socket| Verb::Dial {
        machine: "web".into(),
        guest_port: None,
        guest_socket: Some(guest_socket),
    };
    let (mut reader, mut writer) = here.client().await.dial(dial(echo(&here))).await.unwrap();
    writer.write_all(b"hello").await.unwrap();
    // Its own end does not end what comes back.
    writer.shutdown().await.unwrap();
    let mut heard = String::new();
    reader.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "hello");
    let refused = here.client().await.dial(dial("/no/such".into())).await;
    assert!(matches!(
        refused,
        Err(ClientError::Fault(Fault {
            kind: FaultKind::Test,
            ..
        }))
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breakpoint_stands_still_until_somebody_goes_on() {
    let here = Here::new().await;
    let (mut script, mut other) = (here.client().await, here.client().await);
    std::fs::write(here.directory.path().join("python.sock"), "").unwrap();
    let mut log = here.hub.log.follow(true).unwrap();
    let failure = ScriptReport {
        exception: "AssertionError".into(),
        message: "no".into(),
        frames: Vec::new(),
        machinery: false,
        traceback: None,
        command: None,
    };
    let breakpoint = script.ask(Verb::Breakpoint {
        failure: Some(Box::new(failure)),
    });
    let go_on = async {
        let event = log.next().await.unwrap().unwrap();
        let What::TestPaused {
            failure,
            python,
            go_on,
            ..
        } = event.what
        else {
            panic!("{event:?}");
        };
        assert_eq!(failure.unwrap().message, "no");
        assert!(python.unwrap().ends_with(" abcdefgh --python"));
        assert!(go_on.ends_with(" abcdefgh --continue"));
        let status: Status = other.call(Verb::Status, |_| {}).await.unwrap();
        assert!(status.paused && status.python);
        other.ask(Verb::Continue).await.unwrap();
        other.ask(Verb::Continue).await.unwrap_err();
    };
    let (ended, ()) = tokio::join!(breakpoint, go_on);
    ended.unwrap();
    let event = log.next().await.unwrap().unwrap();
    assert_eq!(event.what, What::TestResumed);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_machine_does_not_have_is_told() {
    let here = Here::new().await;
    let mut client = here.client().await;
    let machine = || "web".to_owned();
    let verb = Verb::Describe { machine: machine() };
    let described: Description = client.call(verb, |_| {}).await.unwrap();
    assert!(described.booted && described.connected);
    assert_eq!((&*described.kind, described.pid), ("container", None));
    for (verb, wanted) in [
        (
            Verb::Monitor {
                machine: machine(),
                command: "info status".into(),
            },
            "a container of this session has no monitor",
        ),
        (
            Verb::Qmp {
                machine: machine(),
                execute: "query-status".into(),
                arguments: json!(null),
            },
            "has no QEMU",
        ),
        (
            Verb::Screenshot {
                machine: machine(),
                host: "/tmp/x.png".into(),
            },
            "has no screen",
        ),
        (
            Verb::AddMachine {
                command: "/x/run-new-vm".into(),
                name: None,
                keep_state: false,
                kind: ScriptKind::Vm,
            },
            "none can be added",
        ),
        (
            Verb::Link {
                machine: None,
                vlan: Some(7),
                up: false,
            },
            "there is no VLAN 7",
        ),
    ] {
        let refused = client.ask(verb).await.unwrap_err().to_string();
        assert!(refused.contains(wanted), "{refused}");
    }
}
