"""A picture of a screen that is served by VNC (the protocol is called RFB)."""

from __future__ import annotations

import socket
import struct

from machinist._errors import MachineError
from machinist._pictures import png

_SECURITY_NONE = 1
_SET_FORMAT, _SET_ENCODINGS, _ASK = 0, 2, 3
_UPDATE, _COLOURS, _BELL, _TEXT = 0, 1, 2, 3
_FORMAT = struct.pack(">4B3H3B3x", 32, 24, 0, 1, 255, 255, 255, 16, 8, 0)
"""32 bits for a pixel, little endian: blue, green, red, nothing."""


def picture(path: str, seconds: float = 30) -> bytes:
    """What the server at a Unix socket shows, as PNG. ``seconds``: how long it may stay silent."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(seconds)
        connection.connect(path)
        return _Client(connection).picture()


class _Client:
    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def picture(self) -> bytes:
        width, height = self._begin()
        send = self._connection.sendall
        send(struct.pack(">B3x", _SET_FORMAT) + _FORMAT)
        send(struct.pack(">BxHi", _SET_ENCODINGS, 1, 0))
        send(struct.pack(">BB4H", _ASK, 0, 0, 0, width, height))
        line = 1 + 3 * width
        rows = bytearray(line * height)
        missing = width * height
        while missing > 0:
            (kind,) = self._take(">B")
            if kind == _UPDATE:
                missing -= self._update(rows, line)
            elif kind == _TEXT:
                (length,) = self._take(">3xI")
                self._read(length)
            elif kind == _COLOURS:
                _, count = self._take(">xHH")
                self._read(6 * count)
            elif kind != _BELL:
                raise MachineError(f"the VNC server says what nobody understands ({kind})")
        return png(width, height, bytes(rows))

    def _begin(self) -> tuple[int, int]:
        """Greets, and returns width and height."""
        version = self._read(12)
        if not version.startswith(b"RFB 003."):
            raise MachineError(f"there is no VNC server: it says {version!r}")
        old = version < b"RFB 003.007\n"
        self._connection.sendall(b"RFB 003.003\n" if old else b"RFB 003.008\n")
        if old:
            (offered,) = self._take(">I")
            kinds = bytes([offered])
        else:
            (count,) = self._take(">B")
            kinds = self._read(count)
        if _SECURITY_NONE not in kinds:
            raise MachineError("the VNC server asks for a password, or lets nobody in")
        if not old:
            self._connection.sendall(bytes([_SECURITY_NONE]))
            # Before version 3.8 it said nothing here, but those who speak 3.7 alone are gone.
            (refused,) = self._take(">I")
            if refused:
                raise MachineError("the VNC server lets nobody in")
        # Others may watch at the same time.
        self._connection.sendall(b"\x01")
        width, height, length = self._take(">HH16xI")
        self._read(length)
        return width, height

    def _update(self, rows: bytearray, line: int) -> int:
        """Takes rectangles into ``rows``. Returns how many pixels they had."""
        (count,) = self._take(">xH")
        pixels = 0
        for _ in range(count):
            x, y, width, height, encoding = self._take(">4Hi")
            if encoding != 0:
                raise MachineError(f"the VNC server sends what nobody asked for ({encoding})")
            data = self._read(4 * width * height)
            for row in range(height):
                part = data[4 * width * row : 4 * width * (row + 1)]
                start = line * (y + row) + 1 + 3 * x
                for colour in range(3):
                    end = start + 3 * width
                    rows[start + colour : end : 3] = part[2 - colour :: 4]
            pixels += width * height
        return pixels

    def _take(self, form: str) -> tuple[int, ...]:
        return struct.unpack(form, self._read(struct.calcsize(form)))

    def _read(self, length: int) -> bytes:
        data = bytearray()
        while len(data) < length:
            chunk = self._connection.recv(length - len(data))
            if not chunk:
                raise MachineError("the VNC server closed the connection")
            data += chunk
        return bytes(data)
