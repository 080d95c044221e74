"""Two VMs under load: a disk writer with checksums, a TCP stream, and a running clock."""

import os
import signal
import subprocess
import time

TIMES = 20
SESSION = os.path.dirname(os.environ["MACHINIST_SESSION"])

# What runs must not be a command of this script: those end when the lab goes back. And no program
# that is not needed: each takes an emulated machine its time.
WRITER = r"""
echo $$ > /run/writer.pid
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
CLOCK = r"""
echo $$ > /run/clock.pid
exec {never}<> <(:)
while :; do echo $EPOCHREALTIME >> /run/clock; read -t 0.1 -u $never || :; done
"""
STREAM = r"""
echo $$ > /run/stream.pid
set -o pipefail
curl -fsS --limit-rate 300k http://vm-1/big | sha256sum > /run/slow.part
echo $? >> /run/slow.part
mv /run/slow.part /run/slow
"""
# The last sum of each block is that of what is on the disk, past the guest's own memory of it.
CHECK = r"""
disk=/dev/$(grep -l disk0 /sys/block/vd?/serial | cut -d/ -f4)
kill $(cat /run/writer.pid); while kill -0 $(cat /run/writer.pid) 2> /dev/null; do sleep 0.1; done
echo 3 > /proc/sys/vm/drop_caches
tac /run/written | sort -k1,1n -s -u > /run/last
while read -r block sum; do
    found=$(dd if="$disk" bs=64k skip="$block" count=1 2>/dev/null | sha256sum)
    test "${found%% *}" = "$sum" || { echo "block $block is wrong" >&2; exit 1; }
done < /run/last
wc -l < /run/last
"""


def spares(machine):
    """The processes that are to become a machine when the lab goes back."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/cmdline", "rb") as cmdline:
                words = cmdline.read().split(b"\0")
            place = os.readlink(f"/proc/{entry}/cwd")
        except OSError:
            continue
        is_one = f"{machine.name},process={machine.name}".encode() in words
        if is_one and place.startswith(SESSION) and int(entry) != machine.pid:
            found.append(int(entry))
    return found


start_all()
for machine in machines:
    machine.wait_until_ready()

vm_1.succeed("head -c 1500000 /dev/urandom > /var/www/html/big")
expected = vm_1.succeed("sha256sum < /var/www/html/big")
vm_2.wait_until_succeeds("curl -fsS http://vm-1/big | sha256sum > /tmp/quick", timeout=200)
t.assertEqual(vm_2.succeed("cat /tmp/quick"), expected)
for machine, name, script in [
    (vm_1, "writer", WRITER),
    (vm_2, "clock", CLOCK),
    (vm_2, "stream", STREAM),
]:
    machine.succeed(f"cat > /run/{name}.sh <<'EOF'\n{script}\nEOF")
vm_1.succeed("systemd-run --unit=writer -p KillMode=process bash /run/writer.sh")
vm_2.succeed("systemd-run --unit=clock bash /run/clock.sh")
vm_1.wait_until_succeeds("test $(wc -l < /run/written) -gt 5", timeout=200)
vm_2.wait_until_succeeds("test $(wc -l < /run/clock) -gt 5", timeout=200)
vm_2.succeed("systemd-run --unit=stream bash /run/stream.sh")

with subtest("a checkpoint, and all goes on"):
    # What runs in a machine runs on when a checkpoint is taken.
    running = vm_1.spawn("read line; echo got $line")
    checkpoint = lab.checkpoint("loaded")
    print(f"stood still: {checkpoint.still * 1000:.0f} ms")
    t.assertEqual(checkpoint.machines, ("vm-1", "vm-2"))
    t.assertEqual([one.name for one in lab.checkpoints], ["loaded"])
    running.send("something\n")
    running.expect("got something")
    vm_1.succeed("touch /tmp/later")

