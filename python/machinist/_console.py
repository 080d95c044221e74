"""A machine's serial console."""

from __future__ import annotations

import itertools
import queue
import re
import time
from collections import deque

from machinist._arguments import string
from machinist._commands import Commands
from machinist._connection import encode_data
from machinist._errors import MachineError, RequestedAssertionFailed
from machinist._handle import Timeout
from machinist._retry import FIRST_PAUSE, seconds


class Console(Commands):
    """What the console prints, and typing into it."""

    _console_line = 0
    """The first line that no wait has found yet."""
    _boot_line = 0
    """The first line of the last start."""
    _next_boot_line = 0
    """The same, once it is started again."""
    _last_lines: LastLines | None = None

    def wait_for_console_text(self, regex: str, timeout: Timeout = None) -> None:
        """Wait until the machine's console has printed ``regex``.

        What an earlier call has matched does not count again. A match may span lines. In a NixOS
        test it may also be one of the lines run together, as the NixOS driver reads them.
        """
        self._follow_start()
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
            while (part := self._next_part(request)) is not None:
                new = part["console"]
                first = new["next"] - len(new["lines"])
                lines += new["lines"]
                if used := self._found(pattern, lines):
                    self._console_line = first + len(new["lines"]) - len(lines) + used
                    self._connection.call("done", {"of": request.id})
                    return
        except BaseException:
            self._connection.abandon(request)
            raise
        try:
            request.result()
        except RequestedAssertionFailed as error:
            words = f"the console printed nothing like {regex!r}"
            elapsed = time.monotonic() - began
            if not self._driver.job:
                raise RequestedAssertionFailed(f"{words} in {elapsed:.1f} s") from error
            raise RequestedAssertionFailed(
                f"action timed out after {elapsed:.2f} seconds (timeout={limit:g}): {words}"
            ) from error
        raise MachineError(f"the console of {self.name} ended")

    def get_console_log(self) -> str:
        """What the machine's console has printed.

        In a lab, over all starts of the machine; for machines of start scripts, in its last one.
        Of a console that says very much, the last 50,000 lines or 16 MiB.
        """
        self._follow_start()
        lines, _ = self._console_from(self._boot_line)
        return "\n".join(lines)

    def _found(self, pattern: re.Pattern[str], lines: list[str]) -> int:
        """How many lines it takes until they have a match; 0: all are not enough."""
        if match := pattern.search("\n".join(lines)):
            return match.string.count("\n", 0, match.end()) + 1
        if not self._driver.job or not (match := pattern.search("".join(lines))):
            return 0
        ends = itertools.accumulate(len(line) for line in lines)
        return next((used for used, end in enumerate(ends, 1) if match.end() <= end), len(lines))

    @property
    def last_lines(self) -> LastLines:
        """What the console has printed since the last match, as a queue of lines."""
        if self._last_lines is None:
            self._last_lines = LastLines(self)
        return self._last_lines

    @property
    def full_console_log(self) -> list[str]:
        """The lines of ``get_console_log``."""
        self._follow_start()
        return self._console_from(self._boot_line)[0]

    def send_console(self, chars: str) -> None:
        """Type a text into the serial console."""
        self._only_vms("send_console")
        self._ask("console_send", data=encode_data(string("chars", chars)))

    def _console_ends(self) -> None:
        """The machine is off. What its console said counts no more once it is started again."""
        if self._driver.job:
            lines, end = self._console_from(self._boot_line)
            if lines:
                self._next_boot_line = end

    def _console_begins(self) -> None:
        """The machine is about to be started, if it is off."""
        self._boot_line = self._next_boot_line
        self._console_line = max(self._console_line, self._boot_line)

    def _follow_start(self) -> None:
        """Whatever needed the machine may have started it again."""
        if self._next_boot_line > self._boot_line and self._describe()["booted"]:
            self._console_begins()

    def _console_from(self, line: int) -> tuple[list[str], int]:
        """The lines of the console that there are, from one on; and the number behind the last."""
        arguments = {"machine": self.name, "from": line, "only_past": True}
        request = self._connection.send("console", arguments)
        lines: list[str] = []
        end = line
        while (part := request.next_part()) is not None:
            lines += part["console"]["lines"]
            end = part["console"]["next"]
        request.result()
        return lines, end


class LastLines:
    """The console as a queue of lines, for scripts that read it by themselves.

    What is taken from it, ``wait_for_console_text`` does not find any more, and the other way round.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lines: deque[str] = deque()
        self._first = 0
        """The number of the first of them."""

    def get(self, block: bool = True, timeout: Timeout = None) -> str:
        """Takes the next line. ``queue.Empty`` says that there is none, or none in time."""
        limit = seconds(timeout)
        until = None if limit is None else time.monotonic() + limit
        while self.empty():
            if not block or (until is not None and time.monotonic() >= until):
                raise queue.Empty
            time.sleep(FIRST_PAUSE)
        self._first += 1
        self._console._console_line = self._first
        return self._lines.popleft()

    def get_nowait(self) -> str:
        """Takes the next line, if there is one."""
        return self.get(block=False)

    def empty(self) -> bool:
        """Whether there is none."""
        console = self._console
        console._follow_start()
        if not self._lines or self._first != console._console_line:
            lines, end = console._console_from(console._console_line)
            self._lines, self._first = deque(lines), end - len(lines)
        return not self._lines
