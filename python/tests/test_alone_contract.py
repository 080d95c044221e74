"""Names, parameters and defaults of the NixOS test driver, of its versions that are in use."""

from __future__ import annotations

import inspect
import unittest
from collections.abc import Callable
from typing import Any

from machinist import Driver, NspawnMachine, QemuMachine, retry
from machinist._debug import Debug, DebugNop
from machinist._logger import AbstractLogger
from machinist._polling import Poll
from machinist._retry import DEFAULT_TIMEOUT

NEEDED = inspect.Parameter.empty

MACHINE: dict[str, dict[str, Any]] = {
    "connect": {},
    "console_interact": {},
    "copy_from_host": {"source": NEEDED, "target": NEEDED},
    "copy_from_host_via_shell": {"source": NEEDED, "target": NEEDED},
    "copy_from_machine": {"source": NEEDED, "target_dir": ""},
    "copy_from_vm": {"source": NEEDED, "target_dir": ""},
    "crash": {},
    "create_efi_vars": {},
    "dump_efi_vars": {},
    "block": {},
    "dump_tty_contents": {"tty": NEEDED},
    "execute": {"command": NEEDED, "check_return": True, "check_output": True, "timeout": 900},
    "fail": {"timeout": None},
    "forward_port": {"host_port": 8080, "guest_port": 80},
    "get_console_log": {},
    "get_screen_text": {},
    "get_screen_text_variants": {},
    "get_tty_text": {"tty": NEEDED},
    "get_unit_info": {"unit": NEEDED, "user": None},
    "get_unit_property": {"unit": NEEDED, "property": NEEDED, "user": None},
    "get_window_names": {},
    "is_up": {},
    "log": {"msg": NEEDED},
    "nested": {"msg": NEEDED},
    "read_efi_vars": {},
    "reboot": {},
    "release": {},
    "require_unit_state": {"unit": NEEDED, "require_state": "active"},
    "run_callbacks": {},
    "screenshot": {"filename": NEEDED},
    "send_chars": {"chars": NEEDED, "delay": 0.01},
    "send_console": {"chars": NEEDED},
    "send_key": {"key": NEEDED, "delay": 0.01, "log": True},
    "send_monitor_command": {"command": NEEDED},
    "shell_interact": {"address": None},
    "shutdown": {},
    "sleep": {"secs": None, "duration": None},
    "start": {"allow_reboot": False},
    "start_job": {"jobname": NEEDED, "user": None},
    "stop_job": {"jobname": NEEDED, "user": None},
    "succeed": {"timeout": None},
    "switch_root": {},
    "systemctl": {"q": NEEDED, "user": None},
    "unblock": {},
    "wait_for_closed_port": {
        "port": NEEDED,
        "addr": "localhost",
        "timeout": 900,
        "attempt_timeout": None,
    },
    "wait_for_console_text": {"regex": NEEDED, "timeout": None},
    "wait_for_file": {"filename": NEEDED, "timeout": 900, "attempt_timeout": None},
    "wait_for_open_port": {
        "port": NEEDED,
        "addr": "localhost",
        "timeout": 900,
        "attempt_timeout": None,
    },
    "wait_for_open_unix_socket": {
        "addr": NEEDED,
        "is_datagram": False,
        "timeout": 900,
        "attempt_timeout": None,
    },
    "wait_for_qmp_event": {"event_filter": NEEDED, "timeout": 600},
    "wait_for_shutdown": {},
    "wait_for_text": {"regex": NEEDED, "timeout": 900, "attempt_timeout": None},
    "wait_for_unit": {"unit": NEEDED, "user": None, "timeout": 900, "attempt_timeout": None},
    "wait_for_unit_active_state": {"unit": NEEDED, "state": NEEDED, "user": None, "timeout": 900},
    "wait_for_window": {"regexp": NEEDED, "timeout": 900, "attempt_timeout": None},
    "wait_for_x": {"timeout": 900, "attempt_timeout": None},
    "wait_until_fails": {"command": NEEDED, "timeout": 900, "attempt_timeout": None},
    "wait_until_succeeds": {"command": NEEDED, "timeout": 900, "attempt_timeout": None},
    "wait_until_tty_matches": {
        "tty": NEEDED,
        "regexp": NEEDED,
        "timeout": 900,
        "attempt_timeout": None,
    },
    "write_efi_vars": {"add": NEEDED},
}
ATTRIBUTES = (
    "name state_dir shared_dir out_dir booted connected pid process qmp_client ssh_backdoor_command "
    "efi_vars efi_vars_path last_lines full_console_log tmp_dir log_serial"
).split()

DRIVER: dict[str, dict[str, Any]] = {
    "create_machine": {"start_command": NEEDED, "name": None, "keep_machine_state": False},
    "join_all": {},
    "polling_condition": {
        "fun_": None,
        "seconds_interval": None,
        "interval": None,
        "description": None,
    },
    "run_tests": {},
    "serial_stdout_off": {},
    "serial_stdout_on": {},
    "start_all": {},
    "subtest": {"name": NEEDED},
    "test_script": {},
    "test_symbols": {},
}

LOGGER = (
    "log subtest nested debug info warning error log_test_error log_serial print_serial_logs "
    "set_log_level"
).split()


class Contract(unittest.TestCase):
    def agrees(self, function: Callable[..., Any], wanted: dict[str, Any]) -> None:
        """All parameters are there, in this order; further ones may be left out."""
        found = dict(inspect.signature(function).parameters)
        found.pop("self", None)
        order = [name for name in found if name in wanted]
        self.assertEqual(order, [*wanted], function)
        kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        for name, parameter in found.items():
            if name in wanted:
                self.assertEqual(parameter.default, wanted[name], (function, name))
            elif parameter.kind not in kinds:
                self.assertIsNot(parameter.default, NEEDED, (function, name))

    def test_machines(self) -> None:
        for kind in (QemuMachine, NspawnMachine):
            for name, parameters in MACHINE.items():
                self.agrees(getattr(kind, name), parameters)
            # `name` is there once a machine is made.
            lacking = [name for name in ATTRIBUTES[1:] if not hasattr(kind, name)]
            self.assertEqual(lacking, [])

    def test_the_driver(self) -> None:
        for name, parameters in DRIVER.items():
            self.agrees(getattr(Driver, name), parameters)

    def test_the_rest(self) -> None:
        self.agrees(retry, {"fn": NEEDED, "timeout_seconds": None, "timeout": DEFAULT_TIMEOUT})
        self.agrees(Poll.wait, {"timeout_seconds": None, "timeout": None})
        for kind in (Debug, DebugNop):
            self.agrees(kind.breakpoint, {"host": "127.0.0.1", "port": 4444})
        self.assertEqual([name for name in LOGGER if not hasattr(AbstractLogger, name)], [])


if __name__ == "__main__":
    unittest.main()
