"""Durations."""

from __future__ import annotations

from datetime import timedelta
from typing import Union

from machinist._retry import seconds

Duration = Union[timedelta, int, float]


def as_seconds(duration: Duration) -> float:
    """A duration as a number of seconds."""
    number = seconds(duration)
    if number is None:
        raise TypeError("a duration must be a number of seconds or a timedelta, not None")
    return number


def as_timedelta(duration: Duration) -> timedelta:
    """A duration as a ``timedelta``."""
    return timedelta(seconds=as_seconds(duration))


__all__ = ["Duration", "as_seconds", "as_timedelta"]
