//! A real shell of this host in the place of a guest's. The agent never finds its port here, so what
//! is tested is its way in, and the shell in its place.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what fails here fails the test"
)]

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Stdio};
use std::time::Duration;

use machinist_guest::shell::{Bring, Brought, Order, attend};
use machinist_guest::{AGENT, Address, Agent, Command, Exit, GuestError};
use rustix::pty::OpenptFlags;
use rustix::termios::OptionalActions;
use tokio::net::UnixStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::time::Instant;

const LONG: Duration = Duration::from_secs(60);

/// A shell on a terminal, as it is on a console.
struct Shell {
    child: Child,
    terminal: File,
    orders: UnboundedSender<Order>,
    brought: UnboundedReceiver<Brought>,
}

impl Drop for Shell {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A raw terminal: our end, and the shell's.
fn terminal() -> (File, File) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let ours = rustix::pty::openpt(flags).unwrap();
    rustix::pty::unlockpt(&ours).unwrap();
    let path = rustix::pty::ptsname(&ours, Vec::new()).unwrap();
    let options = File::options().read(true).write(true).to_owned();
    let theirs = options.open(path.to_str().unwrap()).unwrap();
    let mut raw = rustix::termios::tcgetattr(&theirs).unwrap();
    raw.make_raw();
    rustix::termios::tcsetattr(&theirs, OptionalActions::Now, &raw).unwrap();
    (File::from(ours), theirs)
}

/// Carries bytes, until either side ends.
fn carry(mut from: impl Read + Send + 'static, mut to: impl Write + Send + 'static) {
    std::thread::spawn(move || drop(std::io::copy(&mut from, &mut to)));
}

/// Starts `before`, and then `shell`.
fn shell(before: &str, shell: &str) -> Shell {
    let (ours, theirs) = terminal();
    let script = format!(
        "echo '[  1.0] noise'; {before} echo 'Spawning backdoor root shell...'; exec {shell} \"$(tty)\""
    );
    let child = std::process::Command::new("sh")
        .args(["-c", &script])
        .stdin(Stdio::from(theirs.try_clone().unwrap()))
        .stdout(Stdio::from(theirs.try_clone().unwrap()))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (host, console) = std::os::unix::net::UnixStream::pair().unwrap();
    carry(ours.try_clone().unwrap(), console.try_clone().unwrap());
    carry(console, ours);
    host.set_nonblocking(true).unwrap();
    let io = UnixStream::from_std(host).unwrap();
    let bring = Bring {
        agent: AGENT,
        port: "org.machinist.nowhere".to_owned(),
        shared: None,
    };
    let (orders, brought) = attend(io, bring);
    Shell {
        child,
        terminal: theirs,
        orders,
        brought,
    }
}

impl Shell {
    async fn plain(&mut self) -> Agent {
        let brought = tokio::time::timeout(LONG, self.brought.recv()).await;
        match brought.unwrap().unwrap() {
            Brought::Plain(channel, reason) => {
                assert!(reason.contains("no port"), "{reason}");
                let agent = Agent::connect(channel, LONG).await.unwrap();
                assert!(agent.info().plain);
                agent
            }
            Brought::Agent => panic!("an agent on this host?"),
        }
    }
}

fn shells() -> Vec<&'static str> {
    let there = |shell: &&str| {
        let program = shell.split(' ').next().unwrap_or_default();
        std::path::Path::new(program).exists()
    };
    let all = ["/bin/bash --norc", "/bin/dash", "/usr/bin/busybox sh"];
    all.into_iter().filter(there).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_in_every_shell() {
    for name in shells() {
        let mut shell = shell("", name);
        let agent = shell.plain().await;
        let output = agent
            .output(&Command::shell("echo out; echo err >&2; exit 3"))
            .await
            .unwrap();
        assert_eq!(output.stdout, b"out\n", "{name}");
        assert_eq!(output.stderr, b"err\n", "{name}");
        assert_eq!(output.exit, Exit::Code(3), "{name}");
        let words = ["printf", "%s|", "it's", "a  b", "", "$HOME", "\\n"];
        let output = agent.output(&Command::argv(words)).await.unwrap();
        assert_eq!(output.stdout, b"it's|a  b||$HOME|\\n|", "{name}");
        let bytes: Vec<u8> = (0..=255_u8).cycle().take(300_000).collect();
        let cat = Command::argv(["cat"]).stdin();
        let output = agent.output_with(&cat, &bytes).await.unwrap();
        assert!(output.stdout == bytes, "{name}: {}", output.stdout.len());
        let command = Command::shell("pwd; echo $A; yes | head -c 200000 | tail -c 2").dir("/usr");
        let output = agent.output(&command.env("A", "x y")).await.unwrap();
        assert_eq!(output.stdout, b"/usr\nx y\ny\n", "{name}");
        let missing = agent.output(&Command::argv(["/no/such"])).await.unwrap();
        assert!(matches!(missing.exit, Exit::Code(126 | 127)), "{name}");
    }
}

