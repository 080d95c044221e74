"""Runs a command (the arguments) on a terminal of its own, and is the person who types there."""

import os
import pty
import select
import sys
import termios
import time

LIMIT = 60


def main() -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.argv[1], sys.argv[1:])
    before = None
    seen = b""

    def until(text: str) -> None:
        nonlocal seen
        end = time.monotonic() + LIMIT
        while text.encode() not in seen:
            ready, _, _ = select.select([terminal], [], [], max(0.0, end - time.monotonic()))
            try:
                chunk = os.read(terminal, 1 << 16) if ready else b""
            except OSError:
                chunk = b""
            if not chunk:
                sys.exit(f"{text!r} did not come, but {seen.decode(errors='replace')}")
            seen += chunk
        seen = seen[seen.index(text.encode()) + len(text) :]

    def type(text: str) -> None:
        os.write(terminal, text.encode())

    before = termios.tcgetattr(terminal)
    until("additionally exposed symbols:")
    until(">>> ")
    type("6 * 7\n")
    until("42")
    until(">>> ")
    # Many short sleeps: a signal that comes after Python's last look and before a sleep is seen after it.
    sleep = "[time.sleep(0.1) for _ in range(6000)]"
    type(f"import time; print('now', 'sleeping'); {sleep}\n")
    until("now sleeping")
    type("\x03")
    until("KeyboardInterrupt")
    until(">>> ")
    type("test_script()\n")
    until("the script ran")
    until(">>> ")
    type("\x04")
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status != 0:
        sys.exit(f"exit status {status}: {seen.decode(errors='replace')}")
    if termios.tcgetattr(terminal) != before:
        sys.exit("the terminal is not as it was")


main()
