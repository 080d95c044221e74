"""The test script: its names, its end, and its time."""

from __future__ import annotations

import os
import signal
import sys
import threading
import types
from typing import TYPE_CHECKING, Any

from machinist._debug import Debug
from machinist._errors import MachineError
from machinist._failure import exit_failure, failure_of, is_own, trim
from machinist._machine import Machine, NspawnMachine
from machinist.symbols import ADDITIONAL

if TYPE_CHECKING:
    from machinist._driver import Driver


class Script:
    """A script of a session, run by this process."""

    def __init__(self, driver: Driver, path: str) -> None:
        self.path = os.path.abspath(path)
        self._driver = driver
        self._clock: threading.Timer | None = None

    def execute(self) -> dict[str, Any] | None:
        """Runs it as the test. Returns what went wrong."""
        driver = self._driver
        alone = bool(driver.job)
        pause = driver.debug.pause if isinstance(driver.debug, Debug) else None
        names = driver.symbols()
        if alone:
            print(exposed(driver, names))
        return run_script(self.path, names, alone=alone, pause=pause)

    def run(self) -> None:
        """Runs it for a person at a prompt: what it raises has the script's frames alone."""
        names = self._driver.symbols()
        names.update(__name__="__main__", __file__=self.path)
        try:
            exec(compiled(self.path), names)
        except SystemExit as error:
            if error.code not in (None, 0):
                print(f"the script called sys.exit({error.code!r})", file=sys.stderr)
        except MachineError:
            raise
        except BaseException as error:
            raise trim(error, self.path) from None

    def run_within_time(self) -> None:
        """Runs it for a person at a prompt, but ends all when its time is over."""
        limit: float | None = self._driver.job.get("global_timeout")
        if limit is not None and self._clock is None:
            log = self._driver.logger
            log.info(f"Test will time out and terminate in {limit:g} seconds")
            self._clock = threading.Timer(limit, self._time_is_over)
            self._clock.daemon = True
            self._clock.start()
        self.run()
        self._sync()

    def stop_clock(self) -> None:
        """All machines have ended: there is nothing more that could take too long."""
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _time_is_over(self) -> None:
        with self._driver.section("timeout reached; test terminating..."):
            for machine in self._driver.machines:
                machine.release()
        os.kill(os.getpid(), signal.SIGTERM)

    def _sync(self) -> None:
        """What VMs have not written to their disks yet may be wanted after the test.

        A container's files are the host's, which shows them as they are; and its ``sync`` would
        wait for all that the host has to write.
        """
        for machine in self._driver.machines:
            if not isinstance(machine, NspawnMachine) and machine.is_up():
                machine.execute("sync")


def exposed(driver: Driver, names: dict[str, Any]) -> str:
    """The names that a script has without importing them, as NixOS' driver tells them."""
    own = [machine.name for machine in driver.machines]
    vlans = [f"vlan{vlan.nr}" for vlan in driver.vlans]
    general = [
        name
        for name, value in names.items()
        if name not in {*vlans, "__name__"} and not isinstance(value, Machine)
    ]
    usual = [name for name in general if name not in ADDITIONAL]
    ours = [name for name in general if name in ADDITIONAL]
    lines = [", ".join(words) for words in (own, vlans, usual) if words]
    lines.append("of machinist alone: " + ", ".join(ours))
    return "additionally exposed symbols:\n    " + ",\n    ".join(lines)


def compiled(script: str) -> types.CodeType:
    """The script's code, with its real name in it."""
    with open(script, "rb") as file:
        code: types.CodeType = compile(file.read(), script, "exec", dont_inherit=True)
    return code


def run_script(
    script: str,
    symbols: dict[str, Any],
    *,
    alone: bool = False,
    pause: Any = None,
) -> dict[str, Any] | None:
    """Runs a script with names. Returns what went wrong, as the protocol's ``report`` wants it.

    ``alone``: only the script's own frames are told, not those of files beside it. ``pause`` is
    called with a frame and the failure, before the script is over.
    """
    module = types.ModuleType("__main__")
    module.__dict__.update(symbols, __file__=script, __builtins__=__builtins__)
    sys.modules["__main__"] = module
    sys.argv = [script]
    if not alone:
        # The script's own directory first, as for any Python script: helpers lie beside it. Not
        # for NixOS tests: there it is the whole store.
        sys.path.insert(0, os.path.dirname(script))
    of_threads = _watch_threads(script, alone)
    try:
        exec(compiled(script), module.__dict__)
        for thread in threading.enumerate():
            # As Python itself does at its end, but then nobody would hear how they ended.
            if thread is not threading.current_thread() and not thread.daemon:
                thread.join()
    except SystemExit as error:
        return exit_failure(error, script, alone)
    except BaseException as error:
        failure = failure_of(error, script, alone)
        if pause is not None and isinstance(error, Exception):
            pause(_innermost(error, script, alone), failure)
        return failure
    return of_threads[0] if of_threads else None


def _innermost(error: BaseException, script: str, alone: bool) -> types.FrameType:
    """The script's frame that the error came through last."""
    step = error.__traceback__
    assert step is not None
    found = step.tb_frame
    while step is not None:
        if is_own(os.path.abspath(step.tb_frame.f_code.co_filename), script, alone):
            found = step.tb_frame
        step = step.tb_next
    return found


def _watch_threads(script: str, alone: bool) -> list[dict[str, Any]]:
    """What goes wrong in threads from now on: printed when it happens, and kept."""
    failures: list[dict[str, Any]] = []

    def failed(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is None or isinstance(args.exc_value, SystemExit):
            return
        failure = failure_of(args.exc_value, script, alone)
        thread = args.thread.name if args.thread is not None else "a thread"
        said = f": {failure['message']}" if failure["message"] else ""
        print(f"{thread}: {failure['exception']}{said}", file=sys.stderr)
        failures.append(failure)

    threading.excepthook = failed
    return failures
