"""A container beside a VM: its files are of the checkpoint's moment, and it starts afresh with them."""

import os
import subprocess
import time

start_all()
for machine in machines:
    machine.wait_until_ready()

# All that overlayfs and a file system have: files that came, went and changed, directories in the
# place of others, other owners, links, devices, capabilities.
MAKE = r"""
mkdir -p /srv/tree/deep /home/one
echo kept > /srv/tree/deep/file; ln /srv/tree/deep/file /srv/tree/hard; ln -s deep/file /srv/tree/soft
chown 12345:54321 /srv/tree/hard; chmod 4750 /srv/tree/hard
mkfifo /srv/tree/pipe; truncate -s 100M /srv/tree/sparse
echo changed >> /etc/motd
rm -r /usr/share/doc; mkdir /usr/share/doc; echo mine > /usr/share/doc/mine
rm /etc/debian_version
touch -d 2001-02-03T04:05:06.789 /srv/tree/deep
"""
LOOK = r"""
find /srv/tree /usr/share/doc /etc/motd /etc/hostname /etc/hosts /etc/machine-id \
    -printf '%p %y %m %U:%G %s %n %T+ %l\n' | sort
cat /srv/tree/hard /etc/motd /usr/share/doc/mine /etc/hosts /etc/machine-id
test ! -e /etc/debian_version; hostname; id -u www-data
"""
box.succeed(MAKE)
box.succeed("echo of the host > /shared/file; echo old > /run/volatile")
box.succeed("systemctl disable --now nginx; touch /etc/marked")
expected = box.succeed(LOOK)
vm_1.succeed("echo kept > /tmp/kept")

with subtest("a checkpoint, and all goes on"):
    box.succeed(
        "systemd-run --unit=writer bash -c "
        "'n=0; while echo $((n += 1)) >> /var/log/numbers; do sleep 0.01; done'"
    )
    running = box.spawn("read line; echo got $line")
    checkpoint = lab.checkpoint("mixed")
    print(f"stood still: {checkpoint.still * 1000:.0f} ms")
    t.assertEqual(checkpoint.machines, ("box", "vm-1"))
    running.send("something\n")
    running.expect("got something")
    before = int(box.succeed("tail -n 1 /var/log/numbers"))
    box.wait_until_succeeds(f"test $(tail -n 1 /var/log/numbers) -gt {before}")

with subtest("back, several times"):
    for number in range(3):
        box.succeed("rm -rf /srv /etc/motd /usr/share/doc /etc/marked; date > /etc/debian_version")
        box.succeed("echo spoiled > /etc/hosts; echo later > /shared/file")
        vm_1.succeed("rm /tmp/kept")
        if number == 1:
            box.crash()
        began = time.monotonic()
        lab.restore(checkpoint)
        print(f"restore {number}: {time.monotonic() - began:.2f} s")
        t.assertEqual(box.succeed(LOOK), expected)
        # As after a start: what is no file system of its own is empty, and only what is enabled runs.
        box.succeed("test ! -e /run/volatile -a -e /etc/marked")
        box.fail("systemctl is-active nginx || systemctl is-active writer")
        t.assertLessEqual(int(box.succeed("tail -n 1 /var/log/numbers")), before)
        # A volume is the host's.
        t.assertEqual(box.succeed("cat /shared/file"), "later\n")
        vm_1.succeed("cat /tmp/kept")
        box.succeed("systemctl start nginx")
        vm_1.wait_until_succeeds("curl -fsS http://box/ > /dev/null", timeout=200)

with subtest("it restarts with what it had"):
    lab.restore(checkpoint)
    box.reboot()
    t.assertEqual(box.succeed(LOOK), expected)

with subtest("off is off, and has no files"):
    box.shutdown()
    off = lab.checkpoint("off")
    lab.restore(checkpoint)
    t.assertEqual(box.succeed(LOOK), expected)
    off.restore()
    t.assertFalse(box.is_up())

with subtest("a disk that is full"):
    lab.restore(checkpoint)
    box.succeed("head -c 20M /dev/urandom > /srv/random")
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
    box.succeed("true")
    vm_1.succeed("true")
