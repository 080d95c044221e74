"""A model of how NixOS' driver works today, as far as time goes: it asks once a second, commands of a
VM go through one shell as base64, those of a container through nsenter and a login's profile each.
Networks, logs and pictures are left out where they cost no time; what it imports without need is
of the standard library's what that program imports (not ptpython, 0.2 s of CPU at each start there).
Called as that is:
--vm-names N... --vm-start-scripts S... --container-names N... --container-start-scripts S...
--vlans N... -o DIRECTORY SCRIPT."""

import argparse
import base64
import contextlib
import os
import re
import select
import shlex
import socket
import subprocess
import sys
import tempfile  # noqa: F401
import threading
import time
import unittest  # noqa: F401
import xml.sax.saxutils  # noqa: F401
from pathlib import Path

PLACE = Path(os.environ["XDG_RUNTIME_DIR"])
SHARED = PLACE / "shared-xchg"


def say(text):
    print(text, file=sys.stderr)


@contextlib.contextmanager
def nested(text):
    say(text)
    begun = time.time()
    yield
    say(f"(finished: {text}, in {time.time() - begun:.2f} seconds)")


def retry(attempt, timeout=900):
    for _ in range(timeout):
        if attempt():
            return
        time.sleep(1)
    if not attempt():
        raise Exception(f"timed out after {timeout} tries")


class Machine:
    def __init__(self, name, script):
        self.name, self.script = name, script
        self.state = PLACE / f"vm-state-{name}"
        self.state.mkdir(mode=0o700)
        self.process = None

    def nested(self, text):
        return nested(f"{self.name}: {text}")

    def show(self, stream):
        for line in stream:
            say(f"{self.name} # {line.decode(errors='ignore').rstrip()}")

    def succeed(self, *commands, timeout=None):
        output = ""
        for command in commands:
            with self.nested(f"must succeed: {command}"):
                status, out = self.execute(command, timeout=timeout)
                if status != 0:
                    raise Exception(f"command `{command}` failed (exit code {status})")
                output += out
        return output

    def fail(self, *commands, timeout=None):
        for command in commands:
            with self.nested(f"must fail: {command}"):
                status, _ = self.execute(command, timeout=timeout)
                if status == 0:
                    raise Exception(f"command `{command}` unexpectedly succeeded")

    def until(self, text, command, wanted, timeout):
        said = ""

        def attempt():
            nonlocal said
            status, said = self.execute(command, timeout=timeout)
            return (status == 0) == wanted

        with self.nested(f"waiting for {text}"):
            retry(attempt, timeout)
        return said

    def wait_until_succeeds(self, command, timeout=900):
        return self.until(f"success: {command}", command, True, timeout)

    def wait_until_fails(self, command, timeout=900):
        return self.until(f"failure: {command}", command, False, timeout)

    def wait_for_file(self, path, timeout=900):
        self.until(f"file {path}", f"test -e {path}", True, timeout)

    def wait_for_open_port(self, port, addr="localhost", timeout=900):
        self.until(f"TCP port {port}", f"nc -z {addr} {port}", True, timeout)

    def wait_for_closed_port(self, port, addr="localhost", timeout=900):
        self.until(f"closed TCP port {port}", f"nc -z {addr} {port}", False, timeout)

    def state_of(self, unit):
        status, said = self.execute(f'systemctl --no-pager show "{unit}" --property="ActiveState"')
        if status != 0:
            raise Exception(f"cannot ask for {unit}")
        return said.strip().partition("=")[2]

    def wait_for_unit(self, unit, timeout=900):
        def is_active():
            state = self.state_of(unit)
            if state == "failed":
                raise Exception(f"{unit} has failed")
            if state == "inactive":
                _, jobs = self.execute("systemctl list-jobs --full 2>&1")
                if "No jobs" in jobs:
                    _, info = self.execute(f'systemctl --no-pager show "{unit}"')
                    if f"ActiveState={state}\n" in info:
                        raise Exception(f"{unit} is inactive, and there are no jobs")
            return state == "active"

        with self.nested(f"waiting for unit {unit}"):
            retry(is_active, timeout)


