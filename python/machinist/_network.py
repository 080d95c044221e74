"""A machine's cables and ports, as seen from outside."""

from __future__ import annotations

from machinist._arguments import number
from machinist._commands import Commands


class Network(Commands):
    """Links, and ports of the host."""

    def block(self) -> None:
        """Pull the machine's network cables; in a NixOS test, that of its first VLAN alone."""
        self._ask("link", up=False)

    def unblock(self) -> None:
        """Plug in again what ``block`` pulled."""
        self._ask("link", up=True)

    def forward_port(self, host_port: int = 8080, guest_port: int = 80) -> None:
        """Carry connections to a port of this host's loopback to a port inside the machine."""
        self._ask(
            "forward",
            host_port=number("host_port", host_port),
            guest_port=number("guest_port", guest_port),
        )