/// The shell of a machine that goes on from where it was saved says nothing, and need not be asked
/// for anything while the agent is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_shell_that_was_there_before() {
    let mut shell = shell(
        "exec 3>&1 1>/dev/null;",
        "/bin/sh -c 'exec 1>&3; exec sh \"$0\"'",
    );
    shell.orders.send(Order::Restored).unwrap();
    let early = tokio::time::timeout(Duration::from_millis(300), shell.brought.recv()).await;
    assert!(early.is_err(), "{early:?}");
    shell.orders.send(Order::Again).unwrap();
    let agent = shell.plain().await;
    let output = agent.output(&Command::shell("echo out")).await.unwrap();
    assert_eq!(output.stdout, b"out\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_at_a_time_and_a_limit() {
    let mut shell = shell("", "/bin/sh");
    let agent = shell.plain().await;
    let began = std::time::Instant::now();
    let slow = Command::shell("sleep 100; echo never").timeout(Duration::from_millis(300));
    let slow = agent.output(&slow);
    let quick = Command::shell("echo quick");
    let quick = async {
        let output = agent.output(&quick).await.unwrap();
        (output, began.elapsed())
    };
    let (slow, (quick, after)) = tokio::join!(slow, quick);
    assert_eq!(quick.stdout, b"quick\n");
    let slow = slow.unwrap();
    assert_eq!(slow.exit, Exit::TimedOut);
    assert!(began.elapsed() < LONG / 2 && after < LONG / 2);
    // What its owner has lost interest in is ended, too.
    let mark = format!("{}.5", 1000 + std::process::id());
    let process = agent.spawn(&Command::argv(["sleep", &mark])).await.unwrap();
    drop(process);
    let gone = format!("while grep -qs 's[l]eep.{mark}' /proc/[0-9]*/cmdline; do sleep 0.05; done");
    let command = Command::shell(gone).timeout(LONG);
    assert!(agent.output(&command).await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn noise_between_the_lines() {
    // It ends with the terminal.
    let noise = "(while sleep 0.003 && echo '[  9.1] usb 1-1: new device'; do :; done) & ";
    let mut shell = shell(noise, "/bin/sh");
    let agent = shell.plain().await;
    for _ in 0..20 {
        let command = Command::shell("head -c 20000 /dev/zero | tr '\\0' x");
        let output = agent.output(&command).await.unwrap();
        assert!(output.success() && output.stdout == [b'x'; 20_000]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn waits() {
    let mut shell = shell("", "/bin/sh");
    let agent = shell.plain().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("it's there");
    let soon = || Instant::now() + Duration::from_millis(200);
    let late = agent.wait_file(&path, soon()).await.unwrap_err();
    assert!(matches!(late, GuestError::TimedOut { .. }), "{late}");
    std::fs::write(&path, "").unwrap();
    let deadline = Instant::now() + LONG;
    agent.wait_file(&path, deadline).await.unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    agent
        .wait_port("localhost", port, true, deadline)
        .await
        .unwrap();
    drop(listener);
    agent
        .wait_port("localhost", port, false, deadline)
        .await
        .unwrap();
    let socket = dir.path().join("socket");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    agent.wait_socket(&socket, false, deadline).await.unwrap();
    drop(listener);
    assert!(agent.wait_socket(&socket, false, soon()).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn files_both_ways() {
    for name in shells() {
        let mut shell = shell("", name);
        let agent = shell.plain().await;
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("source");
        std::fs::create_dir_all(source.join("inner dir")).unwrap();
        let bytes: Vec<u8> = (0..=255_u8).cycle().take(200_001).collect();
        std::fs::write(source.join("inner dir/it's"), &bytes).unwrap();
        std::fs::write(source.join("empty"), "").unwrap();
        std::os::unix::fs::symlink("inner dir/it's", source.join("link")).unwrap();
        let mode = std::fs::Permissions::from_mode(0o640);
        std::fs::set_permissions(source.join("empty"), mode).unwrap();
        let inside = dir.path().join("guest/deep/copy");
        agent.copy_in(&source, &inside).await.unwrap();
        let back = dir.path().join("back");
        agent.copy_out(&inside, &back).await.unwrap();
        for root in [&inside, &back] {
            let read = std::fs::read(root.join("inner dir/it's")).unwrap();
            assert!(read == bytes, "{name}: {}", read.len());
            let meta = std::fs::metadata(root.join("empty")).unwrap();
            assert_eq!((meta.len(), meta.mode_bits()), (0, 0o640), "{name}");
            let link = std::fs::read_link(root.join("link")).unwrap();
            assert_eq!(link.to_str(), Some("inner dir/it's"), "{name}");
        }
        let file = dir.path().join("file");
        agent.copy_out(&inside.join("link"), &file).await.unwrap();
        assert!(std::fs::read(&file).unwrap() == bytes, "{name}");
        let missing = agent.copy_out(&inside.join("nothing"), &file).await;
        let text = missing.unwrap_err().to_string();
        assert!(text.contains("no such file"), "{name}: {text}");
        let nowhere = std::path::Path::new("/proc/nowhere/file");
        let refused = agent.copy_in(&file, nowhere).await.unwrap_err();
        assert!(refused.to_string().contains("mkdir"), "{name}: {refused}");
        assert!(
            agent
                .output(&Command::shell("true"))
                .await
                .unwrap()
                .success()
        );
    }
}

trait Mode {
    fn mode_bits(&self) -> u32;
}

impl Mode for std::fs::Metadata {
    fn mode_bits(&self) -> u32 {
        self.permissions().mode() & 0o7777
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_had_says_so() {
    let mut shell = shell("", "/bin/sh");
    let agent = shell.plain().await;
    let host = "localhost".to_owned();
    let refused = agent
        .open(Address::Tcp { host, port: 1 })
        .await
        .unwrap_err();
    assert_eq!(
        refused.to_string(),
        "a connection into the machine needs the agent, which cannot run in this machine"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_one_is_brought_when_one_is_gone() {
    let mut shell = shell("", "/bin/sh");
    let agent = shell.plain().await;
    drop(agent);
    shell.orders.send(Order::Again).unwrap();
    let agent = shell.plain().await;
    assert!(
        agent
            .output(&Command::shell("true"))
            .await
            .unwrap()
            .success()
    );
    // Another shell on the same console.
    let line = b"Spawning backdoor root shell...\n";
    shell.terminal.write_all(line).unwrap();
    agent.closed().await;
}
