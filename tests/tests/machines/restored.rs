//! Machines that were restored from one snapshot: each is right, and each is another.

use anyhow::Result;
use machinist_tests::{Bench, Need};

use crate::Case;

pub const CASES: &[Case] = &[Case {
    name: "restored::two_of_one_snapshot_are_right",
    needs: &[Need::Vm, Need::Python],
    run: right,
}];

/// The snapshot is made when that command is through: with a clock of years ago, a zone, and a timer
/// that has been due since.
const LAB: &str = r#"
[machine.m]
kind = "vm"
image = "debian:bookworm"
packages = ["openssh-server"]
count = 2
memory = "512M"
ready = '''command:set -e
[ ! -e /run/prepared ] || exit 0
systemctl is-system-running --wait > /dev/null || true
ln -sf /usr/share/zoneinfo/Pacific/Auckland /etc/localtime
cd /etc/systemd/system
printf '[Timer]\nOnCalendar=daily\nPersistent=yes\n' > due.timer
printf '[Timer]\nOnCalendar=2099-01-01\nAccuracySec=1s\n' > far.timer
printf '[Timer]\nOnClockChange=yes\n' > seen.timer
for name in due far seen; do
printf "[Service]\\nType=oneshot\\nExecStart=touch /run/$name\\n" > $name.service
done
systemctl daemon-reload
date -s '2021-03-04 05:06:07' > /dev/null
systemctl start due.timer far.timer seen.timer
touch /run/prepared'''
[[test]]
name = "t"
script = "t.py"
"#;

const SCRIPT: &str = r#"
import time

start_all()
machines = {"m-1": m_1, "m-2": m_2}

def say(command):
    return {name: m.succeed(command).strip() for name, m in machines.items()}

def differ(command):
    said = say(command)
    assert said["m-1"] != said["m-2"], (command, said)
    return said

say("true")
for name, m in machines.items():
    other = {"m-1": "m-2", "m-2": "m-1"}[name]
    # The very first thing: the neighbour, by its name, and with its own key.
    theirs = m.succeed(f"ssh-keyscan -T 30 -t ed25519 {other} 2> /dev/null").split()[2]
    known = machines[other].succeed("cat /etc/ssh/ssh_host_ed25519_key.pub").split()[1]
    assert theirs == known, name

for m in machines.values():
    for attempt in range(5):
        before = time.time()
        clock = float(m.succeed("date +%s.%N"))
        after = time.time()
        # What a busy host does between the three is no fault of the clock.
        if after - before < 0.2:
            break
    assert before - 0.05 < clock < after + 0.05, (before, clock, after)
assert set(say("date +%Z").values()) <= {"NZST", "NZDT"}

state = "systemctl is-active due.timer ssh.service; [ ! -e /run/due ] && echo quiet"
for m in machines.values():
    m.wait_for_unit("due.timer")
    assert m.succeed(state).split() == ["active", "active", "quiet"]
    # Due at the next midnight, and not at one of years ago.
    due = m.succeed("date -d \"$(systemctl show -P NextElapseUSecRealtime due.timer)\" +%s")
    assert 0 < int(due) - time.time() < 25 * 3600, due

differ("head -c 16 /dev/urandom | base64")
differ("cat /proc/sys/kernel/random/uuid")
differ("echo $RANDOM$RANDOM$RANDOM")
for kind in ("rsa", "ecdsa", "ed25519"):
    differ(f"cut -d' ' -f2 /etc/ssh/ssh_host_{kind}_key.pub")
differ("cat /sys/class/net/eth1/address")
ids = differ("cat /etc/machine-id")
assert say("uname -n; cat /etc/hostname") == {name: f"{name}\n{name}" for name in machines}
for name, m in machines.items():
    number = name[-1]
    hosts = m.succeed("cat /etc/hosts")
    assert all(f" m-{n}" in hosts for n in (1, 2)), hosts
    addresses = m.succeed("cat /proc/net/fib_trie /proc/net/if_inet6")
    own, others = f"192.168.1.{number}\n", f"192.168.1.{3 - int(number)}\n"
    assert own in addresses and others not in addresses, addresses
    mac = m.succeed("cat /sys/class/net/eth1/address").strip().split(":")
    local = f"{int(mac[0], 16) ^ 2:02x}{mac[1]}{mac[2]}fffe{mac[3]}{mac[4]}{mac[5]}"
    assert f"fe80000000000000{local}" in addresses, addresses
    # The journal goes on: what was before is there, the mark, and what comes after.
    m.succeed("echo afterwards | systemd-cat -t probe && journalctl --sync")
    journal = m.succeed("journalctl -q -o cat")
    for part in ("Linux version", "what follows is of a machine that was restored", "afterwards"):
        assert part in journal, part
    assert m.succeed("ls -d /run/log/journal/$(cat /etc/machine-id)")
    # Services were never told to stop, and nothing of systemd's failed.
    assert m.succeed("systemctl --failed --quiet") == ""
# systemd has not heard of the clock that we set, and hears of one that somebody else sets. What goes by
# the calendar is right all the while.
assert say("ls /run/far /run/seen 2> /dev/null || true") == {name: "" for name in machines}
m_1.succeed("date -u -s '2098-12-31 10:59:58'")
m_1.wait_until_succeeds("ls /run/far /run/seen")
# It is one boot, told twice.
assert len(set(say("cat /proc/sys/kernel/random/boot_id").values())) == 1
"#;

fn right(bench: &Bench) -> Result<()> {
    bench.write("lab.toml", LAB)?;
    bench.write("t.py", SCRIPT)?;
    let ran = bench.machinist(&["test"]).run()?.exits(0)?;
    ran.complains("m-2: restored from its snapshot")?;
    Ok(())
}
