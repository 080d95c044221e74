"""What can go wrong."""

from __future__ import annotations

from typing import TypedDict


class CommandRecord(TypedDict):
    """The command that an error is about."""

    machine: str
    command: str
    status: int
    seconds: float
    stdout: str
    stderr: str


class _About(Exception):
    """An error that may be about a command."""

    def __init__(self, message: str = "", command: CommandRecord | None = None) -> None:
        super().__init__(message)
        self.command = command


class TestScriptError(_About):
    """The test has failed, or could not go on because of what it asked for."""


class RequestedAssertionFailed(TestScriptError):
    """Something that the test asked for did not hold. The test has failed."""


class MachineError(_About):
    """machinist, or a machine under it, failed: the test could not be carried out."""


class UsageError(MachineError, ValueError):
    """A call makes no sense: there is no such machine, or a value is out of its range."""
