//! Streams and waits by the real agent; and agents that die or lie.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use std::io::{Read, Write};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream as StdStream};
use std::time::Duration;

use common::Local;
use machinist_guest::{Address, Agent, ChannelError, Command, ConnectError, GuestError};
use machinist_wire::message::{Reply, encode};
use machinist_wire::{Endpoint, Event, Hello, Info, Lane, Role, VERSION};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, UnixStream};
use tokio::time::{Instant, sleep, timeout};

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

#[tokio::test]
async fn sockets_are_reached_and_each_direction_ends_alone() {
    let local = Local::start().await;
    let path = local.dir.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = tcp.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut text = Vec::new();
        stream.read_to_end(&mut text).unwrap();
        stream.write_all(&text).unwrap();
    });
    std::thread::spawn(move || {
        let (mut stream, _) = tcp.accept().unwrap();
        stream.write_all(&vec![5; 3_000_000]).unwrap();
    });
    let sent: Vec<u8> = (0..2_000_000_u32).map(|i| (i % 253) as u8).collect();
    let stream = local.agent.open_unix(&path).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    writer.write_all(&sent).await.unwrap();
    writer.shutdown().await.unwrap();
    let mut received = Vec::new();
    reader.read_to_end(&mut received).await.unwrap();
    assert!(received == sent);

    let host = "localhost".to_owned();
    let mut stream = local.agent.open(Address::Tcp { host, port }).await.unwrap();
    let mut received = Vec::new();
    stream.read_to_end(&mut received).await.unwrap();
    assert_eq!(received.len(), 3_000_000);

    let error = local.agent.open_unix("/no/such").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot connect to /no/such: No such file or directory (os error 2)"
    );
}

/// Acts in a moment, and says when it did.
fn after(act: impl FnOnce() + Send + 'static) -> std::thread::JoinHandle<Instant> {
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        let then = Instant::now();
        act();
        then
    })
}

/// What happens is seen at once: who looks once a second is later. Tests share their machine, so
/// once in some times will do.
async fn seen_at_once(name: &str, mut late: impl AsyncFnMut(usize) -> Duration) {
    let mut all = Vec::new();
    for time in 0..8 {
        all.push(late(time).await);
        if all[time] < Duration::from_millis(500) {
            return;
        }
    }
    panic!("{name}: {all:?}");
}

#[tokio::test]
async fn a_file_is_seen_when_it_appears() {
    let local = Local::start().await;
    let late = async |time| {
        let file = local.dir.path().join(format!("{time}/b/file"));
        let path = file.clone();
        let maker = after(move || {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        });
        local.agent.wait_file(&file, soon()).await.unwrap();
        maker.join().unwrap().elapsed()
    };
    seen_at_once("file", late).await;

    let deadline = Instant::now() + Duration::from_millis(50);
    let waited = local.agent.wait_file("/no/such".as_ref(), deadline).await;
    assert_eq!(
        waited.unwrap_err().to_string(),
        "timed out while waiting for the file /no/such"
    );
}

#[tokio::test]
async fn a_port_is_seen_when_it_opens_and_closes() {
    let local = Local::start().await;
    let late = async |_| {
        // Nobody else gets it, and nobody listens on it yet.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let port = socket.local_addr().unwrap().port();
        let (opened, when) = tokio::sync::oneshot::channel();
        let (close, closed) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            sleep(Duration::from_millis(300)).await;
            opened.send(Instant::now()).unwrap();
            let listener = socket.listen(8).unwrap();
            closed.await.unwrap();
            sleep(Duration::from_millis(300)).await;
            drop(listener);
        });
        let agent = &local.agent;
        let wait = async |open| agent.wait_port("localhost", port, open, soon()).await;
        wait(true).await.unwrap();
        let late = when.await.unwrap().elapsed();
        close.send(()).unwrap();
        wait(false).await.unwrap();
        late
    };
    seen_at_once("port", late).await;
}

#[tokio::test]
async fn a_socket_is_seen_when_it_listens() {
    let local = Local::start().await;
    for datagram in [false, true] {
        let late = async |time| {
            let socket = local.dir.path().join(format!("socket-{datagram}-{time}"));
            let path = socket.clone();
            let maker = after(move || {
                if datagram {
                    std::mem::forget(UnixDatagram::bind(path).unwrap());
                } else {
                    std::mem::forget(UnixListener::bind(path).unwrap());
                }
            });
            let waited = local.agent.wait_socket(&socket, datagram, soon()).await;
            waited.unwrap();
            maker.join().unwrap().elapsed()
        };
        seen_at_once("socket", late).await;
    }
}

