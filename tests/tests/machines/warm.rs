//! Warm starts as a user sees them: what is saved when, what is restored, what is told of it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use machinist_tests::{Bench, Command, Need, Ran, users_cache};
use serde_json::Value;

use crate::Case;
use crate::labs::{IMAGE, run};

pub const CASES: &[Case] = &[
    Case {
        name: "warm::the_first_run_saves_and_later_ones_restore",
        needs: &[Need::Vm],
        run: saved_and_restored,
    },
    Case {
        name: "warm::what_is_other_has_a_snapshot_of_its_own",
        needs: &[Need::Vm],
        run: others,
    },
    Case {
        name: "warm::clones_are_machines_of_their_own",
        needs: &[Need::Vm, Need::Python],
        run: clones,
    },
];

/// A cache with the user's images and no snapshots.
struct Cache(PathBuf);

impl Cache {
    fn new(bench: &Bench) -> Result<Self> {
        let images = users_cache()?.join("images");
        std::fs::create_dir_all(&images)?;
        let own = bench.path().join("cache");
        std::fs::create_dir(&own)?;
        std::os::unix::fs::symlink(images, own.join("images"))?;
        Ok(Self(own))
    }

    fn machinist(&self, bench: &Bench, words: &[&str]) -> Command {
        bench.machinist(words).env("MACHINIST_CACHE", &self.0)
    }

    /// What `snapshot list` says.
    fn list(&self, bench: &Bench) -> Result<Vec<Value>> {
        let list = self.machinist(bench, &["snapshot", "list", "--format", "json"]);
        let list = list.run()?.exits(0)?.json()?;
        Ok(list.as_array().context("not a list")?.clone())
    }

    fn count(&self, bench: &Bench) -> Result<usize> {
        Ok(self.list(bench)?.len())
    }
}

/// How often something happened, by its name among the events that a run has printed.
fn times(ran: &Ran, kind: &str) -> usize {
    events(ran).filter(|it| it["what"]["kind"] == kind).count()
}

fn events(ran: &Ran) -> impl Iterator<Item = Value> + '_ {
    let lines = ran.stdout.lines();
    lines.filter_map(|line| serde_json::from_str(line).ok())
}

fn saved_and_restored(bench: &Bench) -> Result<()> {
    let cache = Cache::new(bench)?;
    // The console of a restored machine begins with what its boot has printed.
    let lab = r#"
[machine.web]
kind = "vm"
image = "small"
memory = "512M"
[[test]]
name = "t"
steps = [
  { machine = "web", wait = "console:Linux version", timeout = "200s" },
  { machine = "web", wait = "journal:Started.*nginx", timeout = "200s" },
  { machine = "web", run = "hostname", stdout = { equals = "web" } },
  { machine = "web", run = "curl -fsS http://web/", stdout = { contains = "nginx" } },
]
"#;
    bench.write("lab.toml", &format!("{IMAGE}{lab}"))?;
    let test = ["test", "--format", "json"];
    let first = cache.machinist(bench, &test).run()?.exits(0)?;
    ensure!(times(&first, "snapshot-saved") == 1, "{first}");
    let second = cache.machinist(bench, &["test", "--progress", "plain"]);
    let second = second.run()?.exits(0)?;
    second.complains("web: restored from its snapshot, up after")?;
    let third = cache.machinist(bench, &test).run()?.exits(0)?;
    let restored = (
        times(&third, "machine-restored"),
        times(&third, "snapshot-saved"),
    );
    ensure!(restored == (1, 0), "{third}");
    ensure!(third.took * 2 < first.took, "{first}\n{third}");

    let up = cache.machinist(bench, &["up"]).run()?.exits(0)?;
    let list = cache.machinist(bench, &["snapshot", "list"]).run()?;
    list.exits(0)?.says("in use")?;
    let prune = ["snapshot", "prune", "--all"];
    let pruned = cache.machinist(bench, &prune).run()?.exits(0)?;
    pruned.complains("in use, so it stays: web")?;
    ensure!(cache.count(bench)? == 1, "it is gone");
    let down = cache.machinist(bench, &["down", up.stdout.trim()]);
    down.run()?.exits(0)?;
    let would = cache.machinist(bench, &["snapshot", "prune", "--all", "-n"]);
    would.run()?.exits(0)?.complains("would free")?;
    let pruned = cache.machinist(bench, &prune).run()?.exits(0)?;
    pruned.complains("freed")?;
    ensure!(cache.count(bench)? == 0, "it is still there");
    Ok(())
}

