"""The names that a test script has without importing them, besides its machines and VLANs.

``python -m machinist.symbols`` prints them, with commas between, for linters.
"""

from __future__ import annotations

import sys

SYMBOLS: tuple[str, ...] = (
    "start_all",
    "test_script",
    "machines",
    "machines_qemu",
    "machines_nspawn",
    "vlans",
    "driver",
    "log",
    "os",
    "create_machine",
    "subtest",
    "run_tests",
    "join_all",
    "retry",
    "serial_stdout_off",
    "serial_stdout_on",
    "polling_condition",
    "Machine",
    "BaseMachine",
    "QemuMachine",
    "NspawnMachine",
    "t",
    "debug",
)
"""Those of the NixOS driver, in all of its generations."""

ADDITIONAL: tuple[str, ...] = (
    "lab",
    "MachineError",
    "RequestedAssertionFailed",
    "dump_machine_ssh",
)
"""Those that only machinist has. A machine of the same name comes first."""

if __name__ == "__main__":
    sys.stdout.write(",".join((*SYMBOLS, *ADDITIONAL)))
