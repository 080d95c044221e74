//! Shells that wait for commands, by the real agent on this machine: what runs there cannot tell.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use common::Local;
use machinist_guest::{Command, Exit, Output};
use tokio::io::AsyncReadExt;

/// Scripts that a waiting shell takes. Each leaves nothing behind.
const TAKEN: &[&str] = &[
    "true",
    "false",
    ":",
    "echo out; echo err >&2; exit 3",
    "exit 255",
    "false; echo not here",
    "false || echo here",
    "false | true",
    "! true",
    "echo $undefined; echo after",
    "echo \"a  $HOME\" a  b 'c  d' \\$x \\\\",
    "x='a  b'; echo $x \"$x\" ${x}; echo $?",
    "x=$(false); echo $x",
    "echo $(echo a; false; echo b) $?",
    "echo $((6 * 7)) | grep 42",
    "echo $((1 / 0)); echo after",
    "echo $((6 *)); echo after",
    "echo $(( (1 + 2) * 3 << 2 ))",
    "env | sort",
    "A=1 B=$HOME env | sort | grep -e ^A -e ^B",
    "echo one > /dev/null; echo two 2>&1; echo three >&2 2>/dev/null",
    "cat < /etc/passwd | head -1",
    "cat /etc/passwd | grep -c root; cat /nowhere | wc -l",
    "echo hi > /nowhere/x; echo after",
    "echo x < /nowhere; echo after",
    "test -e /etc/passwd",
    "[ -d /nowhere ]",
    "[ 1 -eq a ]",
    "[ 1 = 1",
    "[ -t 0 ] || [ -t 1 ] || echo none",
    "[ -p /dev/stdout ] && [ -p /dev/stderr ] && echo pipes",
    "[ -o monitor ] || [ -o errexit ] && echo strict",
    "cd /nowhere; echo after",
    "cd /usr && pwd && echo $PWD $OLDPWD",
    "cd -",
    "pwd; echo $PWD",
    "printf '%s\\n' a 'b c'; printf %d x",
    "no-such-program; echo after",
    "no-such-program | cat",
    "no-such-program\nno-such-program\n\nno-such-program | cat",
    "/etc/passwd; echo after",
    "/etc; echo after",
    "umask | cat",
    "ls -d /etc /us? ~ {a,b} | cat",
    "echo * | wc -w",
    "seq 1 100000 | tail -1",
    "yes | head -3",
    "seq 1 100000; echo end",
    "cat; echo the input has ended",
    "sh -c 'kill -9 $PPID' | cat",
    "sh -c 'exit 200' || echo $?",
    "sh -c 'trap | cat; ulimit -a' | cat",
    "python3 -c 'import os,signal; print(os.getsid(0) != os.getpid(), [signal.getsignal(n) for n in range(1, 32)])' | cat",
    "python3 -c 'import os; print([n for n in range(100) if os.path.exists(\"/dev/fd/\" + str(n))])' | cat",
    "python3 -c 'import signal; print(signal.pthread_sigmask(0, []))' | cat",
    "echo $0 $# | cat",
    "echo $BASH_SUBSHELL | cat",
    "echo a; echo b; \n\n echo c ;",
    "PATH=/nowhere; ls; echo $PATH",
    "IFS=:; x=a:b; echo $x",
    "HOME=/nowhere; cd; echo after",
    "echo a\techo b",
];

/// Scripts that get a shell of their own: what they find would not be the same.
const LEFT: &[&str] = &[
    "[ $$ = $BASHPID ] && echo same",
    "echo $BASH_EXECUTION_STRING",
    "echo $BASH_SUBSHELL $SECONDS $LINENO $SHLVL",
    "echo a\nfi",
    "echo 'a",
    "echo $(echo a",
    "echo )",
    "sh -c 'kill -9 $$'",
    "kill -9 $$",
    "trap 'echo bye' EXIT; echo hello",
    "set -x; echo a",
    "exec sh -c 'echo $0'",
    "exec 5>&1; echo a >&5",
    "(echo a; exit 4)",
    "if true; then echo a; fi; for i in 1 2; do echo $i; done",
    "sleep 0.01 & wait $!; echo $?",
    "readlink /proc/self/fd/0 | cat",
    "tr '\\0' ' ' < /proc/$$/cmdline | cat",
    "declare -p | grep -c '^declare -- n='; true",
    "set | grep ^n=; true",
    "echo $_",
    "printf '%(%s)T' -2 | grep -c .",
    "echo \u{e9} | wc -c",
    "a=(1 2); echo ${a[1]} ${#a[@]}",
    "f() { echo f $1; }; f a",
    "cat <<E\nx\nE",
    "alias; shopt | sort | cat",
];

fn command(script: &str, strict: bool) -> Command {
    let command = match strict {
        true => Command::shell(script),
        false => Command::plain_shell(script),
    };
    command.dir("/tmp").linger()
}