fn others(bench: &Bench) -> Result<()> {
    let cache = Cache::new(bench)?;
    let vm = |options: &[&str]| -> Result<Ran> {
        let mut all = vec!["--kind", "vm"];
        all.extend(options);
        let words = run(&all, &["uname", "-r"]);
        cache.machinist(bench, &words).run()?.exits(0)
    };
    vm(&["--cold", "--memory", "300M"])?;
    ensure!(cache.count(bench)? == 0, "saved, though cold");
    let first = vm(&["--memory", "300M"])?;
    ensure!(first.stderr.is_empty(), "{first}");
    let snapshot = &cache.list(bench)?[0];
    ensure!(snapshot["ready"] == "agent", "{snapshot}");
    ensure!(
        snapshot["allocated"].as_u64() < snapshot["apparent"].as_u64(),
        "{snapshot}"
    );
    let second = vm(&["--memory", "300M"])?;
    ensure!(second.took < first.took, "{first}\n{second}");
    ensure!(cache.count(bench)? == 1, "saved twice");
    // Somebody else's of this machine is of no use, and that is said with what differs.
    let theirs = cache.0.join("snapshots");
    let words = run(&["--kind", "vm", "--memory", "310M"], &["uname", "-r"]);
    let refused = cache.machinist(bench, &words);
    let refused = refused
        .env("MACHINIST_SNAPSHOTS", &theirs)
        .run()?
        .exits(0)?;
    refused.complains("is of another machine or host (")?;
    ensure!(cache.count(bench)? == 2, "other memory is another machine");

    // The last used first: that of 310 MB.
    let spoil: [fn(&Path) -> Result<()>; 2] = [|it| Ok(std::fs::remove_file(it)?), truncate];
    for (info, spoil) in cache.list(bench)?.iter().zip(spoil) {
        let key = info["key"].as_str().context("no key")?;
        spoil(&cache.0.join("snapshots").join(key).join("memory"))?;
    }
    for (memory, why) in [("310M", "it is missing"), ("300M", "it has 4096 bytes")] {
        let damaged = vm(&["--memory", memory])?;
        let said = "fresh: its snapshot was thrown away";
        ensure!(damaged.stderr.matches(said).count() == 1, "{damaged}");
        ensure!(damaged.stderr.contains(why), "{damaged}");
        ensure!(damaged.stderr.lines().count() == 1, "{damaged}");
    }
    let mended = vm(&["--memory", "300M"])?;
    ensure!(mended.stderr.is_empty(), "{mended}");

    // Another program in QEMU's place, as after an upgrade: what the old one saved stays for it.
    let words = run(&["--kind", "vm", "--memory", "300M"], &["uname", "-r"]);
    let path = other_qemu(bench)?;
    let other = || {
        cache
            .machinist(bench, &words)
            .env("PATH", &path)
            .run()?
            .exits(0)
    };
    other()?;
    ensure!(
        cache.count(bench)? == 3,
        "what another QEMU saved was restored"
    );
    other()?;
    ensure!(cache.count(bench)? == 3, "saved twice");
    Ok(())
}

