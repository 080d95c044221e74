"""A machine of a lab, with the methods that NixOS tests know and a few more."""

from __future__ import annotations

import os
import re
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

from machinist._arguments import number, path, string
from machinist._connection import decode_text, encode_data
from machinist._errors import CommandRecord, MachineError, RequestedAssertionFailed
from machinist._process import Process, Result, result_of, tail
from machinist._retry import seconds

if TYPE_CHECKING:
    from machinist._driver import Driver

Timeout = Union[float, timedelta, None]
"""Seconds, or a ``timedelta``; ``None`` is no limit."""

_PROPERTY = re.compile(r"^([^=]+)=(.*)$")


class Machine:
    """A machine of the lab.

    Every method that needs the machine's system starts the machine if it is off, and waits until
    commands can run in it.
    """

    def __init__(self, driver: Driver, name: str) -> None:
        self.name = name
        self._driver = driver
        self._connection = driver.connection
        self._console_line = 0

    def __repr__(self) -> str:
        return f"<Machine {self.name!r}>"

    # Life

    def start(self, allow_reboot: bool = False) -> None:
        """Begin to start the machine. Does not wait until it has.

        ``allow_reboot`` is taken for compatibility: machines may always reboot.
        """
        self._connection.call("start", {"machines": [self.name]})

    def shutdown(self, timeout: Timeout = 900) -> None:
        """Ask the machine's system to power off, and wait until it has."""
        self._ask("shutdown", timeout=seconds(timeout))

    def crash(self) -> None:
        """Cut the power: the machine is off at once, and nothing in it gets to know."""
        self._ask("crash")

    def reboot(self) -> None:
        """Make the machine's system start anew."""
        self._ask("reboot")

    def wait_for_shutdown(self, timeout: Timeout = None) -> None:
        """Wait until the machine is off. Does not make it so."""
        self._ask("wait_shutdown", timeout=seconds(timeout))

    def wait_until_ready(self, timeout: Timeout = 900) -> None:
        """Wait until the machine's system says that its start has finished."""
        self._ask("wait_ready", timeout=seconds(timeout))

    def is_up(self) -> bool:
        """Whether commands can run in it now."""
        return self._state() in ("up", "ready")

    @property
    def booted(self) -> bool:
        """Whether it runs, though it may be at the very beginning of its start."""
        return self._state() not in ("off", "failed")

    def _state(self) -> str:
        for machine in self._connection.call("status")["machines"]:
            if machine["name"] == self.name:
                return str(machine["state"])
        return "off"

    # Commands

    def execute(
        self,
        command: str,
        check_return: bool = True,
        check_output: bool = True,
        timeout: Timeout = 900,
    ) -> tuple[int, str]:
        """Run a shell command. Returns its exit status and its standard output.

        It runs as root in a login environment, under ``set -euo pipefail``: it fails if one of
        several commands fails, if any part of a pipeline does, or at a variable that is not set.
        The call waits until standard output is closed: redirect it where a command goes into the
        background. What is printed to standard error goes to the log.

        ``timeout`` is in seconds; after it the command is killed and the status is 124. With
        ``check_return=False`` the status is -1 always, and a machine that goes away is no error.
        With ``check_output=False`` the call does not wait at all, and returns ``(-2, "")``.
        """
        arguments: dict[str, Any] = {"machine": self.name, "command": _shell(command, timeout)}
        if not check_output:
            arguments["detach"] = True
            self._connection.call("execute", arguments)
            return -2, ""
        if check_return:
            answer = self._connection.call("execute", arguments)
            return answer["status"], decode_text(answer["stdout"])
        try:
            answer = self._connection.call("execute", arguments)
        except MachineError:
            return -1, ""
        return -1, decode_text(answer["stdout"])

    def succeed(self, *commands: str, timeout: Timeout = None) -> str:
        """Run shell commands one after the other, each of which must succeed.

        Returns their standard outputs, one behind the other. See ``execute``.
        """
        return self._each(commands, timeout, lambda status: status == 0, _failed)

    def fail(self, *commands: str, timeout: Timeout = None) -> str:
        """Like ``succeed``, but every command must end with another status than 0."""
        return self._each(commands, timeout, lambda status: status != 0, _succeeded)

    def _each(
        self,
        commands: Sequence[str],
        timeout: Timeout,
        good: Callable[[int], bool],
        message: Callable[[str, int], str],
    ) -> str:
        output = ""
        for command in commands:
            answer = self._connection.call(
                "execute", {"machine": self.name, "command": _shell(command, timeout)}
            )
            status: int = answer["status"]
            if not good(status):
                raise RequestedAssertionFailed(
                    message(command, status), _record(self.name, command, answer)
                )
            output += decode_text(answer["stdout"])
        return output

    def wait_until_succeeds(self, command: str, timeout: Timeout = 900) -> str:
        """Repeat a shell command until it succeeds. Returns its last standard output.

        The pauses between grow from 20 ms to one second.
        """
        return self._repeat(command, "success", timeout)

    def wait_until_fails(self, command: str, timeout: Timeout = 900) -> str:
        """Like ``wait_until_succeeds``, but until the command fails."""
        return self._repeat(command, "failure", timeout)

    def _repeat(self, command: str, until: str, timeout: Timeout) -> str:
        answer = self._ask(
            "retry", command=_shell(command, timeout), until=until, timeout=seconds(timeout)
        )
        return decode_text(answer["stdout"])

    def run(
        self,
        argv: Sequence[str | os.PathLike[str]] | str,
        *,
        user: str | None = None,
        timeout: Timeout = None,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        input: bytes | str | None = None,
        check: bool = False,
    ) -> Result:
        """Run a program with its arguments as they are; no shell reads them. (A string is for the
        shell, as in ``execute``.)

        Returns status, standard output, standard error and duration. With ``check`` another status
        than 0 is an error.
        """
        command = _command(argv, user, timeout, env, cwd, input)
        answer = self._ask("execute", command=command)
        result = result_of(self.name, _text(argv), answer)
        return result.check() if check else result

    def spawn(
        self,
        command: Sequence[str | os.PathLike[str]] | str,
        *,
        user: str | None = None,
        timeout: Timeout = None,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
    ) -> Process:
        """Begin a command, and let it run. A string is for the shell, a sequence is not.

        It ends with the script, or earlier by ``kill``. What it prints is read by ``expect``.
        """
        self._connection.keep_reading()
        arguments = {
            "machine": self.name,
            "command": _command(command, user, timeout, env, cwd, None),
        }
        request = self._connection.send("spawn", arguments)
        if request.next_part() is None:
            # It did not come to run: this raises why.
            request.result()
        return Process(request, self.name, _text(command))

    def sleep(self, secs: float) -> None:
        """Sleep, by the machine's clock."""
        self.succeed(f"sleep {secs}")

    # systemd

    def systemctl(self, q: str, user: str | None = None) -> tuple[int, str]:
        """Run ``systemctl`` with arguments as a shell takes them, or ``systemctl --user`` of
        ``user``. Returns exit status and standard output."""
        if user is None:
            return self.execute(f"systemctl {q}")
        inner = f"XDG_RUNTIME_DIR=/run/user/$(id -u) systemctl --user {q}"
        return self.execute(f"su -l {shlex.quote(user)} --shell /bin/sh -c {shlex.quote(inner)}")

    def start_job(self, jobname: str, user: str | None = None) -> tuple[int, str]:
        """``systemctl start``."""
        return self.systemctl(f"start {jobname}", user)

    def stop_job(self, jobname: str, user: str | None = None) -> tuple[int, str]:
        """``systemctl stop``."""
        return self.systemctl(f"stop {jobname}", user)

    def wait_for_unit(self, unit: str, user: str | None = None, timeout: Timeout = 900) -> None:
        """Wait until a systemd unit is active.

        It is an error if the unit fails, or is inactive while no job is pending.
        """
        self._ask("wait_unit", unit=string("unit", unit), user=user, timeout=seconds(timeout))

    def get_unit_info(self, unit: str, user: str | None = None) -> dict[str, str]:
        """All properties of a systemd unit, as ``systemctl show`` tells them."""
        status, lines = self.systemctl(f'--no-pager show "{unit}"', user)
        if status != 0:
            raise RequestedAssertionFailed(
                f'retrieving systemctl info for unit "{unit}"'
                f"{_under(user)} failed with exit code {status}"
            )
        matches = (_PROPERTY.match(line) for line in lines.split("\n"))
        return {match[1]: match[2] for match in matches if match}

    def get_unit_property(self, unit: str, property: str, user: str | None = None) -> str:
        """One property of a systemd unit."""
        status, lines = self.systemctl(f'--no-pager show "{unit}" --property="{property}"', user)
        if status != 0:
            raise RequestedAssertionFailed(
                f'retrieving systemctl property "{property}" for unit "{unit}"'
                f"{_under(user)} failed with exit code {status}"
            )
        match = _PROPERTY.match(lines)
        if match is None or match[1] != property:
            raise RequestedAssertionFailed(
                f'unit "{unit}" has no property "{property}": systemctl show says {lines!r}'
            )
        return match[2]

    def require_unit_state(self, unit: str, require_state: str = "active") -> None:
        """Assert that a systemd unit is in a state now."""
        state = self.get_unit_info(unit)["ActiveState"]
        if state != require_state:
            raise RequestedAssertionFailed(
                f"Expected unit '{unit}' to be in state '{require_state}' "
                f"but it is in state '{state}'"
            )

    # Waiting

    def wait_for_file(self, filename: str, timeout: Timeout = 900) -> None:
        """Wait until a file exists in the machine."""
        self._ask("wait_file", path=path("filename", filename), timeout=seconds(timeout))

    def wait_for_open_port(
        self, port: int, addr: str = "localhost", timeout: Timeout = 900
    ) -> None:
        """Wait until something listens on a TCP port, as seen from inside the machine."""
        self._wait_port(port, addr, True, timeout)

    def wait_for_closed_port(
        self, port: int, addr: str = "localhost", timeout: Timeout = 900
    ) -> None:
        """Wait until nothing listens on a TCP port, as seen from inside the machine."""
        self._wait_port(port, addr, False, timeout)

    def _wait_port(self, port: int, addr: str, is_open: bool, timeout: Timeout) -> None:
        self._ask(
            "wait_port",
            port=number("port", port),
            address=string("addr", addr),
            open=is_open,
            timeout=seconds(timeout),
        )

    def wait_for_open_unix_socket(
        self, addr: str, is_datagram: bool = False, timeout: Timeout = 900
    ) -> None:
        """Wait until something listens on a Unix socket in the machine."""
        self._ask(
            "wait_socket",
            path=path("addr", addr),
            datagram=bool(is_datagram),
            timeout=seconds(timeout),
        )

    def wait_for_console_text(self, regex: str, timeout: Timeout = None) -> None:
        """Wait until the machine's console has printed ``regex``.

        What an earlier call has matched does not count again. A match may span lines.
        """
        pattern = re.compile(regex)
        limit = seconds(timeout)
        request = self._connection.send(
            "console",
            {
                "machine": self.name,
                "from": self._console_line,
                "waiting_for": f"{regex!r} on the console",
                "timeout": limit,
            },
        )
        began = time.monotonic()
        lines: list[str] = []
        try:
            while (part := request.next_part()) is not None:
                new = part["console"]
                first = new["next"] - len(new["lines"])
                lines += new["lines"]
                if match := pattern.search("\n".join(lines)):
                    used = match.string.count("\n", 0, match.end()) + 1
                    self._console_line = first + len(new["lines"]) - len(lines) + used
                    self._connection.call("done", {"of": request.id})
                    return
        except KeyboardInterrupt:
            request.cancel()
            raise
        try:
            request.result()
        except RequestedAssertionFailed as error:
            raise RequestedAssertionFailed(
                f"the console printed nothing like {regex!r} in "
                f"{time.monotonic() - began:.1f} s"
            ) from error
        raise MachineError(f"the console of {self.name} ended")

    def get_console_log(self) -> str:
        """What the machine's console has printed in this session.

        Over all starts of the machine; of a console that says very much, the last
        50,000 lines or 16 MiB.
        """
        request = self._connection.send("console", {"machine": self.name, "only_past": True})
        lines: list[str] = []
        while (part := request.next_part()) is not None:
            lines += part["console"]["lines"]
        request.result()
        return "\n".join(lines)

    # Files

    def copy_from_host(self, source: str | os.PathLike[str], target: str) -> None:
        """Copy a file or a tree of the host into the machine, with its permissions.

        ``target`` is where it will be, not the directory for it; directories above are made.
        """
        host = os.path.abspath(source)
        self._ask("copy_in", host=host, guest=str(target))

    def copy_from_machine(self, source: str, target_dir: str = "") -> None:
        """Copy a file or a tree out of the machine.

        It goes to ``target_dir`` under the output directory, with the name that it has in the
        machine. Symbolic links of the machine are copied as links, and never followed.
        """
        host = self._driver.out_dir / target_dir / Path(source).name
        host.parent.mkdir(parents=True, exist_ok=True)
        self._ask("copy_out", guest=str(source), host=os.path.abspath(host))

    # Telling

    def log(self, msg: str) -> None:
        """Write a line into the log of the test, as said by this machine."""
        self._connection.call("log", {"text": str(msg), "machine": self.name})

    def nested(self, msg: str, attrs: Mapping[str, str] | None = None) -> Any:
        """A part of the test, for ``with``."""
        return self._driver.subtest(f"{self.name}: {msg}")

    def _ask(self, verb: str, **arguments: Any) -> Any:
        arguments["machine"] = self.name
        return self._connection.call(verb, arguments)


