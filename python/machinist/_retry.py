"""Trying again until something holds."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from machinist._arguments import number
from machinist._errors import RequestedAssertionFailed

FIRST_PAUSE = 0.02
LONGEST_PAUSE = 1.0
INFINITE = float("inf")
DEFAULT_TIMEOUT = timedelta(minutes=15)
_LAST = ("last", "final")
_TIME = ("remain", "timeout", "left", "seconds")


def seconds(timeout: float | timedelta | None) -> float | None:
    """A time limit as seconds; ``None`` is no limit."""
    if isinstance(timeout, timedelta):
        return timeout.total_seconds()
    return timeout if timeout is None else number("timeout", timeout, (int, float))


def retry(
    fn: Callable[[Any], bool],
    timeout_seconds: float | timedelta | None = None,
    timeout: float | timedelta | None = DEFAULT_TIMEOUT,
) -> None:
    """Call ``fn`` until it returns true, with pauses that grow from 20 ms to one second.

    There are two kinds of ``fn``, told apart by the name and the type of its parameter:

    - ``fn(last_try)`` is called with ``False``, and when ``timeout`` has passed once more with
      ``True``, which says that it is the last time;
    - ``fn(remaining)`` is called with the seconds that are left, and never after the time is over.

    With ``timeout=None`` there is no limit, and ``fn`` is called with ``None``. The other name of
    ``timeout`` is ``timeout_seconds``.
    """
    if timeout_seconds is not None:
        if timeout is not DEFAULT_TIMEOUT:
            raise TypeError("retry() takes timeout or timeout_seconds, not both")
        timeout = timeout_seconds
    if timeout is None:
        repeat(lambda _last: fn(None), INFINITE, FIRST_PAUSE, LONGEST_PAUSE)
    elif _wants_time(fn):
        _within(fn, timeout)
    else:
        repeat(fn, timeout, FIRST_PAUSE, LONGEST_PAUSE)


def _wants_time(fn: Callable[[Any], bool]) -> bool:
    """Whether a function wants the time that is left, and not whether it is the last try."""
    try:
        parameter = next(iter(inspect.signature(fn).parameters.values()))
    except (TypeError, ValueError, StopIteration):
        return False
    if parameter.annotation is not inspect.Parameter.empty:
        # A type, or its name, where annotations are not evaluated.
        said = getattr(parameter.annotation, "__name__", None) or str(parameter.annotation)
        if "bool" in said:
            return False
        if "float" in str(parameter.annotation) or said in ("float", "int", "timedelta"):
            return True
    name = parameter.name.lower()
    return any(word in name for word in _TIME) and not any(word in name for word in _LAST)


def _within(fn: Callable[[float], bool], timeout: float | timedelta) -> None:
    """As ``retry``, and no call begins after the time is over."""
    limit = seconds(timeout)
    assert limit is not None
    began = time.monotonic()
    pause = FIRST_PAUSE
    while (left := limit - (time.monotonic() - began)) > 0:
        if fn(left):
            return
        time.sleep(min(pause, max(0.0, limit - (time.monotonic() - began))))
        pause = min(pause * 1.25, LONGEST_PAUSE)
    raise _over(began, limit)


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
        raise _over(began, limit)


def _over(began: float, limit: float) -> RequestedAssertionFailed:
    elapsed = time.monotonic() - began
    return RequestedAssertionFailed(
        f"action timed out after {elapsed:.2f} seconds (timeout={limit:g})"
    )
