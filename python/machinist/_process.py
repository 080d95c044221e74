"""Commands that have run, and commands that run."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from machinist._connection import Request, decode_data, decode_text, encode_data
from machinist._errors import CommandRecord, MachineError, RequestedAssertionFailed
from machinist._retry import seconds

_TAIL = 4000


def tail(text: str) -> str:
    """The end of a long text, for an error."""
    return text if len(text) <= _TAIL else "[...]" + text[-_TAIL:]


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    status: int
    """Exit status as a shell gives it: 128 + n for signal n, 124 after a timeout."""
    stdout: str
    """What it printed to standard output; what is not UTF-8 became U+FFFD."""
    stderr: str
    """What it printed to standard error, likewise."""
    duration: float
    """How long it ran, in seconds."""
    stdout_bytes: bytes = field(repr=False)
    """Standard output as it was."""
    stderr_bytes: bytes = field(repr=False)
    """Standard error as it was."""
    machine: str = field(repr=False)
    """Where it ran."""
    command: str = field(repr=False)
    """What ran, for people."""

    def check(self) -> Result:
        """Raises ``RequestedAssertionFailed`` unless the status is 0."""
        if self.status != 0:
            raise RequestedAssertionFailed(
                f"command `{self.command}` failed (exit code {self.status})", self.record()
            )
        return self

    def record(self) -> CommandRecord:
        """What an error tells of it."""
        return {
            "machine": self.machine,
            "command": self.command,
            "status": self.status,
            "seconds": self.duration,
            "stdout": tail(self.stdout),
            "stderr": tail(self.stderr),
        }


def result_of(machine: str, command: str, answer: dict[str, Any]) -> Result:
    """The result that an answer of the engine tells."""
    return Result(
        status=answer["status"],
        stdout=decode_text(answer["stdout"]),
        stderr=decode_text(answer["stderr"]),
        duration=answer["seconds"],
        stdout_bytes=decode_data(answer["stdout"]),
        stderr_bytes=decode_data(answer["stderr"]),
        machine=machine,
        command=command,
    )


class Process:
    """A command that runs in a machine. It is killed when the script ends.

    Used with ``with``, it is killed at the end of the block.
    """

    def __init__(self, request: Request, machine: str, command: str) -> None:
        self._request = request
        self._machine = machine
        self._command = command
        self._stdout = bytearray()
        self._stderr = bytearray()
        self._searched = 0
        self._began = time.monotonic()
        self._status: int | None = None

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is None:
            self.kill()

    def __repr__(self) -> str:
        state = "running" if self._status is None else f"status {self._status}"
        return f"<Process {self._command!r} on {self._machine}, {state}>"

    @property
    def stdout(self) -> str:
        """What it has printed to standard output so far, as far as it has been read."""
        return self._stdout.decode(errors="replace")

    @property
    def stderr(self) -> str:
        """What it has printed to standard error so far, as far as it has been read."""
        return self._stderr.decode(errors="replace")

    def expect(self, regex: str, timeout: float | timedelta | None = 30) -> re.Match[str]:
        """Waits until standard output, after what the last ``expect`` matched, has ``regex``.

        Raises ``RequestedAssertionFailed`` when the time is over, or when the command ends first.
        """
        limit = seconds(timeout)
        deadline = None if limit is None else time.monotonic() + limit
        pattern = re.compile(regex, re.MULTILINE)
        while True:
            text = self._stdout[self._searched :].decode(errors="surrogateescape")
            match = pattern.search(text)
            if match:
                self._searched += len(text[: match.end()].encode(errors="surrogateescape"))
                return match
            try:
                more = self._take(deadline)
            except TimeoutError:
                self._fail(f"`{self._command}` printed nothing like {regex!r} in {limit:g} s")
            if not more:
                self._fail(
                    f"`{self._command}` ended (exit code {self._status}) "
                    f"without having printed anything like {regex!r}"
                )

    def send(self, data: bytes | str) -> None:
        """Gives it input."""
        self._request.connection.call("send", {"of": self._request.id, "data": encode_data(data)})

    def close_input(self) -> None:
        """Ends its input."""
        self._request.connection.call("close_input", {"of": self._request.id})

    def signal(self, number: int) -> None:
        """Sends a signal to its process group, such as ``signal.SIGHUP``."""
        arguments = {"of": self._request.id, "signal": int(number)}
        self._request.connection.call("signal", arguments)

    def kill(self) -> None:
        """Kills its process group and waits until it is gone. No error if it has ended."""
        if self._status is not None:
            return
        try:
            self.signal(9)
        except MachineError:
            # It has ended in the meantime.
            pass
        self.wait()

    def poll(self) -> int | None:
        """Its exit status, or ``None`` while it runs."""
        try:
            while self._take(time.monotonic()):
                pass
        except TimeoutError:
            pass
        return self._status

    def wait(self, timeout: float | timedelta | None = None) -> int:
        """Waits until it ends and returns its exit status.

        Raises ``RequestedAssertionFailed`` when the time is over.
        """
        limit = seconds(timeout)
        deadline = None if limit is None else time.monotonic() + limit
        try:
            while self._take(deadline):
                pass
        except TimeoutError:
            self._fail(f"`{self._command}` did not end in {limit:g} s")
        assert self._status is not None
        return self._status

    def _take(self, deadline: float | None) -> bool:
        """Takes one more part of its output. False when it has ended."""
        if self._status is not None:
            return False
        part = self._request.next_part(deadline)
        if part is None:
            self._status = int(self._request.result()["status"])
            return False
        if "stdout" in part:
            self._stdout += decode_data(part["stdout"])
        elif "stderr" in part:
            self._stderr += decode_data(part["stderr"])
        return True

    def _fail(self, message: str) -> None:
        raise RequestedAssertionFailed(
            message,
            {
                "machine": self._machine,
                "command": self._command,
                "status": -1 if self._status is None else self._status,
                "seconds": time.monotonic() - self._began,
                "stdout": tail(self.stdout),
                "stderr": tail(self.stderr),
            },
        )
