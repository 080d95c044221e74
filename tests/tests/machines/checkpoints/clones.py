"""Machines of one table, and machines made of one that the test has set up: each is itself."""

import os
import subprocess
import tempfile

start_all()
for machine in machines:
    machine.wait_until_ready()

# What the test does to the machine is in its clones.
with tempfile.TemporaryDirectory() as folder:
    key = os.path.join(folder, "key")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    vm_1.succeed("mkdir -p /etc/ssh; head -c 40M /dev/urandom > /dev/shm/much")
    vm_1.copy_from_host(key, "/etc/ssh/ssh_host_ed25519_key")
    vm_1.copy_from_host(key + ".pub", "/etc/ssh/ssh_host_ed25519_key.pub")
sum_of_much = vm_1.succeed("sha256sum < /dev/shm/much")

first, second = vm_1.clone(2)
t.assertEqual((first.name, second.name), ("vm-1-c1", "vm-1-c2"))
everybody = [vm_1, vm_2, first, second]
t.assertEqual([one.name for one in lab.machines], ["vm-1", "vm-1-c1", "vm-1-c2", "vm-2"])

LOOK = r"""
uname -n; cat /etc/machine-id /sys/class/net/eth1/address
ip -o -4 addr show dev eth1 scope global | awk '{print $4}'
ip -o -6 addr show dev eth1 scope global | awk '{print $4}'
ip -o -6 addr show dev eth1 scope link | awk '{print $4}'
head -c 16 /dev/urandom | sha256sum; sha256sum < /var/lib/systemd/random-seed
sha256sum < /etc/ssh/ssh_host_ed25519_key 2> /dev/null || echo none; cat /etc/hostname
"""
WHAT = ["name", "id", "MAC", "IPv4", "IPv6", "link-local", "random", "seed", "key"]

with subtest("each is itself"):
    looks = {one.name: one.succeed(LOOK).splitlines() for one in everybody}
    for name, look in looks.items():
        print(f"{name}: {look}")
        t.assertEqual((look[0], look[-1]), (name, name))
    for place, what in enumerate(WHAT):
        found = [look[place] for look in looks.values()]
        t.assertEqual(len(set(found)), len(everybody), f"{what}: {found}")

with subtest("its keys are keys of its own"):
    for one in (first, second):
        public = one.succeed("cat /etc/ssh/ssh_host_ed25519_key.pub")
        private = one.succeed("cat /etc/ssh/ssh_host_ed25519_key")
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(private)
            file.flush()
            made = subprocess.run(
                ["ssh-keygen", "-y", "-f", file.name], check=True, capture_output=True, text=True
            )
        t.assertEqual(made.stdout.split()[:2], public.split()[:2])

with subtest("all know all"):
    addresses = {name: look[3].split("/")[0] for name, look in looks.items()}
    for one in everybody:
        for name, address in addresses.items():
            found = one.succeed(f"getent ahostsv4 {name}").split()
            t.assertIn(found[0], (address, "127.0.1.1") if name == one.name else (address,))
    for one, other in [(vm_2, "vm-1-c1"), (first, "vm-1-c2"), (second, "vm-1")]:
        one.succeed(f"curl -fsS http://{other}/ > /dev/null", timeout=200)


def memory(machine):
    """Of the guest's memory: what it has in use, its share of that, and what it has for itself, in kB."""
    found = {}
    with open(f"/proc/{machine.pid}/smaps") as smaps:
        is_guests = False
        for line in smaps:
            key, _, rest = line.partition(":")
            if " " in key:
                is_guests = line.rstrip().endswith("/memory")
            elif is_guests and key in ("Rss", "Pss", "Private_Dirty"):
                found[key] = found.get(key, 0) + int(rest.split()[0])
    return found


with subtest("memory is shared until it is written to"):
    for one in (first, second):
        t.assertEqual(one.succeed("sha256sum < /dev/shm/much"), sum_of_much)
    before = [memory(one) for one in (first, second)]
    print(f"memory: {before}")
    for one in before:
        # Each has read all of the file, and has it together with the other.
        t.assertGreater(one["Rss"], 40 << 10)
        t.assertLess(one["Pss"], one["Rss"] - (15 << 10))
        t.assertLess(one["Private_Dirty"], one["Rss"] - (40 << 10))
    first.succeed("head -c 40M /dev/zero 1<> /dev/shm/much >&1")
    after = memory(first)
    print(f"memory after it was written to: {after}")
    t.assertGreater(after["Private_Dirty"], before[0]["Private_Dirty"] + (35 << 10))
    t.assertEqual(second.succeed("sha256sum < /dev/shm/much"), sum_of_much)
    t.assertEqual(vm_1.succeed("sha256sum < /dev/shm/much"), sum_of_much)

with subtest("a clone has a life of its own"):
    first.shutdown()
    first.start()
    first.fail("test -e /dev/shm/much")
    t.assertEqual(first.succeed("uname -n"), "vm-1-c1\n")
    second.crash()
    vm_1.succeed("true")
