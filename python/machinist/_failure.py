"""What went wrong in a script, as the engine wants to know it."""

from __future__ import annotations

import linecache
import os
import sysconfig
import traceback
import types
from typing import Any

from machinist._errors import MachineError

_PACKAGE = os.path.dirname(os.path.abspath(__file__))
_STANDARD = os.path.abspath(sysconfig.get_path("stdlib"))


def failure_of(error: BaseException, script: str, alone: bool = False) -> dict[str, Any]:
    """An exception as the engine wants to know it.

    ``alone``: only the script's own frames are told, not those of files beside it; and where the
    machinery failed, the whole stack.
    """
    frames = own_frames(error, script, alone)
    failure: dict[str, Any] = {
        "exception": type(error).__name__,
        "message": message_of(error, frames),
        "frames": frames,
        "machinery": isinstance(error, MachineError),
    }
    command = getattr(error, "command", None)
    if isinstance(command, dict):
        failure["command"] = command
    if alone and failure["machinery"]:
        failure["traceback"] = "".join(traceback.format_exception(error))
    return failure


def exit_failure(error: SystemExit, script: str, alone: bool = False) -> dict[str, Any] | None:
    """What ``sys.exit`` means: nothing or 0 is success, anything else is not."""
    if error.code is None or error.code == 0:
        return None
    failure = failure_of(error, script, alone)
    if isinstance(error.code, int):
        failure["message"] = f"the script called sys.exit({error.code})"
    return failure


def trim(error: BaseException, script: str) -> BaseException:
    """The same exception, with no other frames than the script's own."""
    kept: types.TracebackType | None = None
    steps = []
    step = error.__traceback__
    while step is not None:
        steps.append(step)
        step = step.tb_next
    for step in reversed(steps):
        if is_own(os.path.abspath(step.tb_frame.f_code.co_filename), script, True):
            kept = types.TracebackType(kept, step.tb_frame, step.tb_lasti, step.tb_lineno)
    return error.with_traceback(kept)


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


def own_frames(error: BaseException, script: str, alone: bool = False) -> list[dict[str, Any]]:
    """The frames of the script and of the helpers beside it, outermost first."""
    frames = []
    for frame in traceback.extract_tb(error.__traceback__):
        path = os.path.abspath(frame.filename)
        if is_own(path, script, alone):
            frames.append(frame_of(path, frame.lineno or 0, frame.name, frame.line or ""))
    if isinstance(error, SyntaxError) and error.filename:
        line = error.lineno or 0
        path = os.path.abspath(error.filename)
        frames.append(frame_of(path, line, "<module>", linecache.getline(path, line)))
    return frames


def is_own(path: str, script: str, alone: bool = False) -> bool:
    """Whether a file is the script's, or beside it: not machinist, Python, or a package."""
    if path == script or alone:
        return path == script
    if is_of_package(path) or path.startswith(_STANDARD + os.sep):
        return False
    directory = os.path.dirname(script)
    inside = path.startswith(directory + os.sep)
    return inside and f"{os.sep}site-packages{os.sep}" not in path[len(directory) :]


def is_of_package(path: str) -> bool:
    """Whether a file is one of machinist's."""
    return os.path.abspath(path).startswith(_PACKAGE + os.sep)


def frame_of(path: str, line: int, function: str, source: str) -> dict[str, Any]:
    """A frame as the protocol wants it."""
    return {"file": path, "line": line, "function": function, "source": source.strip()}
