"""Arguments of the wrong type are told where they are given, by their name."""

from __future__ import annotations

import os
from typing import Any


def string(name: str, value: Any) -> str:
    """A text."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {_kind(value)}")
    return value


def path(name: str, value: Any) -> str:
    """A path, as text."""
    found = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(found, str):
        raise TypeError(f"{name} must be a str or a path, not {_kind(value)}")
    return found


def number(name: str, value: Any, kinds: type | tuple[type, ...] = int) -> Any:
    """A number of one of ``kinds``; a ``bool`` is none."""
    if not isinstance(value, kinds) or isinstance(value, bool):
        wanted = "an int" if kinds is int else "a number of seconds or a timedelta"
        raise TypeError(f"{name} must be {wanted}, not {_kind(value)}")
    return value


def _kind(value: Any) -> str:
    return "None" if value is None else type(value).__name__
