"""Waiting for something in a machine."""

from __future__ import annotations

import re
import time

from machinist._arguments import number, path, string
from machinist._commands import Commands
from machinist._errors import MachineError, RequestedAssertionFailed
from machinist._handle import Timeout
from machinist._retry import seconds


class Waits(Commands):
    """Files, ports, sockets, and what the console prints."""

    _console_line = 0

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
            while (part := self._next_part(request)) is not None:
                new = part["console"]
                first = new["next"] - len(new["lines"])
                lines += new["lines"]
                if match := pattern.search("\n".join(lines)):
                    used = match.string.count("\n", 0, match.end()) + 1
                    self._console_line = first + len(new["lines"]) - len(lines) + used
                    self._connection.call("done", {"of": request.id})
                    return
        except BaseException:
            self._connection.abandon(request)
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