#[tokio::test]
async fn a_killed_agent_is_told_to_everyone_at_once() {
    let mut local = Local::start().await;
    let agent = local.agent.clone();
    let waits = tokio::spawn(async move { agent.wait_file("/no/such".as_ref(), soon()).await });
    let agent = local.agent.clone();
    let runs = tokio::spawn(async move { agent.output(&Command::argv(["sleep", "100"])).await });
    let mut process = local
        .agent
        .spawn(&Command::argv(["sleep", "100"]))
        .await
        .unwrap();
    sleep(Duration::from_millis(50)).await;
    local.child.kill().unwrap();
    let limit = Duration::from_secs(50);
    let closed = |error: GuestError| matches!(error, GuestError::Channel(ChannelError::Closed));
    assert!(closed(
        timeout(limit, waits).await.unwrap().unwrap().unwrap_err()
    ));
    assert!(closed(
        timeout(limit, runs).await.unwrap().unwrap().unwrap_err()
    ));
    assert!(closed(
        timeout(limit, process.wait()).await.unwrap().unwrap_err()
    ));
    assert!(process.stdout.read(&mut [0]).await.is_err());
    assert!(process.stdin.write_all(b"x").await.is_err());
    assert!(closed(
        local
            .agent
            .output(&Command::argv(["true"]))
            .await
            .unwrap_err()
    ));
    timeout(limit, local.agent.closed()).await.unwrap();
}

/// The other end of a channel, in the hands of a liar. Gives the host's agent handle.
async fn liar(behave: impl FnOnce(StdStream, Endpoint) + Send + 'static) -> Agent {
    let (ours, theirs) = StdStream::pair().unwrap();
    std::thread::spawn(move || {
        let mut endpoint = Endpoint::new(Role::Agent);
        let mut stream = theirs;
        while !endpoint.established() {
            let mut buffer = [0; 4096];
            let count = stream.read(&mut buffer).unwrap();
            endpoint.receive(&buffer[..count]).unwrap();
        }
        let Some(Event::Hello(hello)) = endpoint.next_event() else {
            panic!("no hello");
        };
        endpoint.hello(&Hello {
            version: VERSION,
            nonce: hello.nonce,
            info: Some(Info::default()),
        });
        // Noise of a console comes before it.
        stream
            .write_all(b"[    0.1] booting\r\n\xff\xffmach")
            .unwrap();
        stream.write_all(endpoint.output()).unwrap();
        let count = endpoint.output().len();
        endpoint.written(count);
        behave(stream, endpoint);
    });
    ours.set_nonblocking(true).unwrap();
    let ours = UnixStream::from_std(ours).unwrap();
    Agent::connect(ours, LIMIT).await.unwrap()
}

/// Reads until the host has opened a stream.
fn opened(stream: &mut StdStream, endpoint: &mut Endpoint) -> u32 {
    loop {
        while let Some(event) = endpoint.next_event() {
            if let Event::Opened { stream, .. } = event {
                return stream;
            }
        }
        let mut buffer = [0; 4096];
        let count = stream.read(&mut buffer).unwrap();
        endpoint.receive(&buffer[..count]).unwrap();
    }
}

async fn run(agent: &Agent) -> GuestError {
    let command = Command::argv(["true"]);
    let result = timeout(LIMIT, agent.output(&command)).await;
    result.expect("a liar held up the host").unwrap_err()
}

#[tokio::test]
async fn a_machine_that_stands_still_does_not_hold_up_a_command_with_a_limit() {
    let agent = liar(|mut stream, mut endpoint| {
        opened(&mut stream, &mut endpoint);
        sleep_for_a_while();
    });
    let agent = agent.await;
    let command = Command::argv(["true"]).timeout(Duration::from_millis(10));
    let result = timeout(LIMIT, agent.output(&command)).await;
    let error = result.expect("a liar held up the host").unwrap_err();
    assert!(matches!(error, GuestError::TimedOut { .. }), "{error:?}");
}

#[tokio::test]
async fn nonsense_is_an_error() {
    // Garbage instead of frames.
    let agent = liar(|mut stream, mut endpoint| {
        opened(&mut stream, &mut endpoint);
        stream.write_all(&[0x77; 1000]).unwrap();
    });
    let error = run(&agent.await).await;
    assert!(
        matches!(error, GuestError::Channel(ChannelError::Protocol(_))),
        "{error:?}"
    );

    // A reply that is none, and one that belongs to another request.
    let agent = liar(|mut stream, mut endpoint| {
        let id = opened(&mut stream, &mut endpoint);
        endpoint.message(id, &[200; 10]);
        stream.write_all(endpoint.output()).unwrap();
    });
    assert!(matches!(run(&agent.await).await, GuestError::Channel(_)));
    let agent = liar(|mut stream, mut endpoint| {
        let id = opened(&mut stream, &mut endpoint);
        endpoint.message(id, &encode(&Reply::Done));
        stream.write_all(endpoint.output()).unwrap();
        sleep_for_a_while();
    });
    assert!(matches!(
        run(&agent.await).await,
        GuestError::Channel(ChannelError::Unexpected(_))
    ));
}

