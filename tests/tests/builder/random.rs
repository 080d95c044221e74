//! A builder under a stream of builds, in which somebody is killed at twenty random moments.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::process::Child;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use machinist_tests::wait_until;
use rustix::process::Signal;

use crate::Case;
use crate::killed::{kill, pids};
use crate::rig::Rig;

pub const CASES: &[Case] = &[Case {
    name: "random::whoever_is_killed_no_output_is_wrong_and_the_next_build_works",
    run,
}];

const KILLS: u32 = 20;
/// The longest time between two of them, in milliseconds.
const BETWEEN: u64 = 2000;
/// A builder's name that no other test's process has in its command line.
const NAME: &str = "unlucky";

/// One build after another, each until it comes through. There is one slot, so one that is stuck would be
/// the end.
const STREAM: &str = r#"
machines unlucky
sed -i 's/ - 8 1 / - 1 1 /' /etc/nix/machines
user() {
    HOME=/home/user timeout --signal KILL 120 \
        setpriv --reuid 1000 --regid 1000 --clear-groups env NIX_REMOTE=daemon "$@"
}
right() { [ "$(cat $2)" = "output $1" ] || echo "WRONG: $1: $(cat $2)"; }
n=0
failed=0
while [ ! -e /rig/stop ]; do
    n=$((n + 1))
    derive number-$n "pause 0.2; echo output $n > \$out" ''
    while [ ! -e /rig/stop ]; do
        status=0
        path=$(build number-$n.nix 2> log) || status=$?
        case $status in
            0) right $n $path; echo "built $n"; break ;;
            137) echo "STUCK: $n: $(cat log)"; exit 1 ;;
            *) failed=$((failed + 1)) ;;
        esac
    done
done
derive last 'echo output last > $out' ''
right last $(build last.nix)
echo "the last one after $failed failures"
"#;

fn run(rig: &Rig) -> Result<()> {
    let seed = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    stream(rig, seed).with_context(|| format!("with seed {seed}"))
}

fn stream(rig: &Rig, seed: u64) -> Result<()> {
    let mut random = Random(seed);
    rig.create(NAME, &["--idle-timeout", "never"])?;
    // As an init system has it: the socket outlives the service.
    let socket = UnixListener::bind(rig.builders().join(NAME).join("socket"))?;
    let socket = OwnedFd::from(socket);
    let mut service = rig.serve_at(NAME, socket.try_clone()?)?;
    let client = rig.start_client(STREAM)?;
    client.until("built 1", Duration::from_secs(120))?;
    let mut killed = [0; 3];
    for _ in 0..KILLS {
        std::thread::sleep(Duration::from_millis(random.below(BETWEEN)));
        match random.below(4) {
            0 => {
                killed[0] += 1;
                end(&mut service)?;
                service = rig.serve_at(NAME, socket.try_clone()?)?;
            }
            1 => killed[1] += one(&format!("--machine={NAME}"))?,
            _ => killed[2] += one(&format!("machinist connect {NAME}"))?,
        }
    }
    fs::write(rig.file("stop"), "")?;
    let said = client.passes(Duration::from_secs(300));
    fs::remove_file(rig.file("stop"))?;
    let said = said?;
    let what = format!("of services, containers and clients {killed:?} were killed: {said}");
    ensure!(!said.contains("WRONG"), "{what}");
    ensure!(said.contains("the last one after"), "{what}");
    // Who kills all the time and hits nobody tests nothing.
    ensure!(killed.iter().sum::<usize>() > 10, "{what}");
    let free = wait_until(Duration::from_secs(10), || {
        (rig.status(NAME).ok()?["sessions"] == 0).then_some(())
    });
    free.context("a session is left")?;
    rig.end(NAME)?;
    service.wait()?;
    Ok(())
}

fn end(service: &mut Child) -> Result<()> {
    service.kill()?;
    service.wait()?;
    Ok(())
}

/// Kills the process whose command line has these words, as soon as there is one.
fn one(words: &str) -> Result<usize> {
    let found = wait_until(Duration::from_secs(5), || pids(words).first().copied());
    let Some(pid) = found else {
        return Ok(0);
    };
    Ok(usize::from(kill(pid, Signal::KILL)?))
}

/// Numbers that nobody expects, the same for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        // Knuth's MMIX generator; its upper bits are the good ones.
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}
