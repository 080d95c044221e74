"""The session protocol: lines of JSON over the session's Unix socket.

One connection serves all threads. There is no reader thread: whoever waits for an answer reads,
and hands on what is for others. So a call of a script with one thread costs one write and one
read, without a switch of threads.
"""

from __future__ import annotations

import base64
import itertools
import json
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from machinist._errors import MachineError, RequestedAssertionFailed, UsageError

PROTOCOL = 1
"""The version of the session protocol that is spoken here."""

_CHUNK = 1 << 16
_compact = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, check_circular=False).encode


def decode_data(data: Any) -> bytes:
    """Bytes of the protocol: a string, or ``{"base64": ...}`` where they are not UTF-8."""
    if isinstance(data, str):
        return data.encode()
    return base64.b64decode(data["base64"])


def decode_text(data: Any) -> str:
    """Bytes of the protocol as text; what is not UTF-8 becomes U+FFFD."""
    if isinstance(data, str):
        return data
    return base64.b64decode(data["base64"]).decode(errors="replace")


def encode_data(data: bytes | str) -> Any:
    """Bytes for the protocol."""
    if isinstance(data, str):
        return data
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode("ascii")}


def error_of(fault: dict[str, Any]) -> Exception:
    """The exception for an error answer."""
    kind = fault.get("kind")
    message = fault.get("message", "")
    command = fault.get("command")
    if kind == "test":
        return RequestedAssertionFailed(message, command)
    if kind == "usage":
        return UsageError(message, command)
    return MachineError(message, command)


class Request:
    """A request that has not ended, or whose end has not been looked at."""

    __slots__ = ("connection", "ended", "error", "id", "ok", "parts")

    def __init__(self, connection: Connection, number: int) -> None:
        self.connection = connection
        self.id = number
        self.parts: deque[dict[str, Any]] = deque()
        self.ended = False
        self.ok: Any = None
        self.error: dict[str, Any] | None = None

    def next_part(self, deadline: float | None = None) -> dict[str, Any] | None:
        """The next part of the answer, or ``None`` when it has ended.

        Raises ``TimeoutError`` at ``deadline``, by the monotonic clock.
        """
        self.connection.wait(lambda: bool(self.parts) or self.ended, deadline)
        return self.parts.popleft() if self.parts else None

    def result(self, deadline: float | None = None) -> Any:
        """The end of the answer; parts that nobody took are lost."""
        self.connection.wait(lambda: self.ended, deadline)
        if self.error is not None:
            raise error_of(self.error)
        return self.ok

    def cancel(self) -> None:
        """Asks the engine to end it."""
        if not self.ended:
            self.connection.send("cancel", {"of": self.id})


class Connection:
    """A connection to a session. Any number of threads may use it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.connect(path)
        except OSError as error:
            self._socket.close()
            raise MachineError(f"cannot connect to the session at {path}: {error}") from error
        self._buffer = bytearray()
        self._numbers = itertools.count(1)
        self._sending = threading.Lock()
        self._changed = threading.Condition(threading.Lock())
        self._reading = False
        self._broken: str | None = None
        self._interrupted: set[int] = set()
        self._requests: dict[int, Request] = {}
        self._pump: threading.Thread | None = None
        line = self._read_line(None)
        hello = json.loads(line) if line else {}
        if hello.get("protocol") != PROTOCOL:
            self._socket.close()
            raise MachineError(
                f"the session at {path} speaks version {hello.get('protocol')} of the session "
                f"protocol, not {PROTOCOL}: use the package of the machinist that started it"
            )
        self.hello: dict[str, Any] = hello

    def close(self) -> None:
        """Closes the connection. What it began in machines is ended."""
        self._broken = self._broken or "the connection to the session is closed"
        try:
            # Wakes a thread that reads, which closing alone does not.
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._socket.close()

    def call(self, verb: str, arguments: dict[str, Any] | None = None) -> Any:
        """Asks for something and waits for its end."""
        request = self.send(verb, arguments)
        try:
            return request.result()
        except KeyboardInterrupt:
            self.abandon(request)
            raise

    def send(self, verb: str, arguments: dict[str, Any] | None = None) -> Request:
        """Asks for something without waiting."""
        request = Request(self, next(self._numbers))
        what = verb if arguments is None else {verb: arguments}
        line = _compact({"id": request.id, "do": what}).encode() + b"\n"
        self._requests[request.id] = request
        try:
            with self._sending:
                self._socket.sendall(line)
        except OSError as error:
            raise MachineError(self._broken or f"the session has ended ({error})") from error
        return request

    def wait(self, ready: Callable[[], bool], deadline: float | None = None) -> None:
        """Reads until ``ready``. Raises ``TimeoutError`` at ``deadline``."""
        changed = self._changed
        with changed:
            while not ready():
                if self._interrupted and threading.get_ident() in self._interrupted:
                    self._interrupted.discard(threading.get_ident())
                    raise KeyboardInterrupt
                if self._broken is not None:
                    raise MachineError(self._broken)
                if self._reading:
                    left = None if deadline is None else deadline - time.monotonic()
                    if left is not None and left <= 0:
                        raise TimeoutError
                    changed.wait(left)
                    continue
                self._read(deadline)

    def interrupt(self, thread: int, on: bool = True) -> None:
        """Makes a thread's call raise ``KeyboardInterrupt``, the one that waits or the next.

        With ``on=False``, takes that back, if it has not come to it yet.
        """
        with self._changed:
            if on:
                self._interrupted.add(thread)
                self._changed.notify_all()
            else:
                self._interrupted.discard(thread)
        if on:
            # If that thread is the one that reads, only an answer wakes it: to anything.
            self.send("status")

    def _read(self, deadline: float | None) -> None:
        """Reads one line and hands it to its request. Called, and returns, with the lock held."""
        self._reading = True
        self._changed.release()
        line: bytes | None = None
        broken = None
        try:
            line = self._read_line(deadline)
            if line is None:
                broken = "the session has ended"
        except OSError as error:
            if isinstance(error, TimeoutError):
                raise
            broken = f"the connection to the session broke: {error}"
        finally:
            self._changed.acquire()
            self._reading = False
            if broken is not None and self._broken is None:
                self._broken = broken
            if line is not None:
                self._hand_out(json.loads(line))
            self._changed.notify_all()

    def _hand_out(self, reply: dict[str, Any]) -> None:
        request = self._requests.get(reply["id"])
        if request is None:
            return
        if "part" in reply:
            request.parts.append(reply["part"])
            return
        del self._requests[request.id]
        request.ok = reply.get("ok")
        request.error = reply.get("error")
        request.ended = True

    def _read_line(self, deadline: float | None) -> bytes | None:
        """A line without its end; ``None`` at the end of the connection."""
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            if deadline is not None:
                left = deadline - time.monotonic()
                if left <= 0 or not select.select([self._socket], [], [], left)[0]:
                    raise TimeoutError
            chunk = self._socket.recv(_CHUNK)
            if not chunk:
                return None
            self._buffer += chunk
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line

    def abandon(self, request: Request) -> None:
        """Ends a request that nobody will look at any more."""
        try:
            request.cancel()
        except MachineError:
            pass
        self._requests.pop(request.id, None)

    def keep_reading(self) -> None:
        """From now on, read also while nobody waits, so that spawned commands do not stand still."""
        with self._sending:
            if self._pump is None:
                self._pump = threading.Thread(target=self._run_pump, name="machinist", daemon=True)
                self._pump.start()

    def _run_pump(self) -> None:
        try:
            self.wait(lambda: False)
        except MachineError:
            # Whoever waits for something is told by his own call.
            pass