/// The same, but for a variable that keeps it from a waiting shell.
fn cold(script: &str, strict: bool) -> Command {
    command(script, strict).env("LOGNAME", "root")
}

async fn seen(local: &Local, command: &Command) -> (Exit, String, String) {
    let Output {
        exit,
        stdout,
        stderr,
        ..
    } = local.agent.output(command).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (exit, text(stdout), text(stderr))
}

/// Has shells wait in `/tmp`. From then on what they take they get.
async fn warm_up(local: &Local) {
    for _ in 0..3 {
        local.agent.output(&command("true", true)).await.unwrap();
    }
    assert_eq!(shells(local).len(), 1);
}

/// The process ids of the agent's shells that wait, or that run something.
fn shells(local: &Local) -> BTreeSet<u32> {
    let agent = local.child.id();
    let children = std::fs::read_to_string(format!("/proc/{agent}/task/{agent}/children")).unwrap();
    let waits = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains("set -m;while")
    };
    let children = children.split_whitespace().map(|pid| pid.parse().unwrap());
    children.filter(waits).collect()
}

/// Whether a command with this process id is the child of a waiting shell.
async fn was_warm(local: &Local, script: &str) -> bool {
    let shells = shells(local);
    let process = local.agent.spawn(&command(script, false)).await.unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.pid())).unwrap();
    let parent = stat.rsplit(") ").next().unwrap().split(' ').nth(1).unwrap();
    shells.contains(&parent.parse().unwrap())
}

#[tokio::test]
async fn a_script_cannot_tell() {
    let local = Local::start().await;
    warm_up(&local).await;
    let shell = shells(&local);
    for (scripts, taken) in [(TAKEN, true), (LEFT, false)] {
        for script in scripts {
            for strict in [true, false] {
                let warm = seen(&local, &command(script, strict)).await;
                let cold = seen(&local, &cold(script, strict)).await;
                let numbers =
                    |(exit, out, err): (Exit, String, String)| (exit, out, without_pids(&err));
                assert_eq!(
                    numbers(warm),
                    numbers(cold),
                    "{script:?}, {taken}, {strict}"
                );
            }
        }
    }
    assert_eq!(shells(&local), shell, "one shell ran all");
}

/// bash tells which of its processes was killed.
fn without_pids(text: &str) -> String {
    let words = text.split_inclusive(|it: char| !it.is_ascii_digit());
    let short = words.map(
        |word| match word.len() > 3 && word.as_bytes()[0].is_ascii_digit() {
            true => "N",
            false => word,
        },
    );
    short.collect()
}

#[tokio::test]
async fn what_waits_takes_what_it_can_and_no_more() {
    let local = Local::start().await;
    warm_up(&local).await;
    assert!(was_warm(&local, "sleep 100; true").await);
    // That one was killed, and its shell with it.
    warm_up(&local).await;
    assert!(!was_warm(&local, "sleep 100").await);
    assert!(!was_warm(&local, "sleep 100; echo $$").await);
    assert!(was_warm(&local, "sleep 100 | cat").await);
}

#[tokio::test]
async fn nothing_goes_from_one_command_to_the_next() {
    let local = Local::start().await;
    warm_up(&local).await;
    let shell = shells(&local);
    for script in [
        "x=1; n=5; PATH=/nowhere; HOME=/; IFS=a; cd /usr; true",
        "OLDPWD=/; PWD=/x; LC_ALL=C; true",
        "exit 9",
    ] {
        local.agent.output(&command(script, false)).await.unwrap();
        let script = "echo ${x}-${n}-$PATH-$PWD-$HOME; env | sort | md5sum; echo \"$IFS\" | od -c";
        let warm = seen(&local, &command(script, false)).await;
        assert_eq!(warm, seen(&local, &cold(script, false)).await);
    }
    assert_eq!(shells(&local), shell);
}

#[tokio::test]
async fn a_timeout_ends_the_group_and_not_the_shell() {
    let local = Local::start().await;
    warm_up(&local).await;
    let shell = shells(&local);
    let script = "echo begun; sleep 100 | cat; echo ended";
    let slow = command(script, true).timeout(Duration::from_millis(200));
    let began = Instant::now();
    let (exit, stdout, _) = seen(&local, &slow).await;
    assert_eq!((exit, stdout.as_str()), (Exit::TimedOut, "begun\n"));
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(seen(&local, &command("echo on", true)).await.1, "on\n");
    assert_eq!(shells(&local), shell);
}

