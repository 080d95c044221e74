"""Polling conditions, without a session."""

from __future__ import annotations

import time
import unittest
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

from machinist import PollingConditionError, RequestedAssertionFailed
from machinist._logger import CompositeLogger
from machinist._polling import PollingCondition, polling_condition

LOG = CompositeLogger([])


class Conditions(unittest.TestCase):
    def test_descriptions(self) -> None:
        def documented() -> bool:
            "it works"
            return True

        def named() -> bool:
            return True

        self.assertEqual(PollingCondition(documented, LOG).description, "it works")
        self.assertEqual(PollingCondition(named, LOG).description, "named")
        self.assertEqual(PollingCondition(named, LOG, description="said").description, "said")
        condition = PollingCondition(documented, LOG)
        self.assertEqual(condition.status_message(True), "Polling condition succeeded: it works")
        self.assertEqual(condition.nested_message, "Checking polling condition 'it works'")

    def test_what_holds(self) -> None:
        answers = {"yes": True, "nothing": None, "no": False, "zero": 0}
        held = {
            name: PollingCondition(lambda answer=answer: answer, LOG).check()
            for name, answer in answers.items()
        }
        self.assertEqual(held, {"yes": True, "nothing": True, "no": False, "zero": False})

        def raising() -> bool:
            raise ValueError("no")

        with self.assertRaisesRegex(
            PollingConditionError, "^Polling condition failed: raising$"
        ):
            PollingCondition(raising, LOG).maybe_raise()

    def test_only_when_due(self) -> None:
        calls = 0

        def counting() -> None:
            nonlocal calls
            calls += 1

        condition = PollingCondition(counting, LOG, timedelta(milliseconds=50))
        for _ in range(10):
            self.assertTrue(condition.check())
        self.assertEqual(calls, 1)
        self.assertTrue(condition.check(force=True))
        self.assertEqual(calls, 2)
        time.sleep(max(0.0, condition.due - time.monotonic()) + 0.001)
        condition.maybe_raise()
        self.assertEqual(calls, 3)

    def test_not_within_itself(self) -> None:
        inner: list[bool] = []
        condition: PollingCondition

        def looking() -> None:
            inner.append(condition.check())

        condition = PollingCondition(looking, LOG)
        self.assertTrue(condition.check())
        self.assertEqual(inner, [True])


class Decorator(unittest.TestCase):
    def setUp(self) -> None:
        self.driver: Any = SimpleNamespace(logger=LOG, polling_conditions=[])

    def decorate(self, fun: Any = None, interval: float = 2.0, text: str | None = None) -> Any:
        return polling_condition(self.driver, fun, interval, text)

    def test_with_and_without_arguments(self) -> None:
        @self.decorate
        def bare() -> bool:
            return True

        @self.decorate(interval=7, text="with arguments")
        def other() -> bool:
            return True

        self.assertEqual(bare.condition.description, "bare")
        self.assertEqual(other.condition.seconds_interval, 7)
        with bare, other:
            conditions = [bare.condition, other.condition]
            self.assertEqual(self.driver.polling_conditions, conditions)
        self.assertEqual(self.driver.polling_conditions, [])

    def test_waiting_keeps_the_interval(self) -> None:
        times: list[float] = []

        @self.decorate(interval=0.1)
        def third() -> bool:
            times.append(time.monotonic())
            return len(times) == 3

        third.wait()
        self.assertEqual(len(times), 3)
        for before, after in zip(times, times[1:]):
            self.assertGreaterEqual(after - before, 0.1)

    def test_waiting_gives_up(self) -> None:
        @self.decorate(interval=10)
        def never() -> bool:
            return False

        began = time.monotonic()
        with self.assertRaisesRegex(RequestedAssertionFailed, r"\(timeout=0.1\)$"):
            never.wait(timedelta(milliseconds=100))
        self.assertLess(time.monotonic() - began, 5)


if __name__ == "__main__":
    unittest.main()
