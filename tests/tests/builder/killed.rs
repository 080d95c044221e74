//! Who is killed in the midst of a build, and what becomes of the next one.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use machinist_tests::wait_until;
use rustix::process::{Pid, Signal, kill_process};

use crate::Case;
use crate::builds::LetGo;
use crate::rig::Rig;

pub const CASES: &[Case] = &[
    Case {
        name: "killed::a_cancelled_build_dies_in_the_builder",
        run: cancel,
    },
    Case {
        name: "killed::connect",
        run: connect,
    },
    Case {
        name: "killed::the_service",
        run: service,
    },
    Case {
        name: "killed::one_of_three_and_one_is_full",
        run: three,
    },
];

/// How long something may take on a host with much else to do, for which there is no other limit.
const LIMIT: Duration = Duration::from_secs(120);

/// A build that never ends by itself, and one that does.
const BUILDS: &str = r#"
machines b
derive endless 'echo begun; : the-endless-one; while :; do pause 1; done' ''
derive short 'echo > $out' ''
"#;

/// How many processes of the endless build there are in the builder, a container, as the host sees
/// it: that takes no time. What defines the build is the client.
fn alive() -> usize {
    let all = machinist_tests::processes();
    let words = all.iter().map(|process| &process.command);
    words
        .filter(|it| it.contains("the-endless-one") && !it.contains("derive endless"))
        .count()
}

fn dies(rig: &Rig) -> Result<()> {
    let began = Instant::now();
    let died = wait_until(LIMIT, || (alive() == 0).then_some(()));
    ensure!(died.is_some(), "the build lives on");
    let took = began.elapsed();
    ensure!(
        took < Duration::from_secs(20),
        "the build died after {took:?}"
    );
    // The client may be at its next build already, which ends.
    let mut seen = serde_json::Value::Null;
    let free = wait_until(LIMIT, || {
        seen = rig.status("b").ok()?;
        (seen["machine"] == "up" && seen["sessions"] == 0).then_some(())
    });
    free.with_context(|| format!("a session is left: {seen}"))
}

fn cancel(rig: &Rig) -> Result<()> {
    rig.create("b", &[])?;
    rig.builder(&["start", "b"]).run()?.exits(0)?;
    let script = format!(
        "{BUILDS}
build endless.nix &
until [ -e /rig/go ]; do sleep 0.05; done
kill -INT $(pgrep --uid 1000 '^nix$')
wait %2 || true
touch /rig/gone
build short.nix
rm /rig/go /rig/gone
"
    );
    let client = rig.start_client(&script)?;
    client.until("endless> begun", LIMIT)?;
    ensure!(alive() > 0);
    fs::write(rig.file("go"), "")?;
    let gone = || rig.file("gone").exists().then_some(());
    wait_until(LIMIT, gone).context("it was not cancelled")?;
    dies(rig)?;
    client.passes(LIMIT)?;
    rig.end("b")
}

/// Kills a process, and says whether it was still there.
pub fn kill(pid: Pid, signal: Signal) -> Result<bool> {
    match kill_process(pid, signal) {
        Err(rustix::io::Errno::SRCH) => Ok(false),
        killed => Ok(killed.map(|()| true)?),
    }
}

/// The processes whose command line has these words.
pub fn pids(words: &str) -> Vec<Pid> {
    let all = machinist_tests::processes();
    let found = all.iter().filter(|process| process.command.contains(words));
    found
        .filter_map(|process| Pid::from_raw(i32::try_from(process.pid).ok()?))
        .collect()
}

fn connect(rig: &Rig) -> Result<()> {
    rig.create("b", &[])?;
    rig.builder(&["start", "b"]).run()?.exits(0)?;
    let script = format!("{BUILDS}\nbuild endless.nix && exit 1\nbuild short.nix\n");
    let client = rig.start_client(&script)?;
    client.until("endless> begun", LIMIT)?;
    ensure!(alive() > 0);
    let all = pids("machinist connect b");
    ensure!(all.len() == 1, "{all:?}");
    for pid in all {
        kill_process(pid, Signal::KILL)?;
    }
    dies(rig)?;
    client.passes(LIMIT)?;
    rig.end("b")
}

