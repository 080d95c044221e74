"""Keys, pictures, and reading them."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import unittest
import zlib
from unittest import mock

from machinist import MachineError
from machinist._keys import key_of
from machinist._ocr import arguments_of_magick, read_text, read_variants


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


def png() -> bytes:
    """A white picture of one pixel."""
    picture = b"\x89PNG\r\n\x1a\n"
    header = struct.pack(">2I5B", 1, 1, 8, 0, 0, 0, 0)
    for kind, data in [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0\xff")), (b"IEND", b"")]:
        body = kind + data
        picture += struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))
    return picture


class Reading(unittest.TestCase):
    def test_both_colours_are_made_black(self) -> None:
        self.assertNotIn("-negate", arguments_of_magick(False))
        self.assertIn("-negate", arguments_of_magick(True))

    def test_what_is_missing_is_named(self) -> None:
        with mock.patch.dict(os.environ, {"PATH": "/nonexistent"}):
            with self.assertRaisesRegex(MachineError, "tesseract.*apt-get install tesseract-ocr"):
                read_text(png())

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
