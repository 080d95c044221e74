"""Two VMs under load: a disk writer with checksums, a TCP stream, and a running clock."""

import os
import subprocess
import time

TIMES = 20

# What runs must not be a command of this script: those end when the lab goes back.
WRITER = r"""
disk=/dev/$(grep -l disk0 /sys/block/vd?/serial | cut -d/ -f4)
trap stop=yes TERM
number=0
while test -z "$stop"; do
    head -c 65536 /dev/urandom > /run/block
    sum=$(sha256sum < /run/block)
    dd if=/run/block of="$disk" bs=64k seek=$((number % 64)) conv=notrunc,fsync 2>/dev/null || exit
    echo "$((number % 64)) ${sum%% *}" >> /run/written
    number=$((number + 1))
done
"""
# The last sum of each block is that of what is on the disk, past the guest's own memory of it.
CHECK = r"""
disk=/dev/$(grep -l disk0 /sys/block/vd?/serial | cut -d/ -f4)
systemctl stop writer
echo 3 > /proc/sys/vm/drop_caches
tac /run/written | sort -k1,1n -s -u > /run/last
while read -r block sum; do
    found=$(dd if="$disk" bs=64k skip="$block" count=1 2>/dev/null | sha256sum)
    test "${found%% *}" = "$sum" || { echo "block $block is wrong" >&2; exit 1; }
done < /run/last
wc -l < /run/last
"""

start_all()
for machine in machines:
    machine.wait_until_ready()

a.succeed("head -c 4000000 /dev/urandom > /var/www/html/big")
expected = a.succeed("sha256sum < /var/www/html/big")
b.succeed("curl -fsS --retry 20 --retry-connrefused http://a/big | sha256sum > /tmp/quick")
t.assertEqual(b.succeed("cat /tmp/quick"), expected)
a.succeed(f"cat > /run/writer.sh <<'EOF'\n{WRITER}\nEOF")
a.succeed("systemd-run --unit=writer -p KillMode=process bash /run/writer.sh")
b.succeed("systemd-run --unit=clock bash -c 'while sleep 0.1; do date +%s.%N >> /run/clock; done'")
a.wait_until_succeeds("test $(wc -l < /run/written) -gt 5")
b.wait_until_succeeds("test $(wc -l < /run/clock) -gt 5")
b.succeed(
    "systemd-run --unit=stream bash -c "
    "'set -o pipefail; curl -fsS --limit-rate 300k http://a/big | sha256sum > /tmp/slow'"
)

with subtest("a checkpoint, and all goes on"):
    # What runs in a machine runs on when a checkpoint is taken.
    running = a.spawn("read line; echo got $line")
    checkpoint = lab.checkpoint("loaded")
    print(f"stood still: {checkpoint.still * 1000:.0f} ms")
    t.assertEqual(checkpoint.machines, ("a", "b"))
    t.assertEqual([one.name for one in lab.checkpoints], ["loaded"])
    running.send("something\n")
    running.expect("got something")
    a.succeed("touch /tmp/later")

with subtest("back under load, many times"):
    for number in range(TIMES):
        began = time.monotonic()
        lab.restore(checkpoint)
        a.fail("test -e /tmp/later")
        print(f"restore {number}: {time.monotonic() - began:.2f} s with the first command")
        before = time.time()
        now = float(b.succeed("date +%s.%N"))
        t.assertTrue(before - 0.5 < now < time.time() + 0.5, f"its clock is at {now - before:+}")
        a.succeed("systemctl is-active writer")
        b.succeed("systemctl is-active clock")
        # On a slow host it may be done by now, but not with a part of it.
        b.succeed(f"systemctl is-active stream || test \"$(cat /tmp/slow)\" = '{expected.strip()}'")
        a.succeed("touch /tmp/later")
        if number % 10 == 9:
            b.wait_until_succeeds("! systemctl is-active stream", timeout=120)
            t.assertEqual(b.succeed("cat /tmp/slow"), expected)
            t.assertGreater(int(a.succeed(CHECK)), 5)
            b.succeed("test $(wc -l < /run/clock) -gt 6; sort -c -n /run/clock")

with subtest("random numbers differ after each"):
    seen = set()
    for _ in range(3):
        lab.restore(checkpoint)
        seen.add(a.succeed("head -c 16 /dev/urandom | od -An -tx1"))
    t.assertEqual(len(seen), 3)

with subtest("rollbacks, nested, and by an exception"):
    a.succeed("systemctl stop writer; echo 0 > /tmp/depth")
    try:
        with lab.rollback():
            a.succeed("echo 1 > /tmp/depth")
            with lab.rollback():
                a.succeed("echo 2 > /tmp/depth")
                b.crash()
            t.assertEqual(a.succeed("cat /tmp/depth"), "1\n")
            b.succeed("true")
            raise KeyError("mine")
    except KeyError as error:
        t.assertEqual(error.args, ("mine",))
    t.assertEqual(a.succeed("cat /tmp/depth"), "0\n")
    t.assertEqual([one.name for one in lab.checkpoints], ["loaded"])

with subtest("a command that is overtaken says so"):
    overtaken = a.spawn("sleep 600")
    lab.restore("loaded")
    try:
        overtaken.wait(timeout=30)
    except MachineError as error:
        t.assertIn("went back to the checkpoint", str(error))
    else:
        raise AssertionError("it ended")
    try:
        lab.restore("nothing")
    except MachineError as error:
        t.assertIn("there are: loaded", str(error))

with subtest("a disk that is full"):
    place = os.path.join(os.path.dirname(os.environ["MACHINIST_SESSION"]), "checkpoints")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", place], check=True)
    try:
        lab.checkpoint("full")
    except MachineError as error:
        t.assertIn("No space left", str(error))
    else:
        raise AssertionError("it fits")
    finally:
        subprocess.run(["umount", place], check=True)
    a.succeed("true")
    b.succeed("curl -fsS http://a/ >/dev/null")

if os.environ["PYTEST"]:
    with subtest("pytest"):
        environment = {
            **os.environ,
            "PYTHONPATH": os.environ["PACKAGES"],
            "PYTEST_PLUGINS": "machinist.pytest_plugin",
        }
        words = [os.environ["PYTEST"], "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        began = time.monotonic()
        subprocess.run([*words, "test_module.py"], env=environment, check=True)
        print(f"pytest: {time.monotonic() - began:.1f} s")
        t.assertEqual([one.name for one in lab.checkpoints], ["loaded"])
else:
    print("no Python has pytest: the plugin was not tried")
