"""Keys, pictures, and reading them."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
import unittest
import zlib
from unittest import mock

from machinist import MachineError
from machinist._keys import key_of
from machinist._ocr import arguments_of_magick, read_text, read_variants
from machinist._pictures import png, png_of_xwd
from machinist._rfb import picture


class Keys(unittest.TestCase):
    def test_characters(self) -> None:
        pressed = {
            "a": "a",
            "A": "shift-a",
            "7": "7",
            "&": "shift-0x08",
            "!": "shift-0x02",
            ")": "shift-0x0B",
            "-": "0x0C",
            "_": "shift-0x0C",
            "~": "shift-0x29",
            "|": "shift-0x2B",
            '"': "shift-0x28",
            "?": "shift-0x35",
            " ": "spc",
            "\n": "ret",
            "ctrl-alt-delete": "ctrl-alt-delete",
        }
        self.assertEqual({key: key_of(key) for key in pressed}, pressed)

    def test_every_printable_character_has_a_key(self) -> None:
        for code in range(0x20, 0x7F):
            key = key_of(chr(code))
            self.assertTrue(len(key) > 1 or key.isalnum(), chr(code))


def pixels(png: bytes) -> bytes:
    """The rows of a PNG that `png` made."""
    length = struct.unpack_from(">I", png, 33)[0]
    return zlib.decompress(png[41 : 41 + length])


class Pictures(unittest.TestCase):
    WIDTH, HEIGHT = 2, 1

    def dump(self, data: bytes, bits: int, little: bool, row_bytes: int) -> bytes:
        """What xwd prints of a picture of two pixels."""
        name = b"x\0"
        fields = [0] * 25
        fields[0:6] = [100 + len(name), 7, 2, 24, self.WIDTH, self.HEIGHT]
        fields[7] = 0 if little else 1
        fields[11], fields[12] = bits, row_bytes
        fields[14:17] = [0xFF0000, 0xFF00, 0xFF]
        fields[19] = 1
        return struct.pack(">25I", *fields) + name + bytes(12) + data

    def test_xwd(self) -> None:
        red_then_mixed = b"\0\xff\0\0\x01\x02\x03"
        forms = [
            (b"\x00\x00\xff\x00\x03\x02\x01\x00", 32, True, 8),
            (b"\x00\xff\x00\x00\x00\x01\x02\x03", 32, False, 8),
            (b"\x00\x00\xff\x03\x02\x01\xaa\xaa", 24, True, 8),
        ]
        for data, bits, little, row_bytes in forms:
            with self.subTest(bits=bits, little=little):
                made = png_of_xwd(self.dump(data, bits, little, row_bytes))
                self.assertEqual(pixels(made), red_then_mixed)
                self.assertEqual(struct.unpack_from(">2I", made, 16), (2, 1))

    def test_what_is_no_picture(self) -> None:
        with self.assertRaisesRegex(MachineError, "which is no picture"):
            png_of_xwd(b"nothing")
        with self.assertRaisesRegex(MachineError, "with 8 bits"):
            png_of_xwd(self.dump(b"\0\0", 8, True, 2))


class Vnc(unittest.TestCase):
    """Against a server of two pixels, which says what real ones say in between."""

    def serve(self, version: bytes, kinds: bytes) -> str:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        path = os.path.join(directory.name, "vnc")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(path)
        listener.listen()

        def talk() -> None:
            with listener, listener.accept()[0] as client:
                client.sendall(version)
                client.recv(12, socket.MSG_WAITALL)
                if version < b"RFB 003.007\n":
                    client.sendall(struct.pack(">I", kinds[0]))
                else:
                    client.sendall(bytes([len(kinds)]) + kinds)
                    if not client.recv(1):
                        return
                    client.sendall(struct.pack(">I", 0))
                if not client.recv(1):
                    return
                client.sendall(struct.pack(">HH16xI", 2, 1, 4) + b"name")
                client.recv(20 + 8 + 10, socket.MSG_WAITALL)
                client.sendall(b"\x02" + b"\x03" + struct.pack(">3xI", 2) + b"hi")
                for x, pixel in enumerate([b"\x00\x00\xff\x00", b"\x03\x02\x01\x00"]):
                    client.sendall(struct.pack(">BxH4Hi", 0, 1, x, 0, 1, 1, 0) + pixel)

        server = threading.Thread(target=talk)
        server.start()
        self.addCleanup(server.join)
        return path

    def test_pictures(self) -> None:
        for version, kinds in [(b"RFB 003.008\n", b"\x02\x01"), (b"RFB 003.003\n", b"\x01")]:
            with self.subTest(version):
                shown = picture(self.serve(version, kinds), seconds=10)
                self.assertEqual(pixels(shown), b"\0\xff\0\0\x01\x02\x03")

    def test_passwords(self) -> None:
        with self.assertRaisesRegex(MachineError, "asks for a password"):
            picture(self.serve(b"RFB 003.008\n", b"\x02"), seconds=10)


class Reading(unittest.TestCase):
    def test_both_colours_are_made_black(self) -> None:
        self.assertNotIn("-negate", arguments_of_magick(False))
        self.assertIn("-negate", arguments_of_magick(True))

    def test_what_is_missing_is_named(self) -> None:
        blank = png(1, 1, b"\0\0\0\0")
        with mock.patch.dict(os.environ, {"PATH": "/nonexistent"}):
            with self.assertRaisesRegex(MachineError, "tesseract.*apt-get install tesseract-ocr"):
                read_text(blank)

    @unittest.skipUnless(shutil.which("tesseract"), "tesseract is not installed")
    @unittest.skipUnless(shutil.which("convert"), "ImageMagick is not installed")
    def test_text(self) -> None:
        draw = "convert -font DejaVu-Sans -background navy -fill white -pointsize 28".split()
        label = "label:Welcome to machinist\\nlogin: alice"
        drawn = subprocess.run([*draw, label, "png:-"], stdout=subprocess.PIPE, check=True).stdout
        self.assertIn("machinist", read_text(drawn))
        variants = read_variants(drawn)
        self.assertEqual(len(variants), 3)
        self.assertTrue(any("alice" in text for text in variants))


if __name__ == "__main__":
    unittest.main()
