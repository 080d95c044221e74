"""Commands in a machine."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from machinist._arguments import string
from machinist._connection import decode_text, encode_data
from machinist._errors import CommandRecord, MachineError, RequestedAssertionFailed
from machinist._handle import Handle, Timeout
from machinist._process import Process, Result, result_of, tail
from machinist._retry import seconds


class Commands(Handle):
    """Running commands."""

    def execute(
        self,
        command: str,
        check_return: bool = True,
        check_output: bool = True,
        timeout: Timeout = 900,
    ) -> tuple[int, str]:
        """Run a shell command. Returns its exit status and its standard output.

        It runs as root in a login environment, under ``set -euo pipefail``: it fails if one of
        several commands fails, if any part of a pipeline does, or at a variable that is not set.
        The call waits until standard output is closed: redirect it where a command goes into the
        background. What is printed to standard error goes to the log.

        ``timeout`` is in seconds; after it the command is killed and the status is 124. With
        ``check_return=False`` the status is -1 always, and a machine that goes away is no error.
        With ``check_output=False`` the call does not wait at all, and returns ``(-2, "")``.
        """
        arguments: dict[str, Any] = {"machine": self.name, "command": _shell(command, timeout)}
        if not check_output:
            arguments["detach"] = True
            self._call("execute", arguments)
            return -2, ""
        if check_return:
            answer = self._call("execute", arguments)
            return answer["status"], decode_text(answer["stdout"])
        try:
            answer = self._call("execute", arguments)
        except MachineError:
            return -1, ""
        return -1, decode_text(answer["stdout"])

    def succeed(self, *commands: str, timeout: Timeout = None) -> str:
        """Run shell commands one after the other, each of which must succeed.

        Returns their standard outputs, one behind the other. See ``execute``.
        """
        return self._each(commands, timeout, "must succeed", True, _failed)

    def fail(self, *commands: str, timeout: Timeout = None) -> str:
        """Like ``succeed``, but every command must end with another status than 0."""
        return self._each(commands, timeout, "must fail", False, _succeeded)

    def _each(
        self,
        commands: Sequence[str],
        timeout: Timeout,
        purpose: str,
        zero: bool,
        message: Callable[[str, int], str],
    ) -> str:
        output = ""
        for command in commands:
            arguments = {
                "machine": self.name,
                "command": _shell(command, timeout),
                "purpose": purpose,
            }
            answer = self._call("execute", arguments)
            status: int = answer["status"]
            if (status == 0) != zero:
                raise RequestedAssertionFailed(
                    message(command, status), _record(self.name, command, answer)
                )
            output += decode_text(answer["stdout"])
        return output

    def wait_until_succeeds(
        self, command: str, timeout: Timeout = 900, attempt_timeout: Timeout = None
    ) -> str:
        """Repeat a shell command until it succeeds. Returns its last standard output.

        The pauses between grow from 20 ms to one second. ``attempt_timeout`` is the limit of each
        run of the command; without it, ``timeout`` is.
        """
        return self._repeat(command, "success", timeout, attempt_timeout)

    def wait_until_fails(
        self, command: str, timeout: Timeout = 900, attempt_timeout: Timeout = None
    ) -> str:
        """Like ``wait_until_succeeds``, but until the command fails."""
        return self._repeat(command, "failure", timeout, attempt_timeout)

    def _repeat(
        self, command: str, until: str, timeout: Timeout, attempt_timeout: Timeout = None
    ) -> str:
        answer = self._wait(
            "retry",
            timeout,
            command=_shell(command, timeout if attempt_timeout is None else attempt_timeout),
            until=until,
            purpose=f"waiting for {until}",
        )
        return decode_text(answer["stdout"])

    def run(
        self,
        argv: Sequence[str | os.PathLike[str]] | str,
        *,
        user: str | None = None,
        timeout: Timeout = None,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        input: bytes | str | None = None,
        check: bool = False,
    ) -> Result:
        """Run a program with its arguments as they are; no shell reads them. (A string is for the
        shell, as in ``execute``.)

        Returns status, standard output, standard error and duration. With ``check`` another status
        than 0 is an error.
        """
        command = _command(argv, user, timeout, env, cwd, input)
        answer = self._ask("execute", command=command)
        result = result_of(self.name, _text(argv), answer)
        return result.check() if check else result

    def spawn(
        self,
        command: Sequence[str | os.PathLike[str]] | str,
        *,
        user: str | None = None,
        timeout: Timeout = None,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
    ) -> Process:
        """Begin a command, and let it run. A string is for the shell, a sequence is not.

        It ends with the script, or earlier by ``kill``. What it prints is read by ``expect``.
        """
        self._prepare("spawn")
        self._connection.keep_reading()
        arguments = {
            "machine": self.name,
            "command": _command(command, user, timeout, env, cwd, None),
        }
        request = self._connection.send("spawn", arguments)
        if request.next_part() is None:
            # It did not come to run: this raises why.
            request.result()
        return Process(request, self.name, _text(command))

    def sleep(
        self, secs: float | timedelta | None = None, duration: float | timedelta | None = None
    ) -> None:
        """Sleep, by the machine's clock. The newer name of ``secs`` is ``duration``."""
        if (secs is None) == (duration is None):
            raise TypeError("sleep() takes one of secs and duration")
        self.succeed(f"sleep {seconds(duration if secs is None else secs)}")


def _shell(command: str, timeout: Timeout) -> dict[str, Any]:
    string("command", command)
    if timeout is None:
        return {"program": {"shell": command}}
    return {"program": {"shell": command}, "timeout": seconds(timeout)}


def _command(
    argv: Sequence[str | os.PathLike[str]] | str,
    user: str | None,
    timeout: Timeout,
    env: Mapping[str, str] | None,
    cwd: str | os.PathLike[str] | None,
    input: bytes | str | None,
) -> dict[str, Any]:
    command: dict[str, Any]
    if isinstance(argv, str):
        command = {"program": {"shell": argv}}
    else:
        command = {"program": {"argv": [os.fspath(word) for word in argv]}}
    if user is not None:
        command["user"] = string("user", user)
    if timeout is not None:
        command["timeout"] = seconds(timeout)
    if env:
        command["env"] = dict(env)
    if cwd is not None:
        command["cwd"] = os.fspath(cwd)
    if input is not None:
        command["input"] = encode_data(input)
    return command


def _text(argv: Sequence[str | os.PathLike[str]] | str) -> str:
    return argv if isinstance(argv, str) else shlex.join(os.fspath(word) for word in argv)


def _record(machine: str, command: str, answer: dict[str, Any]) -> CommandRecord:
    return {
        "machine": machine,
        "command": command,
        "status": answer["status"],
        "seconds": answer["seconds"],
        "stdout": tail(decode_text(answer["stdout"])),
        "stderr": tail(decode_text(answer["stderr"])),
    }


def _failed(command: str, status: int) -> str:
    return f"command `{command}` failed (exit code {status})"


def _succeeded(command: str, _status: int) -> str:
    return f"command `{command}` unexpectedly succeeded"
