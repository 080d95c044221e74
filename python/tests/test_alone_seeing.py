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
from machinist._pictures import png, png_of_xwd


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


def pixels(picture: bytes) -> bytes:
    """The rows of a PNG that `png` made."""
    length = struct.unpack_from(">I", picture, 33)[0]
    return zlib.decompress(picture[41 : 41 + length])


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
                picture = png_of_xwd(self.dump(data, bits, little, row_bytes))
                self.assertEqual(pixels(picture), red_then_mixed)
                self.assertEqual(struct.unpack_from(">2I", picture, 16), (2, 1))

    def test_what_is_no_picture(self) -> None:
        with self.assertRaisesRegex(MachineError, "which is no picture"):
            png_of_xwd(b"nothing")
        with self.assertRaisesRegex(MachineError, "with 8 bits"):
            png_of_xwd(self.dump(b"\0\0", 8, True, 2))


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
        picture = subprocess.run([*draw, label, "png:-"], stdout=subprocess.PIPE, check=True).stdout
        self.assertIn("machinist", read_text(picture))
        variants = read_variants(picture)
        self.assertEqual(len(variants), 3)
        self.assertTrue(any("alice" in text for text in variants))


if __name__ == "__main__":
    unittest.main()
