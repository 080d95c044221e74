"""What scripts of the NixOS driver know besides commands, with a session."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
import warnings
from datetime import timedelta
from typing import Any
from unittest import mock

from machinist import MachineError, PollingConditionError, RequestedAssertionFailed, UsageError
from machinist import symbols
from machinist._logger import LogLevel
from machinist._machine import machine_of
from machinist._prompt import Prompt
from test_session import WithSession


class Names(WithSession):
    def test_all_are_there(self) -> None:
        names = self.driver.symbols()
        machines = {"web", "db_1", *(f"vlan{vlan.nr}" for vlan in self.driver.vlans)}
        general = [*symbols.SYMBOLS, *symbols.ADDITIONAL]
        self.assertEqual([*names], [*general, *(n for n in names if n in machines)])
        self.assertEqual(names["machines"], self.driver.machines)
        kinds = [*names["machines_qemu"], *names["machines_nspawn"]]
        self.assertEqual({machine.name for machine in kinds}, {"web", "db-1"})

    def test_a_machine_comes_before_a_name_of_ours(self) -> None:
        machine = machine_of(self.driver, "lab", "vm")
        with mock.patch.object(self.driver, "_machines", [machine]):
            names = self.driver.symbols()
        self.assertIs(names["lab"], machine)
        self.assertIs(names["driver"], self.driver)

    def test_there_is_no_script_to_run(self) -> None:
        self.assertRaisesRegex(MachineError, "no test script", self.driver.run_tests)


class Events(WithSession):
    def told(self) -> list[dict[str, Any]]:
        request = self.driver.connection.send("events", {"past": True})
        events = []
        while (part := request.next_part()) is not None:
            events.append(part["event"])
        return events

    def test_sections(self) -> None:
        with self.driver.logger.nested("a heading"), self.web.nested("of a machine"):
            pass
        with self.assertRaises(ZeroDivisionError), self.driver.logger.nested("broken"):
            1 / 0
        started = {
            (event["what"]["name"], event.get("machine"))
            for event in self.told()
            if event["what"]["kind"] == "section-started"
        }
        wanted = {("a heading", None), ("of a machine", "web"), ("broken", None)}
        self.assertLessEqual(wanted, started)

    def test_levels(self) -> None:
        log = self.driver.logger
        log.debug("for a few")
        log.warning("with %s", "words", machine="web")
        log.error("no exit in a lab")
        log.set_log_level(LogLevel.ERROR)
        log.info("left out")
        logged = [event for event in self.told() if event["what"]["kind"] == "log"]
        levels = {event["what"]["text"]: event["what"].get("level", "info") for event in logged}
        self.assertEqual(levels["for a few"], "debug")
        self.assertEqual(levels["with words"], "warning")
        self.assertEqual(levels["no exit in a lab"], "error")
        self.assertNotIn("left out", levels)
        self.assertTrue(any(event.get("machine") == "web" for event in logged))

    def test_purposes(self) -> None:
        self.web.succeed("echo for a purpose")
        self.web.wait_until_fails("false # for another")
        purposes = {
            event["what"]["command"]: event["what"].get("purpose")
            for event in self.told()
            if event["what"]["kind"] == "command-started"
        }
        self.assertEqual(purposes["echo for a purpose"], "must succeed")

    def test_consoles_are_shown_or_not(self) -> None:
        self.driver.serial_stdout_off()
        self.driver.serial_stdout_on()
        told = [event["what"] for event in self.told()]
        shown = [what["on"] for what in told if what["kind"] == "consoles-shown"]
        self.assertEqual(shown[-2:], [False, True])


class Conditions(WithSession):
    def test_while_a_command_runs(self) -> None:
        marker = self.dir / "gone"

        @self.driver.polling_condition(seconds_interval=0.05)
        def not_gone() -> None:
            self.web.fail(f"test -e {marker}")

        not_gone.wait(timeout=10)
        timer = threading.Timer(0.3, marker.touch)
        timer.start()
        began = time.monotonic()
        alive = self.dir / "alive"
        with self.assertRaisesRegex(PollingConditionError, "Polling condition failed: not_gone"):
            with not_gone:
                self.web.succeed(f"while :; do touch {alive}; sleep 0.02; done")
        self.assertLess(time.monotonic() - began, 10)
        self.assertEqual(self.driver.polling_conditions, [])
        # What was given up is dead, and the connection works.
        self.assertEqual(self.web.succeed("echo on"), "on\n")
        alive.unlink()
        time.sleep(0.2)
        self.assertFalse(alive.exists())

    def test_before_each_command(self) -> None:
        with self.assertRaises(PollingConditionError):
            with self.driver.polling_condition(lambda: False, description="never"):
                self.web.succeed(f"touch {self.dir / 'done'}")
        self.assertFalse((self.dir / "done").exists())


class Prompts(WithSession):
    def test_ctrl_c_ends_what_runs_there(self) -> None:
        socket_path = str(self.dir / "python.sock")
        begun, go_on = self.dir / "begun", self.dir / "go-on"
        said: list[str] = []

        def person() -> None:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(20)
                client.connect(socket_path)
                web = "self.web"
                client.sendall(f"{web}.succeed('touch {begun}; sleep 1000')\n".encode())
                while not begun.exists():
                    time.sleep(0.01)
                client.sendall(b"\x03")
                client.sendall(f"{web}.succeed('touch {go_on}; echo did-$((1 + 1))')\n".encode())
                text = ""
                while "did-2" not in text:
                    text += client.recv(4096).decode()
                said.append(text)

        with Prompt(socket_path, sys._getframe(), self.driver.connection):
            thread = threading.Thread(target=person)
            thread.start()
            # As the script stands in a call while it is paused.
            self.web.wait_for_file(str(go_on), timeout=30)
            thread.join()
        self.assertIn("KeyboardInterrupt", said[0])


class Machines(WithSession):
    def test_times_may_be_timedelta(self) -> None:
        soon = timedelta(milliseconds=100)
        self.assertEqual(self.web.execute("sleep 10", timeout=soon)[0], 124)
        with self.assertRaises(RequestedAssertionFailed):
            self.web.wait_for_file("/no/such", timeout=soon)
        self.web.sleep(soon)

    def test_a_duration_to_sleep(self) -> None:
        self.web.sleep(duration=timedelta(milliseconds=10))

    def test_each_attempt_has_its_limit(self) -> None:
        attempts = self.dir / "attempts"
        command = f"echo x >> {attempts}; sleep 600"
        limit = timedelta(milliseconds=100)
        with self.assertRaises(RequestedAssertionFailed):
            self.web.wait_until_succeeds(command, timeout=1, attempt_timeout=limit)
        self.assertGreater(len(attempts.read_text().split()), 2)
        # A later attempt is quick.
        command = f"{command[:-9]} test $(wc -l < {attempts}) -ge 9 || sleep 600"
        self.web.wait_until_succeeds(command, timeout=30, attempt_timeout=limit)

    def test_states_of_units(self) -> None:
        state = self.dir / "state"
        state.write_text("inactive")
        # There is no systemd where these agents run.
        self.web.systemctl = (  # type: ignore[method-assign]
            lambda _q, _user=None: self.web.execute(f"echo ActiveState=$(cat {state})")
        )
        self.web.wait_for_unit_active_state("a.service", "inactive", timeout=timedelta(seconds=5))
        threading.Timer(0.2, state.write_text, ["reloading"]).start()
        self.web.wait_for_unit_active_state("a.service", "reloading")
        with self.assertRaisesRegex(RequestedAssertionFailed, "timed out"):
            self.web.wait_for_unit_active_state("a.service", "failed", timeout=0.1)

    def test_into_directories(self) -> None:
        source = self.dir / "file"
        source.write_text("text")
        (self.dir / "there").mkdir()
        self.web.copy_from_host(source, str(self.dir / "there"))
        self.assertEqual((self.dir / "there" / "file").read_text(), "text")
        self.web.copy_from_host(source, str(self.dir / "there" / "other"))
        self.assertEqual((self.dir / "there" / "other").read_text(), "text")

    def test_by_the_shell(self) -> None:
        source = self.dir / "bytes"
        source.write_bytes(bytes(range(256)) * 300)
        self.web.copy_from_host_via_shell(source, f"{self.dir}/a/b/copy")
        self.assertEqual((self.dir / "a" / "b" / "copy").read_bytes(), source.read_bytes())

    def test_the_old_name_of_copying(self) -> None:
        (self.dir / "file").touch()
        self.driver.out_dir = self.dir / "out"
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            self.web.copy_from_vm(str(self.dir / "file"))
        self.assertTrue((self.dir / "out" / "file").exists())
        self.assertIn("copy_from_machine", str(told[0].message))
        self.assertEqual(os.path.basename(told[0].filename), os.path.basename(__file__))

    def test_what_is_not_for_containers(self) -> None:
        for machine in self.driver.machines_nspawn:
            with self.assertRaisesRegex(UsageError, r"send_key\(\) is for VMs alone, and .* is a"):
                machine.send_key("a")
            with self.assertRaisesRegex(UsageError, r"qmp_client\(\) is for VMs alone"):
                machine.qmp_client.send("stop")

    def test_what_is_known_of_it(self) -> None:
        self.assertTrue(self.web.booted)
        self.assertTrue(self.web.connected)
        self.assertIsInstance(self.web.name, str)
        self.assertEqual(self.web.out_dir, self.driver.out_dir)
