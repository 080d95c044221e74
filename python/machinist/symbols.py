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
    "MachineError",
    "RequestedAssertionFailed",
    "t",
    "debug",
    "dump_machine_ssh",
)
"""Names of the NixOS driver (all of its generations), and the two errors."""

if __name__ == "__main__":
    sys.stdout.write(",".join(SYMBOLS))
