"""The prompt of an interactive session: the best of ptpython, IPython and Python's own."""

from __future__ import annotations

import code
import contextlib
import importlib
import os
import sys
import traceback
from types import ModuleType
from typing import TYPE_CHECKING, Any

from machinist._errors import MachineError
from machinist._failure import is_of_package
from machinist._script import exposed

if TYPE_CHECKING:
    from machinist._driver import Driver

HISTORY = ".nixos-test-history"
"""The file with what was typed in earlier sessions, in the directory where they run."""


def prompt(driver: Driver) -> None:
    """Gives a prompt with the names of a script, until it is left."""
    names = driver.symbols()
    names["__name__"] = "__main__"
    print(banner(driver, names))
    if driver.job.get("ssh_backdoor"):
        driver.dump_machine_ssh()
    with contextlib.suppress(SystemExit):
        _best(names, os.path.join(os.getcwd(), HISTORY))


def _best(names: dict[str, Any], history: str) -> None:
    if sys.stdin.isatty():
        if (ptpython := _module("ptpython.repl")) is not None:
            ptpython.embed(names, {}, history_filename=history)
            return
        if (ipython := _module("IPython")) is not None:
            ipython.start_ipython(argv=["--no-banner", "--no-confirm-exit"], user_ns=names)
            return
    plain(names, history)


def banner(driver: Driver, names: dict[str, Any]) -> str:
    """What is told at first."""
    return (
        f"{exposed(driver, names)}\n"
        "start_all() starts the machines, test_script() runs the test; Ctrl-C ends a call."
    )


def plain(names: dict[str, Any], history: str) -> None:
    """Python's own prompt, with completion and history where its readline is there."""
    # Asked now: ``exit()`` closes standard input.
    readline = _module("readline") if sys.stdin.isatty() else None
    if readline is not None:
        _prepare(readline, names, history)
    try:
        _Console(names).interact(banner="", exitmsg="")
    finally:
        if readline is not None:
            _keep(readline, history)


class _Console(code.InteractiveConsole):
    def runcode(self, code: Any) -> None:
        """Ctrl-C ends what runs, and not the session."""
        try:
            super().runcode(code)
        except KeyboardInterrupt:
            self.write("\nKeyboardInterrupt\n")

    def showtraceback(self) -> None:
        """Without the frames of this package, unless it is this package that failed."""
        error = sys.exc_info()[1]
        if error is None or isinstance(error, MachineError):
            super().showtraceback()
            return
        # The first frame is this prompt's.
        steps = error.__traceback__
        stack = traceback.extract_tb(steps.tb_next if steps else None)
        frames = [frame for frame in stack if not is_of_package(frame.filename)]
        lines = ["Traceback (most recent call last):\n", *traceback.format_list(frames)]
        self.write("".join([*lines, *traceback.format_exception_only(type(error), error)]))


def _prepare(readline: Any, names: dict[str, Any], history: str) -> None:
    import rlcompleter

    readline.set_completer(rlcompleter.Completer(names).complete)
    readline.parse_and_bind("tab: complete")
    try:
        readline.read_history_file(history)
    except OSError:
        # There was no session before, or it could not write.
        pass


def _keep(readline: Any, history: str) -> None:
    try:
        readline.write_history_file(history)
    except OSError as error:
        print(f"what was typed cannot be kept: {error}", file=sys.stderr)


def _module(name: str) -> Any:
    try:
        found: ModuleType = importlib.import_module(name)
    except ImportError:
        return None
    return found