def _shell(command: str, timeout: Timeout) -> dict[str, Any]:
    string("command", command)
    if timeout is None:
        return {"program": {"shell": command}}
    return {"program": {"shell": command}, "timeout": seconds(timeout)}


def _command(
    argv: Sequence[str | os.PathLike[str]] | str,
    user: str | None,
    timeout: Timeout,
    env: Mapping[str, str] | None,
    cwd: str | os.PathLike[str] | None,
    input: bytes | str | None,
) -> dict[str, Any]:
    command: dict[str, Any]
    if isinstance(argv, str):
        command = {"program": {"shell": argv}}
    else:
        command = {"program": {"argv": [os.fspath(word) for word in argv]}}
    if user is not None:
        command["user"] = string("user", user)
    if timeout is not None:
        command["timeout"] = seconds(timeout)
    if env:
        command["env"] = dict(env)
    if cwd is not None:
        command["cwd"] = os.fspath(cwd)
    if input is not None:
        command["input"] = encode_data(input)
    return command


def _text(argv: Sequence[str | os.PathLike[str]] | str) -> str:
    return argv if isinstance(argv, str) else shlex.join(os.fspath(word) for word in argv)


def _record(machine: str, command: str, answer: dict[str, Any]) -> CommandRecord:
    return {
        "machine": machine,
        "command": command,
        "status": answer["status"],
        "seconds": answer["seconds"],
        "stdout": tail(decode_text(answer["stdout"])),
        "stderr": tail(decode_text(answer["stderr"])),
    }


def _failed(command: str, status: int) -> str:
    return f"command `{command}` failed (exit code {status})"


def _succeeded(command: str, _status: int) -> str:
    return f"command `{command}` unexpectedly succeeded"


def _under(user: str | None) -> str:
    return "" if user is None else f' under user "{user}"'
