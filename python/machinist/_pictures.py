"""Pictures of X11 displays: from ``xwd`` to PNG."""

from __future__ import annotations

import struct
import zlib

from machinist._errors import MachineError

_HEADER = struct.Struct(">25I")
_VERSION = 7
_Z_PIXMAP = 2


def png_of_xwd(dump: bytes) -> bytes:
    """A picture that ``xwd`` printed, as PNG. Displays with real colours only (24 or 32 bits)."""
    if len(dump) < _HEADER.size:
        raise MachineError(f"xwd printed {len(dump)} bytes, which is no picture")
    fields = _HEADER.unpack_from(dump)
    header_size, version, pixmap, _depth, width, height = fields[:6]
    little, bits, row_bytes = fields[7] == 0, fields[11], fields[12]
    masks, colours = fields[14:17], fields[19]
    if version != _VERSION or pixmap != _Z_PIXMAP or bits not in (24, 32):
        raise MachineError(
            f"xwd printed a picture of version {version} with {bits} bits for a pixel: only "
            "displays with 24 or 32 are understood"
        )
    start = header_size + 12 * colours
    # Where red, green and blue are among the bytes of a pixel.
    places = [(mask.bit_length() - 1) // 8 for mask in masks]
    size = bits // 8
    if not little:
        places = [size - 1 - place for place in places]
    rows = bytearray()
    for y in range(height):
        row = dump[start + y * row_bytes : start + y * row_bytes + width * size]
        pixels = bytearray(3 * width)
        for colour, place in enumerate(places):
            pixels[colour::3] = row[place::size]
        rows += b"\0" + pixels
    return png(width, height, bytes(rows))


def png(width: int, height: int, rows: bytes) -> bytes:
    """A PNG of rows of red, green and blue, each row with a zero byte in front."""
    header = struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows, 6)), (b"IEND", b"")]
    picture = b"\x89PNG\r\n\x1a\n"
    for kind, data in chunks:
        body = kind + data
        picture += struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))
    return picture
