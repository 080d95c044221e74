"""Names that the NixOS driver has since the second half of 2026."""

from __future__ import annotations

import time
import unittest
from contextlib import nullcontext
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, Optional

from machinist import RequestedAssertionFailed, retry
from machinist._commands import Commands
from machinist._logger import Logger, LogLevel
from machinist._polling import PollingCondition, polling_condition

SOON = timedelta(milliseconds=10)


class Retry(unittest.TestCase):
    def test_without_a_limit(self) -> None:
        calls: list[Any] = []
        retry(lambda remaining: calls.append(remaining) or len(calls) == 2, timeout=None)
        self.assertEqual(calls, [None, None])

    def test_no_call_begins_late(self) -> None:
        calls: list[float] = []

        def slow(remaining: float | None) -> bool:
            assert remaining is not None
            calls.append(remaining)
            time.sleep(0.05)
            return False

        with self.assertRaisesRegex(RequestedAssertionFailed, r"timed out .*\(timeout=0.01\)"):
            retry(slow, timeout=SOON)
        self.assertEqual(len(calls), 1)
        self.assertTrue(0 < calls[0] <= 0.01, calls)

    def test_success_may_come_late(self) -> None:
        retry(lambda remaining: time.sleep(0.02) or remaining > 0, timeout=SOON)

    def test_no_time_is_no_call(self) -> None:
        calls: list[Any] = []
        with self.assertRaises(RequestedAssertionFailed):
            retry(lambda _remaining: calls.append(1) is None, timeout=timedelta(0))
        self.assertEqual(calls, [])

    def test_which_of_the_two_kinds(self) -> None:
        def typed(x: Optional[float]) -> bool:
            return x is False

        def named(timeout, /) -> bool:  # type: ignore[no-untyped-def]
            return timeout is False

        def last(last_time: bool) -> bool:
            return last_time is False

        def unnamed(_: Any) -> bool:
            return _ is False

        for fn in (typed, named):
            with self.subTest(fn), self.assertRaises(RequestedAssertionFailed):
                retry(fn, timeout=SOON)
        late = lambda timed_out: timed_out is False
        for fn in (last, unnamed, late, lambda *x: x == (False,), [False].__contains__):
            with self.subTest(fn):
                retry(fn, timeout=SOON)

    def test_one_limit(self) -> None:
        with self.assertRaisesRegex(TypeError, "not both"):
            retry(lambda _: True, 5, timeout=SOON)
        retry(lambda _: True, timeout_seconds=5)


class Polling(unittest.TestCase):
    def setUp(self) -> None:
        logger = SimpleNamespace(
            info=lambda _: None, nested=lambda _: nullcontext(), debug=lambda _: None
        )
        self.driver: Any = SimpleNamespace(logger=logger, polling_conditions=[])

    def test_intervals(self) -> None:
        for given, seconds in (
            ({"interval": timedelta(minutes=1)}, 60.0),
            ({"seconds_interval": 7}, 7.0),
            ({}, 2.0),
        ):
            condition = PollingCondition(lambda: True, self.driver.logger, **given)
            self.assertEqual(condition.seconds_interval, seconds)
            self.assertEqual(condition.interval, timedelta(seconds=seconds))
        with self.assertRaisesRegex(TypeError, "not both"):
            polling_condition(self.driver, lambda: True, 1, None, 2)

    def test_the_limit_of_wait(self) -> None:
        never = polling_condition(self.driver, lambda: False, None, None, SOON)
        for given in ({"timeout": SOON}, {"timeout_seconds": 0.01}):
            with self.assertRaises(RequestedAssertionFailed):
                never.wait(**given)
        with self.assertRaises(RequestedAssertionFailed):
            never.wait(SOON)
        with self.assertRaisesRegex(TypeError, "not both"):
            never.wait(1, timeout=SOON)


class Sleep(unittest.TestCase):
    def test_one_duration(self) -> None:
        machine: Any = object.__new__(Commands)
        for given in ({}, {"secs": 1, "duration": SOON}):
            with self.assertRaisesRegex(TypeError, "one of secs and duration"):
                machine.sleep(**given)


class Log(unittest.TestCase):
    def test_a_scripts_level_leaves_out_no_plain_lines(self) -> None:
        sent: list[Any] = []
        connection = SimpleNamespace(call=lambda _verb, line: sent.append(line))
        driver: Any = SimpleNamespace(job={"interactive": False}, connection=connection)
        log = Logger(driver)
        log.set_log_level(LogLevel.WARNING)
        log.info("left out")
        log.log("plain")
        self.assertEqual(sent, [{"text": "plain", "machine": None, "level": "info"}])


if __name__ == "__main__":
    unittest.main()
