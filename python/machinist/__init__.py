"""machinist: drive a lab of real Linux machines from Python.

A test script gets its names (``start_all``, ``subtest``, every machine, ...) without importing
anything. From outside, a running session is reached like this::

    import machinist

    with machinist.connect("/run/user/1000/machinist/k3f9x2ab/session.sock") as driver:
        print(driver.machine("web").succeed("uname -r"))

Only the standard library of CPython 3.10 or newer is needed.
"""

from machinist._checkpoint import Checkpoint
from machinist._driver import Driver, connect, python_name
from machinist._errors import MachineError, RequestedAssertionFailed, UsageError
from machinist._logger import Logger
from machinist._machine import Machine, NspawnMachine, QemuMachine
from machinist._polling import PollingConditionError
from machinist._process import Process, Result
from machinist._retry import retry
from machinist._vlan import VLan

__all__ = [
    "Checkpoint",
    "Driver",
    "Logger",
    "Machine",
    "MachineError",
    "NspawnMachine",
    "PollingConditionError",
    "Process",
    "QemuMachine",
    "RequestedAssertionFailed",
    "Result",
    "UsageError",
    "VLan",
    "connect",
    "python_name",
    "retry",
]
