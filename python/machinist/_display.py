"""Sockets of a machine on the host, and among them that of its X display."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from machinist._commands import Commands
from machinist._errors import MachineError
from machinist._process import Process

_VNC = (
    "-shared -forever -nopw -quiet "
    # At the socket alone: no ports.
    "-rfbport 0 -rfbportv6 0"
).split()


class Display(Commands):
    """Sockets, and VNC."""

    _vnc_server: Process | None = None
    _vnc_path: Path | None = None

    def forward_socket(self, guest_socket: str, host_socket: str | os.PathLike[str]) -> None:
        """Carry connections to a Unix socket of the host to one in the machine.

        No network is needed. The socket of the host is made, and is there until the session ends.
        """
        host = os.path.abspath(host_socket)
        self._ask("forward", host_socket=host, guest_socket=str(guest_socket))

    def vnc_socket(self) -> Path:
        """A Unix socket of the host at which VNC viewers see the machine's X display.

        Needs ``x11vnc`` in the machine, which is started when it is needed first.
        """
        if self._vnc_path is not None and self._vnc_server is not None:
            if self._vnc_server.poll() is None:
                return self._vnc_path
        inside = f"/tmp/.machinist-vnc-{os.getpid()}-{id(self)}"
        display, authority, program = self._x11()
        title = f"{self.name} ({'nspawn' if self.kind == 'container' else 'qemu'})"
        command = [program, "-display", display, "-unixsock", inside, "-desktop", title, *_VNC]
        if self.run(["test", "-e", authority]).status == 0:
            command += ["-auth", authority]
        self.run(["rm", "-f", inside])
        if self.run(f"command -v {program}").status != 0:
            raise MachineError(
                f"the X display of {self.name} needs x11vnc in it to be seen: install it "
                "(package x11vnc on Debian and NixOS)"
            )
        server = self.spawn(command)
        self._wait("wait_socket", 30, path=inside, datagram=False)
        path = Path(os.path.dirname(self._connection.path)) / f"{self.name}.vnc"
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        self.forward_socket(inside, path)
        self._vnc_server, self._vnc_path = server, path
        return path

    def end_vnc(self) -> None:
        """End what serves the display by VNC, if it was started."""
        if self._vnc_server is not None:
            self._vnc_server.kill()
            self._vnc_server = None

    @property
    def display_configuration(self) -> dict[str, Any]:
        """What the driver's configuration says of the machine's displays, if anything."""
        displays: dict[str, Any] = self._driver.job.get("displays") or {}
        return displays.get(self.name) or {}

    def _x11(self) -> tuple[str, str, str]:
        """The display, its authority file, and the program that serves it by VNC."""
        told = self.display_configuration
        target: dict[str, Any] = (told.get("display_targets") or [{}])[0]
        exporter: dict[str, Any] = (told.get("display_exporters") or {}).get("x11") or {}
        return (
            str(target.get("display", ":0")),
            str(target.get("xauthority", "/root/.Xauthority")),
            str(exporter.get("server", "x11vnc")),
        )