/// Its machine dies with it, the build fails, and the next build starts another service.
fn service(rig: &Rig) -> Result<()> {
    rig.create("b", &[])?;
    let first = rig.serve("b")?;
    let script = format!(
        "{BUILDS}
build endless.nix && exit 1
touch /rig/gone
until [ -e /rig/go ]; do sleep 0.05; done
build short.nix
rm /rig/go /rig/gone
"
    );
    let client = rig.start_client(&script)?;
    client.until("endless> begun", LIMIT)?;
    first.signal(Signal::KILL);
    drop(first.wait());
    let began = Instant::now();
    let gone = || rig.file("gone").exists().then_some(());
    wait_until(LIMIT, gone).context("the build hangs")?;
    ensure!(
        began.elapsed() < Duration::from_secs(30),
        "{:?}",
        began.elapsed()
    );
    let second = rig.serve("b")?;
    fs::write(rig.file("go"), "")?;
    client.passes(LIMIT)?;
    rig.end("b")?;
    ensure!(second.wait()?.code() == Some(0));
    Ok(())
}

/// Each of three builders has a build of its own. Who is killed and who is full say so, the third
/// one's comes through, and so does the next build.
fn three(rig: &Rig) -> Result<()> {
    let full = rig.builders().join("full/store");
    for name in ["killed", "full", "good"] {
        rig.create(name, &[])?;
    }
    let _disk = Disk::mount(&full)?;
    let mut services = Vec::new();
    for name in ["killed", "full", "good"] {
        services.push(rig.serve(name)?);
        // So that the builds begin at once.
        rig.builder(&["start", name]).run()?.exits(0)?;
    }
    // Which one gets which build is Nix's to say.
    let script = r#"
machines killed full good
sed -i 's/ - 8 1 / - 1 1 /' /etc/nix/machines
cat > three.nix <<'END'
map (n: derivation {
  name = "one-of-${toString n}";
  system = "x86_64-linux";
  builder = "/bin/sh";
  args = [ "-c" "exec 9<> <(: one-of-three); echo begun ${toString n}; read -u 9; printf '%*s' 12000000 . > $out || exit 1; echo made ${toString n}" ];
}) [ 1 2 3 ]
END
build three.nix --keep-going && exit 1
echo over
until [ -e /rig/go ]; do sleep 0.05; done
derive short 'echo > $out' ''
build short.nix
rm /rig/go
"#;
    let client = rig.start_client(script)?;
    for number in ["1", "2", "3"] {
        client.until(&format!("begun {number}"), LIMIT)?;
    }
    let killed = services.remove(0);
    killed.signal(Signal::KILL);
    drop(killed.wait());
    let mut let_go = LetGo::default();
    let over = wait_until(LIMIT, || {
        let_go.all("one-of-three");
        client
            .said()
            .lines()
            .any(|line| line == "over")
            .then_some(())
    });
    over.with_context(|| client.said())?;
    let said = client.said();
    ensure!(said.matches("> made").count() == 1, "{said}");
    ensure!(
        said.contains("Nix daemon disconnected unexpectedly"),
        "{said}"
    );
    ensure!(said.contains("No space left on device"), "{said}");
    services.push(rig.serve("killed")?);
    fs::write(rig.file("go"), "")?;
    let said = client.passes(LIMIT)?;
    ensure!(said.contains("-short"), "{said}");
    for name in ["killed", "full", "good"] {
        rig.end(name)?;
    }
    Ok(())
}

/// A disk that is soon full.
struct Disk(std::path::PathBuf);

impl Disk {
    fn mount(place: &std::path::Path) -> Result<Self> {
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("tmpfs", place, "tmpfs", flags, Some(c"size=18m,mode=755"))?;
        Ok(Self(place.to_owned()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Nothing is left that could be told.
        _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}
