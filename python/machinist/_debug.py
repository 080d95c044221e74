"""``debug`` of a script: standing still where somebody wants to look."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from types import FrameType
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from machinist._driver import Driver


class DebugAbstract(ABC):
    """What a script can ask for."""

    @abstractmethod
    def breakpoint(self, host: str = "127.0.0.1", port: int = 4444) -> None:
        """Stand still here until somebody lets the test go on, if debugging is asked for."""


class DebugNop(DebugAbstract):
    """Debugging is not asked for."""

    def breakpoint(self, host: str = "127.0.0.1", port: int = 4444) -> None:
        pass


class Debug(DebugAbstract):
    """Debugging is asked for: a breakpoint pauses the session."""

    def __init__(self, driver: Driver, socket: str) -> None:
        self._driver = driver
        self._socket = socket

    def breakpoint(self, host: str = "127.0.0.1", port: int = 4444) -> None:
        """Stand still here until somebody lets the test go on.

        Meanwhile there is a Python prompt with the names that are known here. The log says how to
        get to it. ``host`` and ``port`` are not needed: it is at a Unix socket.
        """
        caller = sys._getframe(1)
        self.pause(caller, None)

    def pause(self, frame: FrameType, failure: dict[str, Any] | None) -> None:
        """Stand still in ``frame``, because of ``failure`` or because the script wants it."""
        # Few scripts stand still.
        from machinist._prompt import Prompt

        with Prompt(self._socket, frame, self._driver.connection):
            arguments = {} if failure is None else {"failure": failure}
            self._driver.connection.call("breakpoint", arguments)
