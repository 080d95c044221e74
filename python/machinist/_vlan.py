"""VLANs, as scripts see them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from machinist._errors import UsageError

if TYPE_CHECKING:
    from machinist._driver import Driver


class VLan:
    """One Ethernet segment of the lab."""

    def __init__(self, driver: Driver, nr: int) -> None:
        self.nr = nr
        """Its number."""
        self._driver = driver

    def __repr__(self) -> str:
        return f"<VLan {self.nr}>"

    def block(self) -> None:
        """Pull the cables of all machines on it."""
        self._driver.connection.call("link", {"vlan": self.nr, "up": False})

    def unblock(self) -> None:
        """Plug the cables of all machines on it in again."""
        self._driver.connection.call("link", {"vlan": self.nr, "up": True})

    @property
    def socket_dir(self) -> Path:
        """The directory of its socket, for programs that speak VDE, where it has one for all."""
        directory = os.environ.get(f"QEMU_VDE_SOCKET_{self.nr}")
        if directory is None:
            raise UsageError(
                f"VLAN {self.nr} has no socket for all: each machine of a start script has its own"
            )
        return Path(directory)
