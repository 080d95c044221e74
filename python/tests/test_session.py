"""The package with a session. It is named by MACHINIST_TEST_SESSION, has the machines `web` and
`db-1`, and their agents run on this host: `cargo test -p machinist-session` sees to that."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
import unittest
from pathlib import Path

import machinist
from machinist import Machine, MachineError, RequestedAssertionFailed, UsageError

SESSION = os.environ.get("MACHINIST_TEST_SESSION")


@unittest.skipIf(SESSION is None, "no session: run it by cargo test -p machinist-session")
class WithSession(unittest.TestCase):
    def setUp(self) -> None:
        assert SESSION is not None
        self.driver = machinist.connect(SESSION)
        self.addCleanup(self.driver.close)
        self.web: Machine = self.driver.machine("web")
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.dir = Path(directory.name)


class Symbols(WithSession):
    def test_scripts_have_their_names(self) -> None:
        names = self.driver.symbols()
        for name in (
            "start_all subtest retry log t driver machines os web db_1 join_all Machine "
            "MachineError RequestedAssertionFailed"
        ).split():
            self.assertIn(name, names)
        self.assertNotIn("machine", names)
        self.assertEqual([machine.name for machine in names["machines"]], ["db-1", "web"])
        self.assertRaises(KeyError, self.driver.machine, "nobody")

    def test_a_wrong_socket(self) -> None:
        with self.assertRaisesRegex(MachineError, "cannot connect to the session at /nonexistent"):
            machinist.connect("/nonexistent")


class Commands(WithSession):
    def test_execute(self) -> None:
        self.assertEqual(self.web.execute("echo a; echo b >&2"), (0, "a\n"))
        self.assertEqual(self.web.execute("echo a; exit 7"), (7, "a\n"))
        self.assertEqual(self.web.execute("echo a; exit 7", check_return=False), (-1, "a\n"))
        self.assertEqual(self.web.execute("printf '\\377'"), (0, "\ufffd"))
        self.assertEqual(self.web.execute("sleep 10", timeout=0.1)[0], 124)
        marker = self.dir / "detached"
        began = time.monotonic()
        detached = self.web.execute(f"sleep 0.3; touch {marker}", check_output=False)
        self.assertEqual(detached, (-2, ""))
        self.assertLess(time.monotonic() - began, 0.3)
        self.web.wait_for_file(str(marker), timeout=10)

    def test_succeed_and_fail(self) -> None:
        self.assertEqual(self.web.succeed("echo a", "echo b"), "a\nb\n")
        with self.assertRaises(RequestedAssertionFailed) as caught:
            self.web.succeed("echo out; echo err >&2; exit 3", "echo never")
        self.assertEqual(
            str(caught.exception),
            "command `echo out; echo err >&2; exit 3` failed (exit code 3)",
        )
        record = caught.exception.command
        assert record is not None
        self.assertEqual((record["status"], record["stdout"], record["stderr"]), (3, "out\n", "err\n"))
        self.assertEqual(self.web.fail("echo a; false"), "a\n")
        with self.assertRaisesRegex(
            RequestedAssertionFailed, "^command `true` unexpectedly succeeded$"
        ):
            self.web.fail("true")

    def test_until(self) -> None:
        marker = self.dir / "marker"
        timer = threading.Timer(0.2, marker.touch)
        timer.start()
        began = time.monotonic()
        output = self.web.wait_until_succeeds(f"echo looking; test -e {marker}")
        self.assertEqual(output, "looking\n")
        self.assertLess(time.monotonic() - began, 2)
        self.assertEqual(self.web.wait_until_fails("false"), "")
        with self.assertRaisesRegex(RequestedAssertionFailed, "timed out after"):
            self.web.wait_until_succeeds("false", timeout=0.1)

    def test_run(self) -> None:
        result = self.web.run(
            ["sh", "-c", 'cat; echo "$1" "$A" >&2; exit 4', "sh", "it's $HOME"],
            env={"A": "b"},
            cwd="/usr",
            input=b"\xff in",
            timeout=10,
        )
        self.assertEqual(result.status, 4)
        self.assertEqual(result.stdout_bytes, b"\xff in")
        self.assertEqual(result.stdout, "\ufffd in")
        self.assertEqual(result.stderr, "it's $HOME b\n")
        self.assertGreater(result.duration, 0)
        with self.assertRaises(RequestedAssertionFailed):
            result.check()
        self.assertEqual(self.web.run(["pwd"], cwd="/usr", check=True).stdout, "/usr\n")
        self.assertEqual(self.web.run("echo $((1 + 1))").stdout, "2\n")
        self.assertEqual(self.web.run(["id", "-un"], user="nobody").stdout, "nobody\n")
        with self.assertRaises(RequestedAssertionFailed):
            self.web.run(["/no/such/program"])

    def test_sleep(self) -> None:
        began = time.monotonic()
        self.web.sleep(0.1)
        self.assertGreaterEqual(time.monotonic() - began, 0.1)

    def test_quick(self) -> None:
        self.web.execute("true")
        times = []
        for _ in range(200):
            began = time.perf_counter()
            self.web.execute("true")
            times.append(time.perf_counter() - began)
        times.sort()
        # Generous: this is a debug build on a machine that does other things as well.
        self.assertLess(times[len(times) // 2], 0.05)
        if os.environ.get("MACHINIST_TEST_TIMES"):
            print(f"median of execute('true'): {times[len(times) // 2] * 1000:.2f} ms")

    def test_mistakes(self) -> None:
        with self.assertRaises(UsageError):
            self.web.execute("true", timeout=-1)
        with self.assertRaises(UsageError):
            self.driver.connection.call("crash", {"machine": "nobody"})


class Processes(WithSession):
    def test_expect(self) -> None:
        process = self.web.spawn("for i in 1 2 3; do echo ready $i; sleep 0.05; done; cat; exit 5")
        self.assertEqual(process.expect(r"ready (\d)", timeout=10)[1], "1")
        self.assertEqual(process.expect(r"ready (\d)", timeout=10)[1], "2")
        self.assertIsNone(process.poll())
        process.send("more\n")
        process.expect("^more$", timeout=10)
        process.close_input()
        self.assertEqual(process.wait(10), 5)
        self.assertIn("ready 3\n", process.stdout)
        with self.assertRaisesRegex(RequestedAssertionFailed, "exit code 5"):
            process.expect("nothing")

    def test_expect_gives_up(self) -> None:
        with self.web.spawn(["sleep", "100"]) as process:
            with self.assertRaisesRegex(RequestedAssertionFailed, "printed nothing like 'x' in 0.1"):
                process.expect("x", timeout=0.1)
        self.assertEqual(process.wait(), 137)

    def test_signals(self) -> None:
        process = self.web.spawn("trap 'echo hup; exit 9' HUP; echo on; while :; do sleep 0.02; done")
        process.expect("on", timeout=10)
        process.signal(signal.SIGHUP)
        process.expect("hup", timeout=10)
        self.assertEqual(process.wait(10), 9)
        process.kill()

    def test_what_cannot_run(self) -> None:
        with self.assertRaises(RequestedAssertionFailed):
            self.web.spawn(["/no/such/program"])

    def test_it_does_not_stand_still_while_nobody_reads(self) -> None:
        marker = self.dir / "done"
        with self.web.spawn(f"head -c 3000000 /dev/zero; touch {marker}; sleep 100"):
            deadline = time.monotonic() + 20
            while not marker.exists() and time.monotonic() < deadline:
                time.sleep(0.02)
            self.assertTrue(marker.exists())


class Waits(WithSession):
    def test_files_and_sockets(self) -> None:
        path = self.dir / "file"
        threading.Timer(0.1, path.touch).start()
        self.web.wait_for_file(str(path), timeout=10)
        with self.assertRaisesRegex(RequestedAssertionFailed, "/no/such timed out after 0.1 s"):
            self.web.wait_for_file("/no/such", timeout=0.1)
        self.web.wait_for_open_unix_socket(str(SESSION), timeout=10)

    def test_ports(self) -> None:
        import socket

        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            self.web.wait_for_open_port(port, timeout=10)
        self.web.wait_for_closed_port(port, timeout=10)


class Files(WithSession):
    def test_both_ways(self) -> None:
        tree = self.dir / "tree"
        tree.mkdir()
        (tree / "program").write_bytes(b"\x00\xff")
        (tree / "program").chmod(0o755)
        (tree / "link").symlink_to("/etc/passwd")
        self.web.copy_from_host(str(tree), str(self.dir / "a" / "b"))
        self.driver.out_dir = self.dir / "out"
        self.web.copy_from_machine(str(self.dir / "a" / "b"), "sub")
        copied = self.dir / "out" / "sub" / "b"
        self.assertEqual((copied / "program").read_bytes(), b"\x00\xff")
        self.assertEqual((copied / "program").stat().st_mode & 0o777, 0o755)
        self.assertEqual(os.readlink(copied / "link"), "/etc/passwd")


class Telling(WithSession):
    def test_subtests_and_lines(self) -> None:
        symbols = self.driver.symbols()
        with symbols["subtest"]("outer"):
            symbols["log"].info("a %s", "line")
            self.web.log("said by web")
        with self.assertRaises(ZeroDivisionError), symbols["subtest"]("inner"):
            1 / 0
        request = self.driver.connection.send("events", {"past": True})
        events = []
        while (part := request.next_part()) is not None:
            events.append(part["event"])
        told = [event["what"] for event in events]
        self.assertIn({"kind": "log", "text": "a line"}, told)
        self.assertTrue(any(e.get("machine") == "web" and e["what"].get("text") == "said by web" for e in events))
        ended = [what for what in told if what["kind"] == "subtest-finished"]
        self.assertTrue(any(what["name"] == "outer" and what["ok"] for what in ended))
        self.assertTrue(
            any(what["name"] == "inner" and what["message"] == "division by zero" for what in ended)
        )


class Threads(WithSession):
    def test_calls_run_side_by_side(self) -> None:
        results: dict[int, str] = {}

        def work(number: int) -> None:
            for turn in range(5):
                results[number * 10 + turn] = self.web.succeed(f"sleep 0.05; echo {number}")

        began = time.monotonic()
        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(len(results), 40)
        self.assertTrue(all(text == f"{key // 10}\n" for key, text in results.items()))
        self.assertLess(time.monotonic() - began, 40 * 0.05 + 3)

    def test_ctrl_c_ends_a_call(self) -> None:
        marker = self.dir / "alive"
        interrupt = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
        interrupt.start()
        with self.assertRaises(KeyboardInterrupt):
            self.web.succeed(f"while :; do touch {marker}; sleep 0.02; done")
        # The connection still works, and the command is dead.
        self.assertEqual(self.web.succeed("echo on"), "on\n")
        time.sleep(0.2)
        marker.unlink(missing_ok=True)
        time.sleep(0.2)
        self.assertFalse(marker.exists())


if __name__ == "__main__":
    unittest.main()
