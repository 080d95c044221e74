"""The lab as a script sees it."""

from __future__ import annotations

import os
import re
import time
import unittest
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from machinist._arguments import path as path_argument
from machinist._checkpoint import Checkpoints
from machinist._connection import Connection, Request
from machinist._debug import Debug, DebugAbstract, DebugNop
from machinist._errors import MachineError, RequestedAssertionFailed
from machinist._logger import Attributes, Logger, LogLevel
from machinist._machine import Machine, NspawnMachine, QemuMachine, machine_of
from machinist._polling import Condition, PollingCondition, polling_condition
from machinist._retry import retry
from machinist._variables import Variables
from machinist._vlan import VLan

if TYPE_CHECKING:
    from machinist._script import Script

_NOT_A_NAME = re.compile(r"^[^A-Za-z_]|[^A-Za-z0-9_]")
_PROMPT = "python.sock"
"""The socket of a paused script's prompt, in the session's directory."""


def python_name(name: str) -> str:
    """The variable that a machine has in a script: what no variable can have becomes ``_``."""
    return _NOT_A_NAME.sub("_", name)


class Tester(unittest.TestCase):
    """``t`` of a script: unittest's assertions, which fail the test."""

    failureException = RequestedAssertionFailed
    maxDiff = None


class Driver(Checkpoints):
    """A running lab."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.connection = Connection(os.fspath(path))
        hello = self.connection.hello
        self.session: str = hello["session"]
        """The session's id."""
        kinds = hello.get("kinds", {})
        self._machines = [machine_of(self, name, kinds.get(name)) for name in hello["machines"]]
        self.vlans: list[VLan] = [VLan(self, number) for number in hello.get("vlans", [])]
        """All VLANs, sorted by number."""
        job: dict[str, Any] | None = hello.get("driver")
        self.job = job or {}
        """What the engine says of the job, if it runs machines by start scripts."""
        self.variables = None if job is None else Variables(self.connection)
        exits = job is not None and not self.job["interactive"]
        level = LogLevel[self.job.get("log_level", "debug").upper()]
        self.logger = Logger(self, exit_on_error=exits, level=level)
        self.debug: DebugAbstract = DebugNop()
        if self.job.get("debug"):
            self.debug = Debug(self, os.path.join(os.path.dirname(os.path.abspath(path)), _PROMPT))
        self.out_dir = Path(self.job.get("out_dir") or os.environ.get("MACHINIST_OUT") or os.curdir)
        """Where files of machines are copied to."""
        self.polling_conditions: list[PollingCondition] = []
        """Those that have to hold now."""
        self.script: Script | None = None
        """The test script, where this is its runner."""

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection. The lab goes on."""
        self.connection.close()

    # Machines

    @property
    def machines(self) -> list[Machine]:
        """All machines, sorted by name."""
        return list(self._machines)

    @property
    def machines_qemu(self) -> list[QemuMachine]:
        """All VMs, sorted by name."""
        return [machine for machine in self._machines if isinstance(machine, QemuMachine)]

    @property
    def machines_nspawn(self) -> list[NspawnMachine]:
        """All containers, sorted by name."""
        return [machine for machine in self._machines if isinstance(machine, NspawnMachine)]

    def machine(self, name: str) -> Machine:
        """The machine with a name, as it is in the lab file."""
        for machine in self._machines:
            if machine.name == name:
                return machine
        raise KeyError(name)

    def create_machine(
        self,
        start_command: str | os.PathLike[str],
        *,
        name: str | None = None,
        keep_machine_state: bool = False,
        keep_vm_state: bool = False,
    ) -> QemuMachine:
        """One more VM, by its start script or a shell command that begins with it.

        ``keep_vm_state`` is the old name of ``keep_machine_state``.
        """
        arguments = {
            "command": path_argument("start_command", start_command),
            "name": name,
            "keep_state": bool(keep_machine_state or keep_vm_state),
            "kind": "vm",
        }
        added = self.connection.call("add_machine", arguments)
        return QemuMachine(self, added["name"], "vm")

    def adopt(self, names: list[str]) -> list[Machine]:
        """The machines of these names that have come, which are among ``machines`` from now on."""
        come = [machine_of(self, name, "vm") for name in names]
        self._machines = sorted([*self._machines, *come], key=lambda machine: machine.name)
        return come

    def start_all(self) -> None:
        """Begin to start all machines. Does not wait until they have."""
        if self.job:
            for machine in self._machines:
                machine.start()
        else:
            names = [machine.name for machine in self._machines]
            self.connection.call("start", {"machines": names})

    def join_all(self) -> None:
        """Wait until all machines are off."""
        with self.section("wait for all machines to finish"):
            for machine in self._machines:
                machine.wait_for_shutdown()
        if self.script is not None:
            self.script.stop_clock()

    def serial_stdout_on(self) -> None:
        """Show what the machines' consoles print."""
        self.show_consoles(True)

    def serial_stdout_off(self) -> None:
        """Do not show what the machines' consoles print. It is kept all the same."""
        self.show_consoles(False)

    def show_consoles(self, on: bool) -> None:
        """Whether what consoles print is shown from now on."""
        self.connection.call("show_consoles", {"on": bool(on)})

    def dump_machine_ssh(self, offset: int = 0) -> None:
        """Print how to log in to each machine by SSH. ``offset`` is not needed."""
        print("SSH backdoor enabled, the machines can be accessed like this:")
        width = max((len(machine.name) for machine in self._machines), default=0) + 1
        for machine in self._machines:
            print(f"    {machine.name + ':':{width}}  {machine.ssh_backdoor_command()}")

    # The test

    def test_script(self) -> None:
        """Run the test script."""
        self._script().run()

    def run_tests(self) -> None:
        """Run the test script, within its time, and let the machines write what is left to do."""
        self._script().run_within_time()

    def _script(self) -> Script:
        if self.script is None:
            raise MachineError("there is no test script: this is not its runner")
        return self.script

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

    @contextmanager
    def section(self, name: str, attributes: Attributes | None = None) -> Iterator[None]:
        """A part of the log under a heading. ``attributes`` may name its machine."""
        about: dict[str, Any] = {"name": name, "machine": (attributes or {}).get("machine")}
        self.connection.call("section_started", about)
        began = time.monotonic()
        ok = False
        try:
            yield
            ok = True
        finally:
            ended = {**about, "seconds": time.monotonic() - began, "ok": ok}
            self.connection.call("section_finished", ended)

    # Polling conditions

    def polling_condition(
        self,
        fun_: Condition | None = None,
        *,
        seconds_interval: float | timedelta | None = None,
        interval: float | timedelta | None = None,
        description: str | None = None,
    ) -> Any:
        """Make a condition of a function, as a decorator with or without arguments.

        It is looked at every two seconds, or in ``interval``, whose older name is
        ``seconds_interval``.

        ``with condition:`` looks at it while the block runs, once in each interval and whenever a
        machine is asked for something; ``condition.wait(timeout=900)`` waits until it holds.
        """
        return polling_condition(self, fun_, seconds_interval, description, interval)

    def check_polling_conditions(self) -> None:
        """Raise ``PollingConditionError`` if a condition that is due does not hold."""
        for condition in list(self.polling_conditions):
            condition.maybe_raise()

    def call_and_poll(self, verb: str, arguments: dict[str, Any]) -> Any:
        """Asks the engine, and looks at the polling conditions before and meanwhile."""
        self.check_polling_conditions()
        request = self.connection.send(verb, arguments)
        try:
            return self.poll_while(request, request.result)
        except BaseException:
            self.connection.abandon(request)
            raise

    def poll_while(self, request: Request, take: Callable[[float | None], Any]) -> Any:
        """What ``take`` returns of a request; looks at the polling conditions until it does."""
        while True:
            due = [condition.due for condition in self.polling_conditions]
            try:
                return take(min(due, default=None))
            except TimeoutError:
                self.check_polling_conditions()

    def symbols(self) -> dict[str, Any]:
        """The names that a script has without importing them."""
        names: dict[str, Any] = {
            "start_all": self.start_all,
            "test_script": self.test_script,
            "machines": self.machines,
            "machines_qemu": self.machines_qemu,
            "machines_nspawn": self.machines_nspawn,
            "vlans": self.vlans,
            "driver": self,
            "log": self.logger,
            "os": os,
            "create_machine": self.create_machine,
            "subtest": self.subtest,
            "run_tests": self.run_tests,
            "join_all": self.join_all,
            "retry": retry,
            "serial_stdout_off": self.serial_stdout_off,
            "serial_stdout_on": self.serial_stdout_on,
            "polling_condition": self.polling_condition,
            "Machine": Machine,
            "BaseMachine": Machine,
            "QemuMachine": QemuMachine,
            "NspawnMachine": NspawnMachine,
            "t": Tester(),
            "debug": self.debug,
            # From here on they are ours alone.
            "lab": self,
            "MachineError": MachineError,
            "RequestedAssertionFailed": RequestedAssertionFailed,
            "dump_machine_ssh": self.dump_machine_ssh,
        }
        for machine in self._machines:
            names[python_name(machine.name)] = machine
        if len(self._machines) == 1:
            names["machine"] = self._machines[0]
        for vlan in self.vlans:
            names[f"vlan{vlan.nr}"] = vlan
        return names

    test_symbols = symbols


def connect(path: str | os.PathLike[str]) -> Driver:
    """Connect to a running session by the path of its socket (``machinist ps`` shows it)."""
    return Driver(path)
