"""What every part of a machine's methods stands on."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Union

from machinist._errors import RequestedAssertionFailed, UsageError
from machinist._retry import seconds
from machinist._variables import NOW

if TYPE_CHECKING:
    from machinist._connection import Request
    from machinist._driver import Driver
    from machinist._logger import Logger

Timeout = Union[float, timedelta, None]
"""Seconds, or a ``timedelta``; ``None`` is no limit."""

Kind = Literal["vm", "container"]

_WITHOUT_A_SHELL = {
    "connect", "console_send", "crash", "describe", "link", "monitor", "qmp", "reboot", "release",
    "screenshot", "shutdown", "start", "wait_shutdown",
}  # fmt: skip
"""What is asked of a machine, but not of its system's shell."""


class Handle:
    """A machine's name, and the way to it."""

    def __init__(self, driver: Driver, name: str, kind: Kind = "vm") -> None:
        self.name = name
        self.kind: Kind = kind
        """``vm`` or ``container``."""
        self._driver = driver
        self._connection = driver.connection
        self._description: dict[str, Any] = {}
        self._shell_after: int | None = None
        """After how many starts the shell comes that the script waits for, if it said so."""
        self._shell_known: int | None = None
        """How many starts there had been when it last came, if the script waited for it."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"

    def log(self, msg: str) -> None:
        """Write a line into the log of the test, as said by this machine."""
        self._connection.call("log", {"text": str(msg), "machine": self.name})

    def log_serial(self, msg: str) -> None:
        """Write a line into the log of the test, as printed by this machine's console."""
        self.logger.log_serial(str(msg), self.name)

    def nested(
        self, msg: str, attrs: Mapping[str, str] | None = None
    ) -> AbstractContextManager[None]:
        """A part of the log under a heading, for ``with``."""
        return self._driver.section(str(msg), {"machine": self.name, **(attrs or {})})

    @property
    def logger(self) -> Logger:
        """The log of the test."""
        return self._driver.logger

    @property
    def out_dir(self) -> Path:
        """Where files of machines are copied to."""
        return self._driver.out_dir

    @property
    def state_dir(self) -> Path:
        """The machine's directory on the host."""
        return Path(self._constant("state_dir"))

    @state_dir.setter
    def state_dir(self, path: Path) -> None:
        """Another directory, as it is: that of a machine which installed this one's system, say.

        Only while the machine is off.
        """
        self._ask("set_state_dir", path=os.path.abspath(path))
        self._description = {}

    @property
    def tmp_dir(self) -> Path:
        """The directory in which those of all machines of start scripts are."""
        return self.shared_dir.parent

    @property
    def shared_dir(self) -> Path:
        """The directory on the host that machines of start scripts see as ``/tmp/shared``."""
        return Path(self._constant("shared_dir"))

    def run_callbacks(self) -> None:
        """Look at the polling conditions that are due."""
        self._driver.check_polling_conditions()

    def _ask(self, verb: str, **arguments: Any) -> Any:
        arguments["machine"] = self.name
        return self._call(verb, arguments)

    def _call(self, verb: str, arguments: dict[str, Any]) -> Any:
        """As ``call`` of the connection, and looks at polling conditions while it waits."""
        self._prepare(verb)
        if self._driver.polling_conditions:
            return self._driver.call_and_poll(verb, arguments)
        return self._connection.call(verb, arguments)

    def _prepare(self, verb: str) -> None:
        """What a script has only noted down until it asks for something."""
        variables = self._driver.variables
        if variables is not None and variables.told != NOW:
            variables.tell()
        if self._shell_after is not None and verb not in _WITHOUT_A_SHELL:
            self._connect()

    def _connect(self) -> None:
        after, self._shell_after = self._shell_after, None
        if after is None:
            self._ask("connect")
        else:
            self._ask("connect", after=after)
        if self._driver.job:
            self._shell_known = self._describe()["boots"] if after is None else after + 1

    def _forget_shell(self) -> None:
        """It starts, restarts or ends by the script's own will."""
        self._shell_after = self._shell_known = None

    def _wait(self, verb: str, timeout: Timeout, **arguments: Any) -> Any:
        """As ``_ask``, for what may take until ``timeout``."""
        limit = seconds(timeout)
        began = time.monotonic()
        try:
            return self._ask(verb, timeout=limit, **arguments)
        except RequestedAssertionFailed as error:
            raise self._timed_out(error, began, limit) from None

    def _timed_out(
        self, error: RequestedAssertionFailed, began: float, limit: float | None
    ) -> RequestedAssertionFailed:
        """The same in words that scripts of the NixOS driver look for, if it is about time."""
        if not self._driver.job or limit is None or " timed out after " not in str(error):
            return error
        elapsed = time.monotonic() - began
        message = f"action timed out after {elapsed:.2f} seconds (timeout={limit:g}): {error}"
        return RequestedAssertionFailed(message, error.command)

    def _next_part(self, request: Request) -> dict[str, Any] | None:
        """As ``next_part`` of the request, and looks at polling conditions while it waits."""
        if self._driver.polling_conditions:
            part: dict[str, Any] | None = self._driver.poll_while(request, request.next_part)
            return part
        return request.next_part()

    def _describe(self) -> dict[str, Any]:
        """What the engine knows of it now."""
        description: dict[str, Any] = self._connection.call("describe", {"machine": self.name})
        self._description = description
        return description

    def _constant(self, name: str) -> str:
        description = self._description or self._describe()
        value = description.get(name)
        if value is None:
            raise UsageError(f"{self.name} has no {name}: it is not run by a start script")
        return str(value)

    def _only_vms(self, method: str) -> None:
        if self.kind != "vm":
            raise UsageError(f"{method}() is for VMs alone, and {self.name} is a container")