class Vm(Machine):
    connected = False

    def start(self):
        if self.process is not None:
            return

        def listening(name):
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(self.state / name))
            listener.listen(1)
            return listener

        monitor, shell = listening("monitor"), listening("shell")
        command = (
            f"{self.script} -qmp unix:{self.state}/qmp,server=on,wait=off -monitor unix:{self.state}/monitor"
            f" -chardev socket,id=shell,path={self.state}/shell -device virtio-serial"
            " -device virtconsole,chardev=shell -device virtio-rng-pci -serial stdio -no-reboot -nographic"
        )
        environment = {"TMPDIR": str(self.state), "SHARED_DIR": str(SHARED), "USE_TMPDIR": "1"}
        self.process = subprocess.Popen(
            command,
            shell=True,
            cwd=self.state,
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.monitor, _ = monitor.accept()
        self.shell, _ = shell.accept()
        threading.Thread(target=self.show, args=[self.process.stdout], daemon=True).start()
        prompt = b""
        while not prompt.endswith(b"(qemu) "):
            prompt += self.monitor.recv(1024)

    def connect(self):
        if self.connected:
            return
        self.start()
        with self.nested("waiting for the VM to finish booting"):
            while not select.select([self.shell], [], [], 30)[0]:
                say("no shell yet")
            while b"Spawning backdoor root shell..." not in self.shell.recv(1024):
                pass
        self.connected = True

    def block(self):
        said = b""
        while not said.endswith(b"\n"):
            part = self.shell.recv(4096)
            if not part:
                break
            said += part
        return said

    def execute(self, command, timeout=900):
        self.connect()
        limit = "" if timeout is None else f"timeout {timeout}"
        command = shlex.quote("set -euo pipefail; " + command)
        self.shell.send(f"{limit} bash -c {command} | (base64 -w 0; echo)\n".encode())
        said = base64.b64decode(self.block())
        self.shell.send(b"echo ${PIPESTATUS[0]}\n")
        return int(self.block()), said.decode(errors="replace")

    def end(self):
        if self.process is not None:
            self.process.terminate()
            self.process.wait()


class Container(Machine):
    init = None

    def start(self):
        if self.process is not None:
            return
        environment = {"RUN_NSPAWN_ROOT_DIR": str(self.state), "RUN_NSPAWN_SHARED_DIR": str(SHARED)}
        self.process = subprocess.Popen(
            [self.script],
            env={**environment, **ADDED},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        threading.Thread(target=self.journal, daemon=True).start()

    def journal(self):
        path = self.state / "var/log/journal"
        for _ in range(10):
            if path.exists():
                break
            time.sleep(1)
        else:
            return
        command = ["journalctl", "-f", "-D", path, "-o", "short-monotonic"]
        self.shown = subprocess.Popen(command, stdout=subprocess.PIPE)
        self.show(self.shown.stdout)

    def connect(self):
        self.start()
        if self.init is not None:
            return
        nspawn = None
        for line in self.process.stdout:
            line = line.decode()
            if found := re.match(r"systemd-nspawn's PID is (\d+)", line):
                nspawn = found[1]
            # It waits for the greeting of the console's getty, which is there at about that moment.
            elif "Startup finished in" in line or "multi-user.target" in line:
                break
        else:
            raise Exception(f"{self.name} does not start")
        self.init = Path(f"/proc/{nspawn}/task/{nspawn}/children").read_text().strip()

    def execute(self, command, timeout=900):
        self.connect()
        namespaces = ["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup"]
        # The image's sh is none that knows these, other than NixOS'.
        shell = ["/bin/bash", "-c", f"set -eo pipefail; source /etc/profile; set -u; {command}"]
        ran = subprocess.run(
            ["/usr/bin/nsenter", "--target", self.init, *namespaces, *shell],
            env={},
            timeout=timeout,
            stdout=subprocess.PIPE,
            text=True,
        )
        return ran.returncode, ran.stdout

    def end(self):
        # It leaves the container to its script.
        if self.process is not None:
            self.process.terminate()


class Vlan:
    """A hub, and the interface by which containers reach it."""

    def __init__(self, number):
        sockets = PLACE / f"vde{number}.ctl"
        os.environ[f"QEMU_VDE_SOCKET_{number}"] = str(sockets)
        self.switch = subprocess.Popen(
            ["vde_switch", "--sock", sockets, "--dirmode", "0700", "--hub"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.switch.stdin.write(b"showinfo\n")
        self.switch.stdin.flush()
        for line in self.switch.stdout:
            if b"1000 Success" in line:
                break
        self.plug = subprocess.Popen(["vde_plug2tap", "-s", sockets, f"vde-tap{number}"])

    def end(self):
        for process in self.plug, self.switch:
            process.terminate()
            process.wait()


# What a start script that is no package of Nix' finds its programs by.
ADDED = {"PATH": os.environ["PATH"]}
# The containers of this image boot without a hierarchy of control groups that the host has.
ADDED |= {key: value for key, value in os.environ.items() if key.startswith("SYSTEMD_NSPAWN_")}


def main():
    parser = argparse.ArgumentParser()
    for name in "vm-names", "vm-start-scripts", "container-names", "container-start-scripts":
        parser.add_argument(f"--{name}", nargs="*", default=[])
    parser.add_argument("--vlans", nargs="*", type=int, default=[])
    parser.add_argument("-o", dest="out", type=Path)
    parser.add_argument("script", type=Path)
    given = parser.parse_args()
    SHARED.mkdir(mode=0o700)
    vlans, machines = [], []
    try:
        vlans = [Vlan(number) for number in given.vlans]
        machines = [Vm(*it) for it in zip(given.vm_names, given.vm_start_scripts)]
        machines += [
            Container(*it) for it in zip(given.container_names, given.container_start_scripts)
        ]
        machines.sort(key=lambda machine: machine.name)
        names = {machine.name: machine for machine in machines}

        def start_all():
            for machine in machines:
                machine.start()

        @contextlib.contextmanager
        def subtest(name):
            with nested(f"subtest: {name}"):
                yield

        os.chdir(given.out)
        exec(given.script.read_text(), {**names, "machines": machines, "start_all": start_all, "subtest": subtest})
        for machine in machines:
            if machine.process is not None:
                machine.execute("sync")
    finally:
        for machine in [*machines, *vlans]:
            machine.end()


main()
