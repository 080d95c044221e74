"""A machine of a lab, with the methods that NixOS tests know and a few more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from machinist._files import Files
from machinist._firmware import Efi
from machinist._interact import Interact
from machinist._life import Life
from machinist._network import Network
from machinist._seeing import Seeing
from machinist._units import Units
from machinist._viewer import show
from machinist._waits import Waits

if TYPE_CHECKING:
    from machinist._driver import Driver


class Machine(Life, Units, Waits, Seeing, Files, Network, Efi, Interact):
    """A machine of the lab.

    Every method that needs the machine's system starts the machine if it is off, and waits until
    commands can run in it.
    """


class QemuMachine(Machine):
    """A VM."""

    def clone(self, count: int = 1) -> list[Machine]:
        """Make machines of this one as it is now: with all that was done to it, and with names
        (``NAME-c1`` and so on), addresses, machine ids, SSH host keys and random numbers of their
        own. They run when this returns, and all machines know their names.
        """
        answer = self._ask("clone", count=int(count))
        return self._driver.adopt(answer["machines"])


class NspawnMachine(Machine):
    """A container."""

    def start(self, allow_reboot: bool = False) -> None:
        """Begin to start the container. Does not wait until it has.

        In an interactive session, its X display is shown if the configuration has a viewer.
        """
        is_new = bool(self._driver.job.get("interactive")) and not self.booted
        super().start(allow_reboot)
        if is_new:
            show(self)


def machine_of(driver: Driver, name: str, kind: str | None) -> Machine:
    """The machine with this name, as what it is."""
    if kind == "container":
        return NspawnMachine(driver, name, "container")
    return QemuMachine(driver, name, "vm")