with subtest("back under load, many times"):
    for number in range(TIMES):
        began = time.monotonic()
        lab.restore(checkpoint)
        back = time.monotonic() - began
        vm_1.succeed("test ! -e /tmp/later; kill -0 $(</run/writer.pid); : > /tmp/later")
        print(f"restore {number}: {back:.2f} s, first command {time.monotonic() - began:.2f} s")
        before = time.time()
        now = float(vm_2.succeed("kill -0 $(</run/clock.pid); echo $EPOCHREALTIME"))
        t.assertTrue(before - 0.5 < now < time.time() + 0.5, f"its clock is at {now - before:+}")
        # On a slow host it may be done by now, but not with a part of it.
        done = f"test \"$(</run/slow)\" = '{expected}0'"
        vm_2.succeed(f"kill -0 $(</run/stream.pid) 2> /dev/null || {done}")
        if number % 10 == 9:
            vm_2.wait_until_succeeds("test -e /run/slow", timeout=200)
            vm_2.succeed(done)
            t.assertGreater(int(vm_1.succeed(CHECK)), 5)
            vm_2.succeed("test $(wc -l < /run/clock) -gt 6; sort -c -n /run/clock")

with subtest("random numbers differ after each"):
    seen = set()
    for _ in range(3):
        lab.restore(checkpoint)
        seen.add(vm_1.succeed("head -c 16 /dev/urandom | od -An -tx1"))
    t.assertEqual(len(seen), 3)

with subtest("spares take the place of machines"):
    retry(lambda _: spares(vm_1) and spares(vm_2), timeout=200)
    waiting = spares(vm_1) + spares(vm_2)
    vlan1.block()
    lab.restore(checkpoint)
    t.assertEqual(waiting, [vm_1.pid, vm_2.pid])
    vm_2.succeed("curl -fsS --max-time 200 http://vm-1/ > /dev/null")

with subtest("a spare that was killed is not missed"):
    retry(lambda _: spares(vm_1), timeout=200)
    (killed,) = spares(vm_1)
    os.kill(killed, signal.SIGKILL)
    vm_1.succeed("touch /tmp/later")
    lab.restore(checkpoint)
    t.assertNotEqual(vm_1.pid, killed)
    vm_1.succeed("test ! -e /tmp/later; curl -fsS --max-time 200 http://vm-2/ > /dev/null")

with subtest("rollbacks, nested, and by an exception"):
    vm_1.succeed("echo 0 > /tmp/depth")
    try:
        with lab.rollback():
            vm_1.succeed("echo 1 > /tmp/depth")
            with lab.rollback():
                vm_1.succeed("echo 2 > /tmp/depth")
                vm_2.crash()
            t.assertEqual(vm_1.succeed("cat /tmp/depth"), "1\n")
            vm_2.succeed("true")
            raise KeyError("mine")
    except KeyError as error:
        t.assertEqual(error.args, ("mine",))
    t.assertEqual(vm_1.succeed("cat /tmp/depth"), "0\n")
    t.assertEqual([one.name for one in lab.checkpoints], ["loaded"])

with subtest("a command that is overtaken says so"):
    overtaken = vm_1.spawn("sleep 600")
    lab.restore("loaded")
    try:
        overtaken.wait(timeout=200)
    except MachineError as error:
        t.assertIn("went back to the checkpoint", str(error))
    else:
        raise AssertionError("it ended")
    try:
        lab.restore("nothing")
    except MachineError as error:
        t.assertIn("there are: loaded", str(error))
    else:
        raise AssertionError("there is one")

with subtest("a disk that is full"):
    place = os.path.join(SESSION, "checkpoints")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", place], check=True)
    try:
        lab.checkpoint("full")
    except MachineError as error:
        t.assertIn("No space left", str(error))
    else:
        raise AssertionError("it fits")
    finally:
        subprocess.run(["umount", place], check=True)
    vm_1.succeed("true")
    vm_2.succeed("curl -fsS http://vm-1/ >/dev/null")

with subtest("no spare outlives its checkpoint"):
    # The last ones may have been in the making while their checkpoint was out of sight.
    lab.restore(checkpoint)
    retry(lambda _: spares(vm_1) and spares(vm_2), timeout=200)
    checkpoint.drop()
    t.assertEqual(spares(vm_1) + spares(vm_2), [])
    sockets = [name for _, _, files in os.walk(SESSION) for name in files if "agent" in name]
    t.assertEqual(len(sockets), 2, sockets)
    vm_2.succeed("curl -fsS http://vm-1/ >/dev/null")
