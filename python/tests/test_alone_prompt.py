"""Prompts: in a paused script, and of an interactive session."""

from __future__ import annotations

import os
import pty
import select
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import unittest
from pathlib import Path

from machinist._prompt import Prompt


def setUpModule() -> None:
    """What a shell starts in the background ignores Ctrl-C, and so would all that it starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Client:
    """Somebody at a prompt."""

    def __init__(self, case: unittest.TestCase, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(10)
        self.socket.connect(path)
        case.addCleanup(self.socket.close)
        self.banner = self.until(">>> ")

    def until(self, end: str) -> str:
        text = b""
        while not text.endswith(end.encode()):
            chunk = self.socket.recv(4096)
            if not chunk:
                raise EOFError(text)
            text += chunk
        return text.decode()[: -len(end)]

    def type(self, line: str) -> str:
        self.socket.sendall(line.encode() + b"\n")
        return self.until(">>> ")


class Paused(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = str(Path(directory.name) / "python.sock")

    def test_names_of_the_frame(self) -> None:
        local = 41
        with Prompt(self.path, sys._getframe()):
            self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)
            client = Client(self, self.path)
            self.assertIn("test_alone_prompt.py:", client.banner)
            self.assertEqual(client.type("local + 1"), "42\n")
            self.assertEqual(client.type("print(os.sep)"), "/\n")
            self.assertEqual(client.type("found = [local]"), "")
            self.assertIn("ZeroDivisionError", client.type("1 / 0"))
            self.assertIn("SyntaxError", client.type("= 1"))
            client.socket.sendall(b"\x03")
            self.assertIn("KeyboardInterrupt", client.until(">>> "))
            client.socket.sendall(b"exit()\n")
            self.assertRaises(EOFError, client.until, "never")
            # What one client makes, the next one has.
            self.assertEqual(Client(self, self.path).type("found"), "[41]\n")
        self.assertEqual(local, 41)
        self.assertFalse(os.path.exists(self.path))

    def test_nothing_keeps_the_script_from_going_on(self) -> None:
        go_on = threading.Event()
        began = threading.Event()
        with Prompt(self.path, sys._getframe()):
            client = Client(self, self.path)
            client.socket.sendall(b"began.set(); go_on.wait()\n")
            self.assertTrue(began.wait(10))
            # One who comes while the first is busy is served all the same.
            self.assertEqual(Client(self, self.path).type("1 + 1"), "2\n")
        self.assertRaises((EOFError, OSError), client.until, "never")
        go_on.set()

    def test_output_of_others_stays_where_it_was(self) -> None:
        with Prompt(self.path, sys._getframe()):
            client = Client(self, self.path)
            before = sys.stdout
            self.assertEqual(client.type("import sys; sys.stdout.write('here')"), "here4\n")
            self.assertIs(sys.stdout, before)
        self.assertIsNot(sys.stdout, before)


class Interactive(unittest.TestCase):
    def run_lines(self, *lines: str) -> str:
        program = (
            "from machinist._interactive import plain\n"
            "import os, signal\n"
            "def stop(): os.kill(os.getpid(), signal.SIGINT)\n"
            "try: plain({'answer': 42, 'stop': stop}, '/nonexistent/history')\n"
            "except SystemExit: pass\n"
        )
        ended = subprocess.run(
            [sys.executable, "-c", program],
            input="".join(f"{line}\n" for line in lines),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )
        self.assertEqual(ended.returncode, 0, ended.stdout)
        return ended.stdout

    def test_names_and_what_goes_wrong(self) -> None:
        said = self.run_lines("answer", "1 / 0", "import machinist")
        self.assertNotIn("_interactive.py", said)
        said = self.run_lines("answer", "1 / 0", "answer + 1")
        self.assertIn("42", said)
        self.assertIn("ZeroDivisionError", said)
        self.assertIn("43", said)

    def test_leaving(self) -> None:
        self.assertNotIn("Traceback", self.run_lines("exit()", "answer"))

    def test_ctrl_c_ends_a_call_and_not_the_session(self) -> None:
        said = self.run_lines("stop()", "answer")
        self.assertIn("KeyboardInterrupt", said)
        self.assertIn("42", said)


class AtTerminal(unittest.TestCase):
    """Python's own prompt at a terminal, as a person has it."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.history = Path(directory.name) / "history"

    def begin(self) -> None:
        program = (
            "from machinist._interactive import plain\n"
            "import time\n"
            "def started_long():\n"
            "    print('begun', flush=True)\n"
            "    # A signal that comes between Python's last look and a sleep is seen after it.\n"
            "    for _ in range(10000): time.sleep(0.1)\n"
            f"names = {{'started_long': started_long, 'answer_of_all': 42}}\n"
            f"plain(names, {str(self.history)!r})\n"
        )
        child, self.terminal = pty.fork()
        if child == 0:
            os.environ["TERM"] = "dumb"
            os.execv(sys.executable, [sys.executable, "-c", program])
        self.addCleanup(os.close, self.terminal)
        self.child = child
        self.said = b""
        self.until(b">>> ")

    def until(self, end: bytes) -> None:
        """Reads as far as that, and keeps what comes behind it for the next time."""
        while end not in self.said:
            ready, _, _ = select.select([self.terminal], [], [], 120)
            self.assertTrue(ready, f"{end!r} is not in {self.said!r}")
            self.said += os.read(self.terminal, 4096)
        self.said = self.said.partition(end)[2]

    def leave(self) -> None:
        # Between two lines the terminal is not readline's, and Ctrl-D would be lost.
        self.until(b">>> ")
        os.write(self.terminal, b"\x04")
        _, status = os.waitpid(self.child, 0)
        self.assertEqual(status, 0)

    def test_completion_ctrl_c_and_history(self) -> None:
        self.begin()
        os.write(self.terminal, b"answer\t\n")
        self.until(b"42")
        self.until(b">>> ")
        os.write(self.terminal, b"started_long()\n")
        self.until(b"begun")
        os.write(self.terminal, b"\x03")
        self.until(b"KeyboardInterrupt")
        self.until(b">>> ")
        os.write(self.terminal, b"20 + 22\n")
        self.until(b"42")
        self.leave()
        self.assertIn("20 + 22", self.history.read_text().splitlines())
        self.begin()
        # The last line of the session before.
        os.write(self.terminal, b"\x10\n")
        self.until(b"42")
        self.leave()


if __name__ == "__main__":
    unittest.main()