#[tokio::test]
async fn too_much_and_too_little_are_errors() {
    // A flood of replies.
    let agent = liar(|mut stream, mut endpoint| {
        let id = opened(&mut stream, &mut endpoint);
        for _ in 0..100 {
            endpoint.message(id, &encode(&Reply::Started { pid: 1 }));
        }
        stream.write_all(endpoint.output()).unwrap();
        sleep_for_a_while();
    });
    assert!(matches!(run(&agent.await).await, GuestError::Channel(_)));

    // A command that closes without a word.
    let agent = liar(|mut stream, mut endpoint| {
        let id = opened(&mut stream, &mut endpoint);
        endpoint.close(id);
        stream.write_all(endpoint.output()).unwrap();
        sleep_for_a_while();
    });
    assert!(matches!(run(&agent.await).await, GuestError::Channel(_)));

    // A stream that does not care for credit.
    let agent = liar(|mut stream, mut endpoint| {
        let id = opened(&mut stream, &mut endpoint);
        endpoint.message(id, &encode(&Reply::Started { pid: 1 }));
        while endpoint.send(id, Lane::Main, &[0; 1000]) > 0 {}
        endpoint.message(
            id,
            &encode(&Reply::Failed(machinist_wire::message::Failure {
                text: "x".into(),
                errno: 0,
            })),
        );
        stream.write_all(endpoint.output()).unwrap();
        let mut frame = 100_u32.to_le_bytes().to_vec();
        frame.extend(id.to_le_bytes());
        frame.extend([3, 0]);
        frame.extend([0; 100]);
        for _ in 0..10_000 {
            if stream.write_all(&frame).is_err() {
                return;
            }
        }
        sleep_for_a_while();
    })
    .await;
    run(&agent).await;
    let reason = timeout(LIMIT, agent.closed()).await.unwrap();
    assert!(matches!(reason, ChannelError::Protocol(_)), "{reason:?}");
}

/// A liar that does not hang up.
fn sleep_for_a_while() {
    // No test waits for it.
    std::thread::sleep(LIMIT * 2);
}

/// How long a liar may hold up the host, on a busy one.
const LIMIT: Duration = Duration::from_secs(50);

#[tokio::test]
async fn nobody_there_is_a_timeout_and_another_version_is_said() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let error = Agent::connect(ours, Duration::from_millis(100))
        .await
        .unwrap_err();
    assert!(matches!(error, ConnectError::TimedOut { .. }));
    drop(theirs);

    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let mut endpoint = Endpoint::new(Role::Agent);
    endpoint.hello(&Hello {
        version: VERSION + 1,
        nonce: 0,
        info: None,
    });
    theirs.write_all(endpoint.output()).await.unwrap();
    let error = Agent::connect(ours, LIMIT).await.unwrap_err();
    let ConnectError::Channel(ChannelError::Protocol(error)) = error else {
        panic!("{error:?}");
    };
    assert_eq!(
        error.to_string(),
        "protocol version 2 at the other end, 1 here"
    );
}

/// In the place of a minute.
const PATIENCE: Duration = Duration::from_millis(300);

fn signal(local: &Local, signal: Signal) {
    kill_process(Pid::from_child(&local.child), signal).unwrap();
}

#[tokio::test]
async fn who_waits_for_one_that_stands_still_is_told() {
    let local = Local::with_patience(PATIENCE).await;
    let process = local.agent.spawn(&Command::shell("sleep 60")).await;
    let process = process.unwrap();
    signal(&local, Signal::STOP);
    let begun = Instant::now();
    let error = process.output(&[]).await.unwrap_err();
    assert!(begun.elapsed() >= 2 * PATIENCE, "{:?}", begun.elapsed());
    assert!(begun.elapsed() < 100 * PATIENCE, "{:?}", begun.elapsed());
    let said = error.to_string();
    assert!(said.contains("has not answered for 0.3 s"), "{said}");
    let is_silent =
        |error: &GuestError| matches!(error, GuestError::Channel(ChannelError::Silent { .. }));
    assert!(is_silent(&error));
    // It is over for everybody, at once.
    let error = local.agent.output(&Command::shell("true")).await;
    assert!(is_silent(&error.unwrap_err()));
}

#[tokio::test]
async fn one_that_has_nothing_to_say_is_left_alone() {
    let local = Local::with_patience(PATIENCE).await;
    let quiet = Command::shell("sleep 2; echo done");
    let output = local.agent.output(&quiet).await.unwrap();
    assert_eq!(output.stdout, b"done\n");
    // Nor is one of which nobody wants anything asked for signs of life.
    signal(&local, Signal::STOP);
    sleep(5 * PATIENCE).await;
    signal(&local, Signal::CONT);
    local.agent.output(&Command::shell("true")).await.unwrap();
}

#[tokio::test]
async fn one_that_was_made_to_stand_still_may_do_so() {
    let local = Local::with_patience(PATIENCE).await;
    let command = Command::shell("sleep 1; echo done");
    let process = local.agent.spawn(&command).await.unwrap();
    local.agent.set_standing(true);
    signal(&local, Signal::STOP);
    sleep(6 * PATIENCE).await;
    assert!(local.agent.reason().is_none());
    signal(&local, Signal::CONT);
    local.agent.set_standing(false);
    assert_eq!(process.output(&[]).await.unwrap().stdout, b"done\n");
}
