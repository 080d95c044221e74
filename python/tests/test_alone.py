"""What needs no session."""

from __future__ import annotations

import tempfile
import textwrap
import time
import unittest
from datetime import timedelta
from pathlib import Path
from typing import Any

from machinist import MachineError, RequestedAssertionFailed, python_name, retry
from machinist._arguments import number, path, string
from machinist._connection import decode_data, decode_text, encode_data
from machinist._driver import Tester
from machinist._retry import seconds
from machinist.run import run_script


class Names(unittest.TestCase):
    def test_machines_become_variables(self) -> None:
        self.assertEqual(python_name("db-1"), "db_1")
        self.assertEqual(python_name("1a"), "_a")


class Data(unittest.TestCase):
    def test_bytes_come_back(self) -> None:
        for data in [b"", b"text", "\u00e4".encode(), b"\xff\x00", bytes(range(256))]:
            self.assertEqual(decode_data(encode_data(data)), data)
        self.assertEqual(decode_text({"base64": "/w=="}), "\ufffd")


class Retry(unittest.TestCase):
    def test_until_it_holds(self) -> None:
        calls: list[bool] = []

        def third(last: bool) -> bool:
            calls.append(last)
            return len(calls) == 3

        began = time.monotonic()
        retry(third)
        self.assertEqual(calls, [False, False, False])
        self.assertLess(time.monotonic() - began, 1)

    def test_one_last_time(self) -> None:
        for limit in [0.1, timedelta(milliseconds=100)]:
            calls: list[bool] = []
            with self.assertRaisesRegex(
                RequestedAssertionFailed, r"^action timed out after 0\.\d+ seconds \(timeout=0.1\)$"
            ):
                retry(lambda last: calls.append(last) is not None, limit)
            self.assertEqual(calls.count(True), 1)
            self.assertIs(calls[-1], True)

    def test_the_older_keyword(self) -> None:
        with self.assertRaises(RequestedAssertionFailed):
            retry(lambda _: False, timeout=0)


class Arguments(unittest.TestCase):
    def test_wrong_types_are_told_by_name(self) -> None:
        wrong: Any = "80"
        with self.assertRaisesRegex(TypeError, r"^port must be an int, not str$"):
            number("port", wrong)
        with self.assertRaisesRegex(TypeError, r"^command must be a str, not int$"):
            string("command", 5)
        with self.assertRaisesRegex(TypeError, r"^filename must be a str or a path, not None$"):
            path("filename", None)
        with self.assertRaisesRegex(TypeError, r"^timeout must be a number of seconds"):
            seconds(wrong)


class Scripts(unittest.TestCase):
    """How scripts end, without a session."""

    def run_text(self, text: str, **files: str) -> dict[str, Any] | None:
        with tempfile.TemporaryDirectory() as directory:
            for name, helper in files.items():
                (Path(directory) / f"{name}.py").write_text(textwrap.dedent(helper))
            script = Path(directory) / "script.py"
            script.write_text(textwrap.dedent(text))
            symbols = {"t": Tester(), "retry": retry, "MachineError": MachineError}
            return run_script(str(script), symbols)

    def failure(self, text: str, **files: str) -> dict[str, Any]:
        failure = self.run_text(text, **files)
        assert failure is not None
        return failure

    def test_passing(self) -> None:
        self.assertIsNone(self.run_text("assert __name__ == '__main__'"))
        self.assertIsNone(self.run_text("import sys; sys.exit()"))
        self.assertIsNone(self.run_text("raise SystemExit(0)"))

    def test_the_scripts_frames_only(self) -> None:
        failure = self.failure(
            """
            import helper_of_frames
            def outer():
                helper_of_frames.inner(retry)
            outer()
            """,
            helper_of_frames="""
            def inner(retry):
                retry(lambda last: 1 / 0)
            """,
        )
        self.assertEqual(failure["exception"], "ZeroDivisionError")
        frames = [(Path(frame["file"]).name, frame["line"]) for frame in failure["frames"]]
        self.assertEqual(
            frames,
            [
                ("script.py", 5),
                ("script.py", 4),
                ("helper_of_frames.py", 3),
                ("helper_of_frames.py", 3),
            ],
        )
        self.assertEqual(failure["frames"][0]["source"], "outer()")
        self.assertEqual(failure["frames"][1]["function"], "outer")

    def test_assertions_say_what_they_asserted(self) -> None:
        self.assertEqual(self.failure("x = 1\nassert x == 2")["message"], "assert x == 2")
        self.assertEqual(self.failure("assert False, 'why'")["message"], "why")
        failure = self.failure("t.assertEqual(1, 2, 'sum')")
        self.assertEqual(failure["exception"], "RequestedAssertionFailed")
        self.assertEqual(failure["message"], "1 != 2 : sum")
        self.assertEqual(len(failure["frames"]), 1)

    def test_machinery(self) -> None:
        self.assertTrue(self.failure("raise MachineError('gone')")["machinery"])
        self.assertFalse(self.failure("raise ValueError('x')")["machinery"])

    def test_exits(self) -> None:
        failure = self.failure("import sys; sys.exit(3)")
        self.assertEqual(failure["message"], "the script called sys.exit(3)")
        self.assertEqual(self.failure("import sys; sys.exit('over')")["message"], "over")

    def test_causes(self) -> None:
        failure = self.failure(
            """
            try:
                {}["key"]
            except KeyError as error:
                raise ValueError("no key") from error
            """
        )
        self.assertEqual(failure["message"], "no key\ncaused by KeyError: 'key'")

    def test_threads(self) -> None:
        failure = self.failure(
            """
            import threading

            def late():
                raise ValueError("in a thread")

            thread = threading.Thread(target=late, name="helper")
            thread.start()
            """
        )
        self.assertEqual((failure["exception"], failure["message"]), ("ValueError", "in a thread"))
        self.assertEqual([frame["function"] for frame in failure["frames"]], ["late"])

    def test_syntax(self) -> None:
        failure = self.failure("x = 1\ny = = 2\n")
        self.assertEqual(failure["exception"], "SyntaxError")
        self.assertEqual(failure["frames"][-1]["line"], 2)
        self.assertEqual(failure["frames"][-1]["source"], "y = = 2")


if __name__ == "__main__":
    unittest.main()
