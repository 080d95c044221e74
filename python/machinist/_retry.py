"""Trying again until something holds."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

from machinist._arguments import number
from machinist._errors import RequestedAssertionFailed

FIRST_PAUSE = 0.02
LONGEST_PAUSE = 1.0


def seconds(timeout: float | timedelta | None) -> float | None:
    """A time limit as seconds; ``None`` is no limit."""
    if isinstance(timeout, timedelta):
        return timeout.total_seconds()
    return timeout if timeout is None else number("timeout", timeout, (int, float))


def retry(
    fn: Callable[[bool], bool],
    timeout_seconds: float | timedelta = 900,
    *,
    timeout: float | timedelta | None = None,
) -> None:
    """Call ``fn`` until it returns true.

    It is called with ``False``, again and again, with pauses that grow from 20 ms to one second;
    and when ``timeout_seconds`` have passed, once more with ``True``, which says that it is the
    last time. ``timeout`` is the older name of ``timeout_seconds``.
    """
    repeat(fn, timeout_seconds if timeout is None else timeout, FIRST_PAUSE, LONGEST_PAUSE)


def repeat(
    fn: Callable[[bool], bool],
    timeout: float | timedelta,
    first_pause: float,
    longest_pause: float,
) -> None:
    """As ``retry``, with other pauses; in seconds."""
    limit = seconds(timeout)
    assert limit is not None
    began = time.monotonic()
    pause = first_pause
    while (elapsed := time.monotonic() - began) < limit:
        if fn(False):
            return
        elapsed = time.monotonic() - began
        time.sleep(min(pause, max(0.0, limit - elapsed)))
        # Slowly: what has come is seen at most about a fifth of the wait later.
        pause = min(pause * 1.25, longest_pause)
    if not fn(True):
        elapsed = time.monotonic() - began
        raise RequestedAssertionFailed(
            f"action timed out after {elapsed:.2f} seconds (timeout={limit:g})"
        )
