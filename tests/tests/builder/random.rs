//! A builder under a stream of builds, in which somebody is killed at random moments.

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
use crate::vm;

pub const CASES: &[Case] = &[
    Case {
        name: "random::whoever_is_killed_no_output_is_wrong_and_the_next_build_works",
        run: container,
    },
    Case {
        name: "random::the_same_with_a_vm",
        run: machine,
    },
];

/// Builders' names that no other test's process has in its command line.
const CONTAINER: &str = "unlucky";
/// The longest time between two kills, in milliseconds.
const BETWEEN: u64 = 1200;

/// An emulated VM may have to boot once, on a busy host.
const FIRST: Duration = Duration::from_secs(400);

/// A builder, and who of it is killed how often.
struct Victim<'a> {
    name: &'a str,
    options: &'a [&'a str],
    /// Words that its machine has in its command line.
    machine: String,
    kills: u32,
}

/// One build after another, each until it comes through. There is one slot, so one that is stuck would be
/// the end.
const STREAM: &str = r#"
machines @NAME@
sed -i 's/ - 8 1 / - 1 1 /' /etc/nix/machines
user() {
    HOME=/home/user timeout --signal KILL 240 \
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

fn container(rig: &Rig) -> Result<()> {
    let machine = format!("--machine={CONTAINER}");
    random(
        rig,
        &Victim {
            name: CONTAINER,
            options: &[],
            machine,
            kills: 10,
        },
    )
}

fn machine(rig: &Rig) -> Result<()> {
    let disk = rig.builders().join(vm::NAME).join("store.img");
    // Its snapshot is that of the other tests with this name and these options.
    random(
        rig,
        &Victim {
            name: vm::NAME,
            options: vm::OPTIONS,
            machine: disk.display().to_string(),
            kills: 20,
        },
    )
}

fn random(rig: &Rig, victim: &Victim<'_>) -> Result<()> {
    let seed = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    stream(rig, victim, seed).with_context(|| format!("with seed {seed}"))
}

fn stream(rig: &Rig, victim: &Victim<'_>, seed: u64) -> Result<()> {
    let name = victim.name;
    let mut random = Random(seed);
    rig.create(
        name,
        &[victim.options, &["--idle-timeout", "never"]].concat(),
    )?;
    // As an init system has it: the socket outlives the service.
    let socket = UnixListener::bind(rig.builders().join(name).join("socket"))?;
    let socket = OwnedFd::from(socket);
    let mut service = rig.serve_at(name, socket.try_clone()?)?;
    let client = rig.start_client(&STREAM.replace("@NAME@", name))?;
    client.until("built 1", FIRST)?;
    let mut killed = [0; 3];
    for _ in 0..victim.kills {
        std::thread::sleep(Duration::from_millis(random.below(BETWEEN)));
        match random.below(4) {
            0 => {
                killed[0] += 1;
                end(&mut service)?;
                service = rig.serve_at(name, socket.try_clone()?)?;
            }
            1 => killed[1] += one(&victim.machine)?,
            _ => killed[2] += one(&format!("machinist connect {name}"))?,
        }
    }
    fs::write(rig.file("stop"), "")?;
    let said = client.passes(Duration::from_secs(300));
    fs::remove_file(rig.file("stop"))?;
    let said = said?;
    let what = format!("of services, machines and clients {killed:?} were killed: {said}");
    ensure!(!said.contains("WRONG"), "{what}");
    ensure!(said.contains("the last one after"), "{what}");
    // Who kills all the time and hits nobody tests nothing.
    ensure!(killed.iter().sum::<usize>() > 5, "{what}");
    let free = wait_until(Duration::from_secs(60), || {
        (rig.status(name).ok()?["sessions"] == 0).then_some(())
    });
    free.context("a session is left")?;
    rig.end(name)?;
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