/// A search path with another QEMU in it: a program that becomes the usual one.
fn other_qemu(bench: &Bench) -> Result<std::ffi::OsString> {
    let usual = std::env::var_os("PATH").context("there is no PATH")?;
    let program = std::env::split_paths(&usual)
        .map(|dir| dir.join("qemu-system-x86_64"))
        .find(|path| path.is_file())
        .context("there is no QEMU")?;
    let dir = bench.path().join("other");
    std::fs::create_dir(&dir)?;
    let other = dir.join("qemu-system-x86_64");
    std::fs::write(
        &other,
        format!("#!/bin/sh\nexec {} \"$@\"\n", program.display()),
    )?;
    std::fs::set_permissions(&other, std::fs::Permissions::from_mode(0o755))?;
    let dirs = std::iter::once(dir).chain(std::env::split_paths(&usual));
    Ok(std::env::join_paths(dirs)?)
}

fn truncate(file: &Path) -> Result<()> {
    let open = std::fs::OpenOptions::new().write(true).open(file);
    Ok(open?.set_len(4096)?)
}

const CLONES: &str = r#"
[machine.n]
kind = "vm"
image = "small"
memory = "384M"
count = 8
[[test]]
name = "all"
script = "all.py"
[[test]]
name = "one"
machines = ["n-1"]
steps = [{ machine = "n-1", run = "hostname", stdout = { equals = "n-1" } }]
[[test]]
name = "two"
machines = ["n-2"]
steps = [{ machine = "n-2", run = "hostname", stdout = { equals = "n-2" } }]
"#;

/// Each of the clones is another, and they reach each other.
const ALL_CLONES: &str = r#"
start_all()
nodes = [n_1, n_2, n_3, n_4, n_5, n_6, n_7, n_8]
seen = {}
for node in nodes:
    said = node.succeed(
        "hostname; cat /etc/machine-id /sys/class/net/eth1/address; "
        "head -c 16 /dev/urandom | sha256sum; ip -4 -o addr show eth1 | tr -s ' ' | cut -d' ' -f4"
    ).split("\n")
    for what, value in zip(["name", "id", "mac", "random", "address"], said):
        seen.setdefault(what, []).append(value)
for what, values in seen.items():
    assert len(set(values)) == 8, (what, values)
assert seen["name"] == [f"n-{i}" for i in range(1, 9)], seen["name"]
assert seen["address"] == [f"192.168.1.{i}/24" for i in range(1, 9)], seen["address"]
for i, node in enumerate(nodes):
    other = (i + 1) % 8 + 1
    assert "nginx" in node.succeed(f"curl -fsS --max-time 20 http://n-{other}/")
"#;

fn clones(bench: &Bench) -> Result<()> {
    let cache = Cache::new(bench)?;
    bench.write("lab.toml", &format!("{IMAGE}{CLONES}"))?;
    bench.write("all.py", ALL_CLONES)?;
    // Eight that boot would need four times as much.
    let test = |words: &[&str]| {
        let mut all = vec!["test", "--memory-budget", "2200M", "--format", "json"];
        all.extend(words);
        cache.machinist(bench, &all).run()
    };
    let cold = test(&["--cold", "all"])?.exits(96)?;
    cold.complains("test \"all\": the machines need 4G of memory, and the budget is 2200M")?;
    let ran = test(&["all"])?.exits(0)?;
    ensure!(times(&ran, "snapshot-saved") == 1, "{ran}");
    ensure!(times(&ran, "machine-restored") == 8, "{ran}");

    // One may boot, and so the other has to wait.
    let turns = [
        "test",
        "--memory-budget",
        "700M",
        "--format",
        "json",
        "-j",
        "2",
    ];
    let mut words = turns.to_vec();
    words.extend(["=one", "=two"]);
    let ran = cache.machinist(bench, &words).run()?.exits(0)?;
    let mut open = 0_i32;
    for event in events(&ran) {
        match event["what"]["kind"].as_str() {
            Some("test-started") => open += 1,
            Some("test-finished") => open -= 1,
            _ => {}
        }
        ensure!(open < 2, "both at once: {ran}");
    }
    Ok(())
}
