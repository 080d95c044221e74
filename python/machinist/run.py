"""Runs a test script: ``python -m machinist.run SCRIPT``.

The engine starts it with the session's socket in ``MACHINIST_SESSION``. How the script ended is
told over that socket; the exit status (0, 1, or 130 when interrupted) says it once more.
"""

from __future__ import annotations

import os
import sys
import types

from machinist._driver import Driver
from machinist._script import Script, run_script

__all__ = ["main", "run_script"]


def main(arguments: list[str]) -> int:
    """Runs the script that is named in ``arguments``, or gives a prompt if that is asked for."""
    if len(arguments) != 1 or "MACHINIST_SESSION" not in os.environ:
        print("usage: MACHINIST_SESSION=SOCKET python -m machinist.run SCRIPT", file=sys.stderr)
        return 2
    for stream in (sys.stdout, sys.stderr):
        # Every line is an event of its own, at the time it is printed.
        if isinstance(stream, types.SimpleNamespace) or not hasattr(stream, "reconfigure"):
            continue
        stream.reconfigure(line_buffering=True, errors="backslashreplace")
    with Driver(os.environ["MACHINIST_SESSION"]) as driver:
        driver.script = Script(driver, arguments[0])
        if driver.job.get("interactive"):
            # Not needed otherwise, and it takes a while to import.
            from machinist import _interactive

            _interactive.prompt(driver)
            failure = None
        else:
            if driver.job.get("ssh_backdoor"):
                driver.dump_machine_ssh()
            failure = driver.script.execute()
        sys.stdout.flush()
        sys.stderr.flush()
        driver.connection.call("report", {"failure": failure})
    if failure is None:
        return 0
    return 130 if failure["exception"] == "KeyboardInterrupt" else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
