"""Characters as keys of QEMU's ``sendkey``, on a US keyboard."""

from __future__ import annotations

import string

_BY_SCAN_CODE = {
    0x0C: ("-", "_"),
    0x0D: ("=", "+"),
    0x1A: ("[", "{"),
    0x1B: ("]", "}"),
    0x27: (";", ":"),
    0x28: ("'", '"'),
    0x29: ("`", "~"),
    0x2B: ("\\", "|"),
    0x33: (",", "<"),
    0x34: (".", ">"),
    0x35: ("/", "?"),
}
"""A key's own character, and the one with shift. Letters and digits have names of their own."""

_ABOVE_DIGITS = "!@#$%^&*()"
"""With shift on the keys from 1 to 0, whose scan codes begin with 2."""


def _table() -> dict[str, str]:
    keys = {" ": "spc", "\n": "ret"}
    for code, (plain, shifted) in _BY_SCAN_CODE.items():
        keys[plain] = f"0x{code:02X}"
        keys[shifted] = f"shift-0x{code:02X}"
    for code, shifted in enumerate(_ABOVE_DIGITS, start=2):
        keys[shifted] = f"shift-0x{code:02X}"
    for letter in string.ascii_uppercase:
        keys[letter] = f"shift-{letter.lower()}"
    return keys


CHAR_TO_KEY: dict[str, str] = _table()
"""What ``sendkey`` wants for a character. Those that are missing are their own names."""


def key_of(key: str) -> str:
    """The name for ``sendkey`` of a character or of a key that has a name already."""
    return CHAR_TO_KEY.get(key, key)
