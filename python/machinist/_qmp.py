"""QEMU's monitors."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any

from machinist._arguments import string
from machinist._commands import Commands
from machinist._connection import Connection, Request
from machinist._errors import MachineError
from machinist._handle import Timeout
from machinist._retry import seconds

Event = dict[str, Any]
_NONE: Mapping[str, Any] = {}
_REFUSED = re.compile(r"QEMU refused [^:]*: (.*) \((\w+)\)$", re.DOTALL)


class QMPAPIError(RuntimeError):
    """QEMU refused a command."""

    def __init__(self, message: Mapping[str, Any]) -> None:
        error = message.get("error", {})
        self.class_name: str = error.get("class", "GenericError")
        self.description: str = error.get("desc", "")
        self.transaction_id = message.get("id")
        super().__init__(self.description)

    def __str__(self) -> str:
        return f"QEMU refused the command: {self.description} ({self.class_name})"


class QMPSession:
    """QEMU's machine protocol, of one VM."""

    def __init__(self, connection: Connection, machine: str) -> None:
        self._connection = connection
        self._machine = machine
        self._request: Request | None = None
        self._kept: deque[Event] = deque()

    def send(self, cmd: str, args: Mapping[str, Any] = _NONE) -> dict[str, Any]:
        """Do a command. Returns QEMU's answer, with its ``return``."""
        arguments: dict[str, Any] = {"machine": self._machine, "execute": string("cmd", cmd)}
        if args:
            arguments["arguments"] = dict(args)
        try:
            return {"return": self._connection.call("qmp", arguments)}
        except MachineError as error:
            refused = _REFUSED.search(str(error))
            if refused is None:
                raise
            raise QMPAPIError({"error": {"desc": refused[1], "class": refused[2]}}) from error

    def events(self, timeout: Timeout = 10) -> Iterator[Event]:
        """The events that are there already. ``timeout`` is not needed."""
        self._take_what_is_there()
        while self._kept:
            yield self._kept.popleft()

    def wait_for_event(self, timeout: Timeout = 10) -> Event:
        """The next event. Raises ``TimeoutError`` when there is none in time."""
        limit = seconds(timeout)
        return self.next_event(None if limit is None else time.monotonic() + limit)

    def next_event(self, deadline: float | None) -> Event:
        """The next event. Raises ``TimeoutError`` at ``deadline``, by the monotonic clock."""
        if self._kept:
            return self._kept.popleft()
        event = self._part(deadline)
        if event is None:
            raise MachineError(f"{self._machine} has ended, and so have its QMP events")
        return event

    def listen(self) -> None:
        """From now on no event is missed."""
        if self._request is None:
            self._connection.keep_reading()
            self._request = self._connection.send("qmp_events", {"machine": self._machine})

    def close(self) -> None:
        """Nothing more is wanted."""
        if self._request is not None:
            self._request.cancel()
            self._request = None

    def _take_what_is_there(self) -> None:
        try:
            while (event := self._part(time.monotonic())) is not None:
                self._kept.append(event)
        except TimeoutError:
            pass

    def _part(self, deadline: float | None) -> Event | None:
        self.listen()
        assert self._request is not None
        part = self._request.next_part(deadline)
        if part is None:
            request, self._request = self._request, None
            request.result()
            return None
        event: Event = part["qmp_event"]
        return event


class Qmp(Commands):
    """The human monitor and QMP."""

    _qmp_session: QMPSession | None = None

    def send_monitor_command(self, command: str) -> str:
        """Do a command of QEMU's monitor for people. Returns what it answered; in a NixOS test with
        the monitor's next prompt behind it, as the NixOS driver does."""
        self._only_vms("send_monitor_command")
        answer = str(self._ask("monitor", command=string("command", command)))
        return f"{answer}\n(qemu) " if self._driver.job else answer

    @property
    def qmp_client(self) -> QMPSession:
        """QEMU's machine protocol: ``send`` and ``events``."""
        self._only_vms("qmp_client")
        if self._qmp_session is None:
            self._qmp_session = QMPSession(self._connection, self.name)
        return self._qmp_session

    def wait_for_qmp_event(
        self, event_filter: Callable[[Event], bool], timeout: float | timedelta = 600
    ) -> Event:
        """Wait for the first event for which ``event_filter`` is true; earlier ones are lost.

        Raises ``TimeoutError`` when the time is over.
        """
        self._only_vms("wait_for_qmp_event")
        limit = seconds(timeout)
        assert limit is not None
        deadline = time.monotonic() + limit
        while True:
            event = self.qmp_client.next_event(deadline)
            if event_filter(event):
                return event
