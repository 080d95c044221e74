"""The lab as a script sees it."""

from __future__ import annotations

import os
import re
import time
import unittest
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from machinist._connection import Connection
from machinist._errors import RequestedAssertionFailed
from machinist._machine import Machine
from machinist._retry import retry

_NOT_A_NAME = re.compile(r"^[^A-Za-z_]|[^A-Za-z0-9_]")


def python_name(name: str) -> str:
    """The variable that a machine has in a script: what no variable can have becomes ``_``."""
    return _NOT_A_NAME.sub("_", name)


class Tester(unittest.TestCase):
    """``t`` of a script: unittest's assertions, which fail the test."""

    failureException = RequestedAssertionFailed
    maxDiff = None


class Logger:
    """``log`` of a script: writes into the log of the test."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def __call__(self, msg: str) -> None:
        self.log(msg)

    def log(self, msg: str, attrs: Mapping[str, str] | None = None) -> None:
        """Write a line. ``attrs`` may name the machine that it is about."""
        machine = (attrs or {}).get("machine")
        self._driver.connection.call("log", {"text": str(msg), "machine": machine})

    def debug(self, msg: str, *args: Any) -> None:
        """Write a line."""
        self.log(msg % args if args else msg)

    info = debug
    warning = debug
    error = debug

    def nested(self, msg: str, attrs: Mapping[str, str] | None = None) -> Any:
        """A part of the test, for ``with``."""
        return self._driver.subtest(msg)


class Driver:
    """A running lab."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.connection = Connection(os.fspath(path))
        hello = self.connection.hello
        self.session: str = hello["session"]
        """The session's id."""
        self.machines: list[Machine] = [Machine(self, name) for name in hello["machines"]]
        """All machines, sorted by name."""
        self.logger = Logger(self)
        self.out_dir = Path(os.environ.get("MACHINIST_OUT", os.curdir))
        """Where files of machines are copied to."""

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection. The lab goes on."""
        self.connection.close()

    def machine(self, name: str) -> Machine:
        """The machine with a name, as it is in the lab file."""
        for machine in self.machines:
            if machine.name == name:
                return machine
        raise KeyError(name)

    def start_all(self) -> None:
        """Begin to start all machines. Does not wait until they have."""
        self.connection.call("start", {})

    def join_all(self) -> None:
        """Wait until all machines are off."""
        for machine in self.machines:
            machine.wait_for_shutdown()

    @contextmanager
    def subtest(self, name: str) -> Iterator[None]:
        """A part of the test with a name. An exception ends it as failed, and goes on."""
        self.connection.call("subtest_started", {"name": name})
        began = time.monotonic()
        message: str | None = None
        try:
            yield
        except BaseException as error:
            message = str(error) or type(error).__name__
            raise
        finally:
            ended = {"name": name, "seconds": time.monotonic() - began, "message": message}
            self.connection.call("subtest_finished", ended)

    def symbols(self) -> dict[str, Any]:
        """The names that a script has without importing them."""
        from machinist import MachineError

        names: dict[str, Any] = {
            "start_all": self.start_all,
            "join_all": self.join_all,
            "subtest": self.subtest,
            "retry": retry,
            "log": self.logger,
            "t": Tester(),
            "driver": self,
            "machines": self.machines,
            "os": os,
            "Machine": Machine,
            "BaseMachine": Machine,
            "MachineError": MachineError,
            "RequestedAssertionFailed": RequestedAssertionFailed,
        }
        for machine in self.machines:
            names[python_name(machine.name)] = machine
        if len(self.machines) == 1:
            names["machine"] = self.machines[0]
        return names


def connect(path: str | os.PathLike[str]) -> Driver:
    """Connect to a running session by the path of its socket (``machinist ps`` shows it)."""
    return Driver(path)


__all__ = ["Driver", "Logger", "Tester", "connect", "python_name"]
