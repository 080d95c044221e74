"""Waiting for something in a machine."""

from __future__ import annotations

import re

from machinist._arguments import number, path, string
from machinist._commands import Commands
from machinist._handle import Timeout


_FOR_A_SHELL = re.compile(r"[^\w@%+=:,./-]")


class Waits(Commands):
    """Files, ports and sockets.

    Where ``attempt_timeout`` is taken, it is the limit of one look. A look of the agent does not
    block, so that it matters only where a shell looks.
    """

    def wait_for_file(
        self, filename: str, timeout: Timeout = 900, attempt_timeout: Timeout = None
    ) -> None:
        """Wait until a file exists in the machine."""
        name = path("filename", filename)
        if self._driver.job and _FOR_A_SHELL.search(name):
            # The NixOS driver lets a shell read it, so there are scripts with `~` and `*`.
            self._repeat(f"test -e {name}", "success", timeout, attempt_timeout)
        else:
            self._wait("wait_file", timeout, path=name)

    def wait_for_open_port(
        self,
        port: int,
        addr: str = "localhost",
        timeout: Timeout = 900,
        attempt_timeout: Timeout = None,
    ) -> None:
        """Wait until something listens on a TCP port, as seen from inside the machine."""
        self._wait_port(port, addr, True, timeout)

    def wait_for_closed_port(
        self,
        port: int,
        addr: str = "localhost",
        timeout: Timeout = 900,
        attempt_timeout: Timeout = None,
    ) -> None:
        """Wait until nothing listens on a TCP port, as seen from inside the machine."""
        self._wait_port(port, addr, False, timeout)

    def _wait_port(self, port: int, addr: str, is_open: bool, timeout: Timeout) -> None:
        if self._driver.job and isinstance(port, str) and port.isdecimal():
            # Scripts that no types are checked of give what a configuration says, as it stands there.
            port = int(port)
        self._wait(
            "wait_port",
            timeout,
            port=number("port", port),
            address=string("addr", addr),
            open=is_open,
        )

    def wait_for_open_unix_socket(
        self,
        addr: str,
        is_datagram: bool = False,
        timeout: Timeout = 900,
        attempt_timeout: Timeout = None,
    ) -> None:
        """Wait until something listens on a Unix socket in the machine."""
        name = path("addr", addr)
        self._wait("wait_socket", timeout, path=name, datagram=bool(is_datagram))
