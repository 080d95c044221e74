"""The life of a machine."""

from __future__ import annotations

import subprocess
from typing import Any

from machinist._console import Console
from machinist._errors import RequestedAssertionFailed
from machinist._handle import Timeout
from machinist._retry import seconds


class Life(Console):
    """Starting, stopping, and what comes between."""

    _given_up = False
    """The script said that it does not run, and wants nothing of it any more."""

    def start(self, allow_reboot: bool = False) -> None:
        """Begin to start the machine. Does not wait until it has.

        A VM of a start script ends when its system wants to reboot, unless ``allow_reboot``.
        """
        arguments: dict[str, Any] = {"machines": [self.name]}
        if allow_reboot:
            arguments["allow_reboot"] = True
        self._given_up = False
        self._forget_shell()
        self._console_begins()
        self._call("start", arguments)

    def connect(self) -> None:
        """Start the machine if it is off, and wait until commands can run in it.

        After ``connected = False``, wait until it has started again.
        """
        self._connect()

    def release(self) -> None:
        """End the machine at once, if it runs."""
        self._forget_shell()
        self._ask("release")
        self._console_ends()

    def switch_root(self) -> None:
        """Let a VM that is held in its initrd go on to its real root, and wait for its shell there."""
        self._only_vms("switch_root")
        self._forget_shell()
        self._ask("switch_root", timeout=900)

    def shutdown(self, timeout: Timeout = 900) -> None:
        """Ask the machine's system to power off, and wait until it has."""
        if self._given_up:
            return
        self._forget_shell()
        self._wait("shutdown", timeout)
        self._console_ends()

    def crash(self) -> None:
        """Cut the power: the machine is off at once, and nothing in it gets to know."""
        if self._given_up:
            return
        self._forget_shell()
        self._ask("crash")
        self._console_ends()

    def reboot(self) -> None:
        """Make the machine's system start anew."""
        self._forget_shell()
        self._ask("reboot")

    def wait_for_shutdown(self, timeout: Timeout = None) -> None:
        """Wait until the machine is off. Does not make it so."""
        if self._given_up:
            return
        self._wait("wait_shutdown", timeout)
        self._console_ends()

    def wait_until_ready(self, timeout: Timeout = 900) -> None:
        """Wait until the machine's system says that its start has finished."""
        self._wait("wait_ready", timeout)

    def is_up(self) -> bool:
        """Whether commands can run in it now."""
        return self._state() in ("up", "ready")

    @property
    def booted(self) -> bool:
        """Whether it runs, though it may be at the very beginning of its start.

        A script may set it to ``False``: then nothing is asked of the machine any more.
        """
        return self._state() not in ("off", "failed")

    @booted.setter
    def booted(self, value: bool) -> None:
        self._given_up = not value

    @property
    def connected(self) -> bool:
        """Whether commands can run in it now.

        A script sets it to ``False`` where the machine is about to start again by itself. What then
        needs it waits for that start, also if the system before still answers, or if it came first.
        """
        return self._shell_after is None and self.is_up()

    @connected.setter
    def connected(self, value: bool) -> None:
        if value:
            self._shell_after = None
        elif self._shell_after is None:
            known = self._shell_known
            self._shell_after = self._describe()["boots"] if known is None else known

    @property
    def pid(self) -> int | None:
        """The process of its start script or of its backend, while it runs."""
        pid: int | None = self._describe().get("pid")
        return pid

    @property
    def process(self) -> BackendProcess | None:
        """The process that it runs in, while it runs."""
        pid = self.pid
        return None if pid is None else BackendProcess(self, pid)

    def ssh_backdoor_command(self, index: int | None = None) -> str:
        """The command that opens a root shell in it by SSH, from any terminal of this host.

        ``index`` was the machine's number where the way was a vsock; it is not needed.
        """
        return str(self._ask("ssh"))

    def _state(self) -> str:
        if self._given_up:
            return "off"
        for machine in self._connection.call("status")["machines"]:
            if machine["name"] == self.name:
                return str(machine["state"])
        return "off"


class BackendProcess:
    """The process that a machine runs in. It is the engine's; this asks the engine about it."""

    def __init__(self, machine: Life, pid: int) -> None:
        self.pid = pid
        self._machine = machine

    def poll(self) -> int | None:
        """``None`` while the machine runs, 0 afterwards."""
        return None if self._machine.booted else 0

    def wait(self, timeout: Timeout = None) -> int:
        """Wait until the machine is off."""
        try:
            self._machine.wait_for_shutdown(timeout)
        except RequestedAssertionFailed as error:
            raise subprocess.TimeoutExpired(self._machine.name, seconds(timeout) or 0) from error
        return 0

    def terminate(self) -> None:
        """End the machine at once."""
        self._machine.release()

    kill = terminate
