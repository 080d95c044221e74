"""Runs a test script: ``python -m machinist.run SCRIPT``.

The engine starts it with the session's socket in ``MACHINIST_SESSION``. How the script ended is
told over that socket; the exit status (0, 1, or 130 when interrupted) says it once more.
"""

from __future__ import annotations

import linecache
import os
import sys
import threading
import traceback
import types
from typing import Any

from machinist._driver import Driver
from machinist._errors import MachineError

_PACKAGE = os.path.dirname(os.path.abspath(__file__))


def main(arguments: list[str]) -> int:
    """Runs the script that is named in ``arguments``."""
    if len(arguments) != 1 or "MACHINIST_SESSION" not in os.environ:
        print("usage: MACHINIST_SESSION=SOCKET python -m machinist.run SCRIPT", file=sys.stderr)
        return 2
    for stream in (sys.stdout, sys.stderr):
        # Every line is an event of its own, at the time it is printed.
        if isinstance(stream, types.SimpleNamespace) or not hasattr(stream, "reconfigure"):
            continue
        stream.reconfigure(line_buffering=True, errors="backslashreplace")
    script = os.path.abspath(arguments[0])
    with Driver(os.environ["MACHINIST_SESSION"]) as driver:
        failure = run_script(script, driver.symbols())
        sys.stdout.flush()
        sys.stderr.flush()
        driver.connection.call("report", {"failure": failure})
    if failure is None:
        return 0
    return 130 if failure["exception"] == "KeyboardInterrupt" else 1


def run_script(script: str, symbols: dict[str, Any]) -> dict[str, Any] | None:
    """Runs a script with names. Returns what went wrong, as the protocol's ``report`` wants it."""
    module = types.ModuleType("__main__")
    module.__dict__.update(symbols, __file__=script, __builtins__=__builtins__)
    sys.modules["__main__"] = module
    sys.argv = [script]
    # The script's own directory first, as for any Python script: helpers lie beside it.
    sys.path.insert(0, os.path.dirname(script))
    of_threads = watch_threads(script)
    try:
        with open(script, "rb") as file:
            code = compile(file.read(), script, "exec", dont_inherit=True)
        exec(code, module.__dict__)
        for thread in threading.enumerate():
            # As Python itself does at its end, but then nobody would hear how they ended.
            if thread is not threading.current_thread() and not thread.daemon:
                thread.join()
    except SystemExit as error:
        return exit_failure(error, script)
    except BaseException as error:
        return failure_of(error, script)
    return of_threads[0] if of_threads else None


def watch_threads(script: str) -> list[dict[str, Any]]:
    """What goes wrong in threads from now on: printed when it happens, and kept."""
    failures: list[dict[str, Any]] = []

    def failed(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is None or isinstance(args.exc_value, SystemExit):
            return
        failure = failure_of(args.exc_value, script)
        thread = args.thread.name if args.thread is not None else "a thread"
        said = f": {failure['message']}" if failure["message"] else ""
        print(f"{thread}: {failure['exception']}{said}", file=sys.stderr)
        failures.append(failure)

    threading.excepthook = failed
    return failures


def exit_failure(error: SystemExit, script: str) -> dict[str, Any] | None:
    """What ``sys.exit`` means: nothing or 0 is success, anything else is not."""
    if error.code is None or error.code == 0:
        return None
    failure = failure_of(error, script)
    if isinstance(error.code, int):
        failure["message"] = f"the script called sys.exit({error.code})"
    return failure


def failure_of(error: BaseException, script: str) -> dict[str, Any]:
    """An exception as the engine wants to know it."""
    frames = own_frames(error, os.path.dirname(script))
    failure: dict[str, Any] = {
        "exception": type(error).__name__,
        "message": message_of(error, frames),
        "frames": frames,
        "machinery": isinstance(error, MachineError),
    }
    command = getattr(error, "command", None)
    if isinstance(command, dict):
        failure["command"] = command
    return failure


def message_of(error: BaseException, frames: list[dict[str, Any]]) -> str:
    """What an exception says; for a bare ``assert``, what was asserted."""
    if isinstance(error, SyntaxError):
        message = error.msg or "invalid syntax"
    else:
        message = str(error)
    if not message and isinstance(error, AssertionError) and frames:
        message = frames[-1]["source"]
    if error.__cause__ is not None and not isinstance(error, MachineError):
        cause = error.__cause__
        message += f"\ncaused by {type(cause).__name__}: {cause}"
    return message


def own_frames(error: BaseException, directory: str) -> list[dict[str, Any]]:
    """The frames of the script and of the helpers beside it, outermost first."""
    frames = []
    for frame in traceback.extract_tb(error.__traceback__):
        path = os.path.abspath(frame.filename)
        if is_own(path, directory):
            frames.append(frame_of(path, frame.lineno or 0, frame.name, frame.line or ""))
    if isinstance(error, SyntaxError) and error.filename:
        line = error.lineno or 0
        path = os.path.abspath(error.filename)
        frames.append(frame_of(path, line, "<module>", linecache.getline(path, line)))
    return frames


def is_own(path: str, directory: str) -> bool:
    """Whether a file is the script's, or beside it: not machinist, not an installed package."""
    if path.startswith(_PACKAGE + os.sep):
        return False
    inside = path.startswith(directory + os.sep)
    return inside and f"{os.sep}site-packages{os.sep}" not in path[len(directory) :]


def frame_of(path: str, line: int, function: str, source: str) -> dict[str, Any]:
    """A frame as the protocol wants it."""
    return {"file": path, "line": line, "function": function, "source": source.strip()}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