#[tokio::test]
async fn a_signal_is_told_as_one_and_a_stop_is_no_end() {
    let local = Local::start().await;
    warm_up(&local).await;
    let shell = shells(&local);
    for signal in [2, 9, 10, 15] {
        let slow = command("echo begun; sleep 100; true", true);
        let mut process = local.agent.spawn(&slow).await.unwrap();
        let mut buffer = [0; 6];
        process.stdout.read_exact(&mut buffer).await.unwrap();
        process.signal(19);
        process.signal(18);
        process.signal(signal);
        assert_eq!(process.wait().await.unwrap(), Exit::Signal(signal));
    }
    let mut process = local
        .agent
        .spawn(&command("echo begun; sleep 0.3; true", true))
        .await
        .unwrap();
    let mut buffer = [0; 6];
    process.stdout.read_exact(&mut buffer).await.unwrap();
    process.signal(19);
    let stopped = tokio::time::timeout(Duration::from_millis(600), process.wait()).await;
    assert!(stopped.is_err(), "it has not ended");
    process.signal(18);
    // A bash may tell the stop as its status; that it has ended only now is what counts.
    let ended = process.wait().await.unwrap();
    assert!(matches!(ended, Exit::Code(0 | 147)), "{ended:?}");
    assert_eq!(shells(&local), shell);
}

#[tokio::test]
async fn side_by_side_each_has_a_shell() {
    let local = Local::start().await;
    warm_up(&local).await;
    let mut processes = Vec::new();
    for number in 0..8 {
        let script = format!("sleep 0.2; echo {number}; exit {number}");
        processes.push(local.agent.spawn(&command(&script, true)).await.unwrap());
    }
    for (number, mut process) in processes.into_iter().enumerate() {
        let mut text = String::new();
        process.stdout.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, format!("{number}\n"));
        assert_eq!(
            process.wait().await.unwrap(),
            Exit::Code(number.try_into().unwrap())
        );
    }
    assert!(shells(&local).len() <= 3, "{:?}", shells(&local));
}

#[tokio::test]
async fn a_shell_that_dies_is_not_missed() {
    let local = Local::start().await;
    warm_up(&local).await;
    for shell in shells(&local) {
        rustix::process::kill_process(
            rustix::process::Pid::from_raw(shell.cast_signed()).unwrap(),
            rustix::process::Signal::KILL,
        )
        .unwrap();
        reaped(shell).await;
    }
    for _ in 0..3 {
        let (exit, stdout, _) = seen(&local, &command("echo here", true)).await;
        assert_eq!((exit, stdout.as_str()), (Exit::Code(0), "here\n"));
    }
    assert_eq!(shells(&local).len(), 1);
}

#[tokio::test]
async fn output_in_the_background_is_waited_for() {
    let local = Local::start().await;
    warm_up(&local).await;
    let script =
        "echo a; sh -c 'sleep 0.3; echo b' | cat; setsid -f sh -c 'sleep 0.3; echo c'; true";
    let warm = seen(&local, &command(script, true)).await;
    assert_eq!(warm.1, "a\nb\nc\n");
}

#[tokio::test]
async fn a_directory_is_the_one_that_is_there_now() {
    let local = Local::start().await;
    let place = local.dir.path().join("place");
    let run = |script: &'static str| {
        let place = place.to_str().unwrap().to_owned();
        let local = &local;
        async move {
            let command = Command::shell(script).dir(place);
            local.agent.output(&command).await
        }
    };
    std::fs::create_dir(&place).unwrap();
    for _ in 0..3 {
        assert!(run("echo a > file; test -e file").await.unwrap().success());
    }
    assert_eq!(shells(&local).len(), 1);
    std::fs::remove_dir_all(&place).unwrap();
    let gone = run("echo a > file").await.unwrap_err();
    assert!(gone.to_string().starts_with("cannot enter"), "{gone}");
    std::fs::create_dir(&place).unwrap();
    for _ in 0..3 {
        assert!(run("echo a > file; test -e file").await.unwrap().success());
        assert!(place.join("file").exists());
        std::fs::remove_file(place.join("file")).unwrap();
    }
}

#[tokio::test]
async fn they_end_with_the_agent() {
    let mut local = Local::start().await;
    warm_up(&local).await;
    let pids = shells(&local);
    local.child.kill().unwrap();
    local.child.wait().unwrap();
    for pid in pids {
        gone(pid).await;
    }
}

async fn gone(pid: u32) {
    let stat = || std::fs::read_to_string(format!("/proc/{pid}/stat"));
    never(|| stat().is_ok_and(|stat| !stat.contains(") Z "))).await;
}

/// Not even a zombie is left: a system that goes off waits for those, too.
async fn reaped(pid: u32) {
    never(|| std::fs::exists(format!("/proc/{pid}")).unwrap()).await;
}

/// Waits for the end of something, for less time than a shell may wait for a command.
async fn never(is_there: impl Fn() -> bool) {
    let began = Instant::now();
    while is_there() {
        assert!(began.elapsed() < Duration::from_secs(30));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
