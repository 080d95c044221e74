"""The types that test scripts of NixOS are checked against, by mypy."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

from machinist import symbols

PYTHON = Path(__file__).resolve().parent.parent

OLD = """
from pathlib import Path
from typing import Any, Callable, ContextManager, List, Optional, Union

from test_driver.driver import Driver
from test_driver.logger import AbstractLogger, Logger
from test_driver.machine import Machine
from test_driver.vlan import VLan
from typing_extensions import Protocol


class Retry(Protocol):
    def __call__(self, fn: Callable[..., Any], timeout: int = 900) -> None: ...


class CreateMachine(Protocol):
    def __call__(
        self, start_command: str, *, name: Optional[str] = None, keep_vm_state: bool = False
    ) -> Machine: ...


start_all: Callable[[], None]
subtest: Callable[[str], ContextManager[None]]
retry: Retry
machines: List[Machine]
vlans: List[VLan]
driver: Driver
log: Logger
create_machine: CreateMachine
join_all: Callable[[], None]
serial_stdout_off: Callable[[], None]
web: Machine
db: Machine
vlan1: VLan
"""

NEW = """
from contextlib import contextmanager
from typing import Any, Callable, Generator, List
from unittest import TestCase

from test_driver.debug import DebugAbstract, DebugNop
from test_driver.driver import Driver
from test_driver.errors import MachineError, RequestedAssertionFailed
from test_driver.logger import AbstractLogger, CompositeLogger
from test_driver.machine import BaseMachine, NspawnMachine, QemuMachine
from test_driver.polling_condition import PollingCondition
from test_driver.vlan import VLan


def make_vm() -> QemuMachine:
    raise Exception


def make_container() -> NspawnMachine:
    raise Exception


def make_driver() -> Driver:
    raise Exception


debug: DebugAbstract = DebugNop()
machines: List[BaseMachine] = []
machines_qemu: List[QemuMachine] = []
machines_nspawn: List[NspawnMachine] = []
vlans: List[VLan] = []
log: AbstractLogger = CompositeLogger([])
t = TestCase()
driver = make_driver()


@contextmanager
def subtest(str: str) -> Generator[None, None, None]:
    yield


def retry(fn: Callable[..., Any], timeout_seconds: int = 900) -> None: ...
def start_all() -> None: ...
def join_all() -> None: ...
def serial_stdout_off() -> None: ...
def create_machine(start_command: str, name: str | None = None) -> QemuMachine:
    return driver.create_machine(start_command, name=name)


web = make_vm()
db = make_container()
"""

SCRIPT = """
import uuid
from datetime import timedelta

from test_driver.driver import DriverConfiguration, load_driver_configuration
from test_driver.efi import EfiGuid, EfiVariable

configuration: DriverConfiguration = load_driver_configuration("config.json")
web.create_efi_vars()
web.write_efi_vars([EfiVariable(vendor_uuid=uuid.uuid4(), name="a", data=b"b", flags=1)])
assert [v for v in web.read_efi_vars() if v.vendorUUID == EfiGuid.gMtcVendorGuid]
start_all()
serial_stdout_off()
web.start(allow_reboot=True)
status, output = web.execute("true", check_return=True, check_output=True, timeout=10)
assert status == 0 and output.strip() == ""
words = web.succeed("a", "b", timeout=5).split()
db.fail("false", timeout=None)
db.wait_until_succeeds("true", timeout=5).splitlines()
web.wait_until_fails("false", timeout=timedelta(1), attempt_timeout=timedelta(seconds=2))
web.wait_for_unit_active_state("a.service", "failed", timeout=10)
web.sleep(duration=timedelta(seconds=1))
db.wait_for_unit("a.service", "alice", timeout=10)
db.wait_for_unit("default.target", user="alice")
info = db.get_unit_info("a.service")["ActiveState"]
web.require_unit_state("a.service", require_state="active")
web.wait_for_open_port(80, addr="::1", timeout=5)
web.wait_for_open_unix_socket("/run/x", is_datagram=True)
web.wait_for_console_text("login", timeout=None)
web.wait_for_text("Welcome")
web.send_key("ctrl-alt-delete", delay=None, log=False)
web.send_chars("root\\n", delay=0.1)
web.screenshot("screen")
text: str = web.get_screen_text_variants()[0] + web.get_tty_text("1") + web.name
web.wait_until_tty_matches("1", "login:")
web.wait_for_qmp_event(lambda event: event["event"] == "RESET", timeout=10)
web.send_monitor_command("info version").splitlines()
web.connected = False
web.booted = False
line: str = web.last_lines.get(block=False) + web.full_console_log[0] + str(web.tmp_dir / "x")
web.forward_port(8080, 80)
web.block()
web.unblock()
web.copy_from_host("/a", "/b")
web.copy_from_machine("/b", "sub")
web.copy_from_vm("/b")
(web.state_dir / "x").read_text()
with subtest("x"), web.nested("y"):
    log.info("z")
    log.nested("w")


def last(last_try: bool) -> bool:
    return last_try


retry(last)
vm = create_machine("run-x-vm", name="x")
vm.shutdown()
for each in machines:
    each.crash()
driver.machines[0].wait_for_shutdown()
join_all()
"""


@unittest.skipUnless(shutil.which("mypy"), "mypy is not installed")
class Mypy(unittest.TestCase):
    def check(self, *arguments: str, text: str = "") -> tuple[int, str]:
        with tempfile.TemporaryDirectory() as directory:
            script = Path(directory) / "script.py"
            script.write_text(text)
            ended = subprocess.run(
                ["mypy", "--cache-dir", "/dev/null", *arguments, *([str(script)] if text else [])],
                cwd=PYTHON,
                env={"MYPYPATH": str(PYTHON), "PATH": "/usr/bin:/bin"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            return ended.returncode, ended.stdout.replace(f"{directory}/", "")

    def test_the_packages(self) -> None:
        status, said = self.check()
        self.assertEqual(status, 0, said)

    def test_scripts(self) -> None:
        for name, prelude in {"old": OLD, "new": NEW}.items():
            with self.subTest(name):
                # As in nixpkgs: with nothing but what is told to be wrong.
                text = prelude + SCRIPT
                status, said = self.check("--no-implicit-optional", "--config-file=", text=text)
                self.assertEqual(status, 0, said)

    def test_mistakes_are_found(self) -> None:
        status, said = self.check("--config-file=", text=NEW + "web.succed('true')\nweb.sleep('1')\n")
        self.assertEqual(status, 1)
        self.assertIn('has no attribute "succed"', said)
        self.assertIn('incompatible type "str"', said)


class Symbols(unittest.TestCase):
    def test_each_is_there_once(self) -> None:
        names = [*symbols.SYMBOLS, *symbols.ADDITIONAL]
        self.assertEqual(len(set(names)), len(names))


if __name__ == "__main__":
    unittest.main()
