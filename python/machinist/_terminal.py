"""A shell in a machine, joined to a terminal or a socket: the other form of the session protocol.

After the answer to the verb ``shell`` a connection carries frames: a byte for the type, four for
the length, and as many bytes.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import struct
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from machinist._connection import error_of
from machinist._errors import MachineError

_HEAD = struct.Struct(">BI")
_INPUT, _STDOUT, _STDERR, _SIZE, _STATUS, _FAULT = 0, 1, 2, 3, 5, 6
_CHUNK = 1 << 16


class Stream:
    """A command in a machine, as frames."""

    def __init__(self, path: str, machine: str, pty: dict[str, Any] | None) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(path)
        self._input = b""
        self._line()
        asked: dict[str, Any] = {"machine": machine}
        if pty is not None:
            asked["pty"] = pty
        request = {"id": 1, "do": {"shell": asked}}
        self.socket.sendall(json.dumps(request).encode() + b"\n")
        answer = json.loads(self._line())
        if "error" in answer:
            self.socket.close()
            raise error_of(answer["error"])

    def send(self, kind: int, data: bytes) -> None:
        """One frame."""
        self.socket.sendall(_HEAD.pack(kind, len(data)) + data)

    def frames(self) -> Iterator[tuple[int, bytes]]:
        """The frames that what arrived up to now makes, after reading once."""
        chunk = self.socket.recv(_CHUNK)
        if not chunk:
            raise MachineError("the session ended the shell")
        self._input += chunk
        while len(self._input) >= _HEAD.size:
            kind, length = _HEAD.unpack_from(self._input)
            if len(self._input) < _HEAD.size + length:
                return
            data = self._input[_HEAD.size : _HEAD.size + length]
            self._input = self._input[_HEAD.size + length :]
            yield kind, data

    def _line(self) -> bytes:
        while (end := self._input.find(b"\n")) < 0:
            chunk = self.socket.recv(_CHUNK)
            if not chunk:
                raise MachineError("the session has ended")
            self._input += chunk
        line, self._input = self._input[:end], self._input[end + 1 :]
        return line


def join_shell(path: str, machine: str) -> int:
    """Joins this process's terminal (or what it has instead) to a shell. Returns its status."""
    sys.stdout.flush()
    on_terminal = sys.stdin.isatty()
    stream = Stream(path, machine, _pty() if on_terminal else None)
    with stream.socket:
        if not on_terminal:
            return _relay(stream, sys.stdin.fileno(), sys.stdout.fileno())
        with _raw(sys.stdin.fileno()), _sizes_to(stream):
            return _relay(stream, sys.stdin.fileno(), sys.stdout.fileno())


def relay_shell(path: str, machine: str, other: socket.socket) -> None:
    """Joins a socket to a shell."""
    try:
        stream = Stream(path, machine, None)
        with stream.socket:
            _relay(stream, other.fileno(), other.fileno())
    except OSError:
        # The other end has gone; so does the shell, with its connection.
        pass
    finally:
        try:
            other.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def _relay(stream: Stream, source: int, target: int) -> int:
    sources = [source, stream.socket.fileno()]
    while True:
        ready, _, _ = select.select(sources, [], [])
        if source in ready:
            data = os.read(source, _CHUNK)
            stream.send(_INPUT, data)
            if not data:
                sources.remove(source)
        if stream.socket.fileno() not in ready:
            continue
        for kind, data in stream.frames():
            if kind in (_STDOUT, _STDERR):
                _write(target, data)
            elif kind == _STATUS:
                return int.from_bytes(data, "big", signed=True)
            elif kind == _FAULT:
                raise MachineError(data.decode(errors="replace"))


def _write(target: int, data: bytes) -> None:
    while data:
        data = data[os.write(target, data) :]


def _pty() -> dict[str, Any]:
    columns, rows = shutil.get_terminal_size()
    return {"rows": rows, "cols": columns, "term": os.environ.get("TERM", "dumb")}


@contextmanager
def _raw(terminal: int) -> Iterator[None]:
    before = termios.tcgetattr(terminal)
    tty.setraw(terminal)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


@contextmanager
def _sizes_to(stream: Stream) -> Iterator[None]:
    def changed(*_: object) -> None:
        columns, rows = shutil.get_terminal_size()
        stream.send(_SIZE, struct.pack(">HH", rows, columns))

    before = signal.signal(signal.SIGWINCH, changed)
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)
