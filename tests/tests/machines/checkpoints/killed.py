"""The engine is killed while a spare waits to become the machine."""

import os
import signal


def parent(pid):
    with open(f"/proc/{pid}/stat") as stat:
        return int(stat.read().rsplit(")", 1)[1].split()[1])


def is_spare(pid):
    try:
        with open(f"/proc/{pid}/cmdline") as cmdline:
            is_qemu = "process=vm-1" in cmdline.read()
        return is_qemu and pid != vm_1.pid and parent(pid) == engine
    except OSError:
        return False


def processes():
    return map(int, filter(str.isdigit, os.listdir("/proc")))


start_all()
vm_1.wait_until_ready()
checkpoint = lab.checkpoint()
for _ in range(2):
    lab.restore(checkpoint)
engine = parent(vm_1.pid)
retry(lambda _: any(is_spare(pid) for pid in processes()), timeout=200)
with open(os.path.join(os.path.dirname(__file__), "waits"), "w"):
    pass
os.kill(engine, signal.SIGKILL)
