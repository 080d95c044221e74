"""Conditions that have to hold while a part of a script runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Optional

from machinist._retry import DEFAULT_TIMEOUT, repeat, seconds

if TYPE_CHECKING:
    from machinist._driver import Driver
    from machinist._logger import AbstractLogger

Condition = Callable[[], Optional[bool]]
"""Holds if it returns true or ``None``; does not if it returns false or raises."""


class PollingConditionError(Exception):
    """A condition does not hold any more."""


class PollingCondition:
    """A condition, and when it was looked at last."""

    def __init__(
        self,
        condition: Condition,
        logger: AbstractLogger,
        seconds_interval: float | timedelta | None = None,
        description: str | None = None,
        *,
        interval: float | timedelta | None = None,
    ) -> None:
        self.condition = condition
        self.logger = logger
        self.seconds_interval = _interval(seconds_interval, interval)
        name: str = getattr(condition, "__name__", repr(condition))
        said = condition.__doc__ or name if description is None else str(description)
        self.description: str = said
        self.last_called = float("-inf")
        self.entry_count = 0

    @property
    def interval(self) -> timedelta:
        """How often it is looked at."""
        return timedelta(seconds=self.seconds_interval)

    def check(self, force: bool = False) -> bool:
        """Whether it holds. It is looked at only when it is due, or with ``force``."""
        if (self.entered or not self.overdue) and not force:
            return True
        with self, self.logger.nested(self.nested_message):
            try:
                result = self.condition()
            except Exception as error:
                self.logger.debug(f"{type(error).__name__}: {error}")
                result = False
            holds = result is None or bool(result)
            self.logger.info(self.status_message(holds))
            return holds

    def maybe_raise(self) -> None:
        """Raises ``PollingConditionError`` if it is due and does not hold."""
        if not self.check():
            raise PollingConditionError(self.status_message(False))

    def status_message(self, status: bool) -> str:
        """How it stands, in words."""
        return f"Polling condition {'succeeded' if status else 'failed'}: {self.description}"

    @property
    def nested_message(self) -> str:
        """The heading in the log."""
        return f"Checking polling condition {self.description!r}"

    @property
    def due(self) -> float:
        """When it has to be looked at again, by the monotonic clock."""
        since = time.monotonic() if self.entered else self.last_called
        return since + self.seconds_interval

    @property
    def overdue(self) -> bool:
        """Whether it has to be looked at."""
        return self.last_called + self.seconds_interval < time.monotonic()

    @property
    def entered(self) -> bool:
        """Whether it is being looked at right now."""
        return self.entry_count > 0

    def __enter__(self) -> None:
        self.entry_count += 1

    def __exit__(self, *_: object) -> None:
        self.entry_count -= 1
        self.last_called = time.monotonic()


class Poll:
    """What ``polling_condition`` makes of a function: for ``with``, or to wait for."""

    def __init__(self, driver: Driver, condition: PollingCondition) -> None:
        self._driver = driver
        self.condition = condition

    def __enter__(self) -> None:
        self._driver.polling_conditions.append(self.condition)

    def __exit__(self, *_: object) -> None:
        self._driver.polling_conditions.remove(self.condition)

    def wait(
        self,
        timeout_seconds: float | timedelta | None = None,
        timeout: float | timedelta | None = None,
    ) -> None:
        """Wait until it holds; it is looked at once in each of its intervals.

        The other name of ``timeout`` (900 seconds) is ``timeout_seconds``.
        """
        if timeout_seconds is not None and timeout is not None:
            raise TypeError("wait() takes timeout or timeout_seconds, not both")
        given = timeout_seconds if timeout is None else timeout
        limit = DEFAULT_TIMEOUT if given is None else given
        condition = self.condition
        logger = self._driver.logger

        def holds(last: bool) -> bool:
            if last:
                logger.info(f"Last chance for {condition.description}")
            result = condition.check(force=True)
            if not result and not last:
                logger.info(f"({condition.description} failure not fatal yet)")
            return result

        with logger.nested(f"waiting for {condition.description}"):
            interval = condition.seconds_interval
            repeat(holds, limit, interval, interval)


def polling_condition(
    driver: Driver,
    fun: Condition | None,
    seconds_interval: float | timedelta | None,
    description: str | None,
    interval: float | timedelta | None = None,
) -> Any:
    """The decorator, with and without arguments."""
    every = _interval(seconds_interval, interval)

    def decorate(fun: Condition) -> Poll:
        condition = PollingCondition(fun, driver.logger, every, description)
        return Poll(driver, condition)

    return decorate if fun is None else decorate(fun)


def _interval(old: float | timedelta | None, new: float | timedelta | None) -> float:
    """Seconds between two looks, under its old name or its new one."""
    if old is not None and new is not None:
        raise TypeError("a polling condition takes interval or seconds_interval, not both")
    found = seconds(old if new is None else new)
    return 2.0 if found is None else found
