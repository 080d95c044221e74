"""pytest: each test finds the lab as its module left it.

The module's lab is started once; ``lab_setup`` (a fixture of the module's own, if it has one) makes
it what its tests want; then a checkpoint is taken, and each test that uses ``lab`` or ``machine``
finds the lab at it. Going back takes some tenths of a second, booting takes many seconds.

Where pytest runs under ``machinist test``, its lab is used. Elsewhere ``machinist up`` starts the
lab file that is named by ``--lab`` or ``lab`` of the configuration, or else the ``lab.toml`` in the
module's directory or the nearest above it. Each worker of pytest-xdist then has labs of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from machinist._checkpoint import Checkpoint
from machinist._driver import Driver

if TYPE_CHECKING:
    from machinist._machine import Machine

_LAB_FILE = "lab.toml"


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options and configuration values."""
    group = parser.getgroup("machinist", "labs of machinist")
    group.addoption("--lab", metavar="FILE", help="the lab file of all modules")
    group.addoption("--machinist", metavar="PROGRAM", help="the program, if not on the path")
    parser.addini("lab", "the lab file of all modules, relative to the configuration")
    parser.addini("machinist", "machinist's program, if it is not on the path", default="machinist")


def pytest_configure() -> None:
    """Failures are shown at the test's own lines, not at ours."""
    for name, module in list(sys.modules.items()):
        if name.startswith("machinist."):
            module.__dict__["__tracebackhide__"] = True


class ModuleLab:
    """The lab of a module, and the checkpoint that its tests begin at."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.checkpoint: Checkpoint | None = None
        self.is_used = False

    def fresh(self) -> Driver:
        """The lab at its checkpoint. The first test finds it there; for later ones it goes back."""
        if self.checkpoint is None:
            self.checkpoint = self.driver.checkpoint(f"pytest {os.getpid()} {id(self):x}")
        elif self.is_used:
            self.driver.restore(self.checkpoint)
        self.is_used = True
        return self.driver

    def close(self) -> None:
        """Leaves a lab that goes on as its module found it, but for what ``lab_setup`` did."""
        if self.checkpoint is not None:
            if self.is_used:
                self.driver.restore(self.checkpoint)
            self.checkpoint.drop()


@pytest.fixture(scope="module")
def lab_session(request: pytest.FixtureRequest) -> Iterator[Driver]:
    """The module's lab, running. What is done to it stays: it is for ``lab_setup``."""
    socket = os.environ.get("MACHINIST_SESSION")
    if socket is None:
        yield from _own_lab(request)
        return
    if _is_worker(request.config):
        pytest.fail(
            "the workers of pytest-xdist cannot share the lab of `machinist test`: leave out -n, "
            "or run pytest without machinist, so that each worker starts its own",
            pytrace=False,
        )
    with Driver(socket) as driver:
        yield _started(driver)


@pytest.fixture(scope="module")
def lab_setup(lab_session: Driver) -> None:
    """Makes the module's lab what its tests want. A module may have its own."""


@pytest.fixture(scope="module")
def lab_of_module(lab_session: Driver, lab_setup: Any) -> Iterator[ModuleLab]:
    """The module's lab with its checkpoint; for ``lab``."""
    module = ModuleLab(lab_session)
    yield module
    if "MACHINIST_SESSION" in os.environ:
        module.close()


@pytest.fixture
def lab(lab_of_module: ModuleLab) -> Driver:
    """The lab, as ``lab_setup`` of the module has left it."""
    return lab_of_module.fresh()


@pytest.fixture
def machine(lab: Driver) -> Machine:
    """The lab's only machine."""
    machines = lab.machines
    if len(machines) != 1:
        names = ", ".join(machine.name for machine in machines)
        pytest.fail(
            f"`machine` is for labs with one machine, and this has {names}: use lab.machine(NAME)",
            pytrace=False,
        )
    return machines[0]


def _started(driver: Driver) -> Driver:
    """A lab all of whose machines are ready."""
    driver.connection.call("start", {"machines": [], "wait": True})
    for machine in driver.machines:
        machine.wait_until_ready()
    return driver


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def _own_lab(request: pytest.FixtureRequest) -> Iterator[Driver]:
    """Starts a lab for a module, and ends it."""
    config = request.config
    program = config.getoption("--machinist") or config.getini("machinist")
    up = [program, "up", "--file", str(_lab_file(request))]
    try:
        started = subprocess.run(up, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    except FileNotFoundError:
        pytest.fail(
            f"there is no program {program}: install machinist, or name it by --machinist",
            pytrace=False,
        )
    if started.returncode != 0:
        pytest.fail(f"{' '.join(up)} failed:\n{started.stderr.strip()}", pytrace=False)
    session = started.stdout.strip()
    try:
        with Driver(_socket(program, session)) as driver:
            yield _started(driver)
            # As machines of a test end: nobody reads what they would write as they power off.
            for machine in driver.machines:
                machine.crash()
    finally:
        subprocess.run([program, "down", session], stdout=subprocess.DEVNULL, check=True)


def _socket(program: str, session: str) -> str:
    """Where a session listens."""
    import json

    ps = [program, "ps", "--format", "json"]
    listed = subprocess.run(ps, stdout=subprocess.PIPE, check=True, text=True)
    found = json.loads(listed.stdout)
    for one in found:
        if one["session"] == session:
            return str(one["socket"])
    raise pytest.UsageError(f"the session {session} has ended by itself")


def _lab_file(request: pytest.FixtureRequest) -> Path:
    """The lab file of the module of a request."""
    config = request.config
    named = config.getoption("--lab")
    if named:
        return Path(config.invocation_params.dir, named)
    configured = config.getini("lab")
    if configured:
        return Path(config.rootpath, configured)
    module = Path(request.node.path)
    for directory in module.parents:
        if (directory / _LAB_FILE).is_file():
            return directory / _LAB_FILE
    raise pytest.UsageError(
        f"there is no {_LAB_FILE} beside {module} or above it: name one by --lab"
    )
