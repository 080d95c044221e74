"""Checkpoints: the whole lab at one moment, to go back to."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from machinist._connection import Connection
from machinist._errors import UsageError


@dataclass(frozen=True)
class Checkpoint:
    """The lab at one moment."""

    name: str
    """Its name, unique in the lab."""
    created: float
    """When it was taken, in seconds since 1970."""
    still: float
    """How long the machines stood still for it, in seconds."""
    machines: tuple[str, ...]
    """The names of its machines."""
    _owner: Checkpoints = field(repr=False, compare=False)

    def restore(self) -> None:
        """Takes the lab back to it. It can be gone back to again."""
        self._owner.restore(self)

    def drop(self) -> None:
        """Forgets it, and removes its files."""
        self._owner.drop_checkpoint(self)


class Checkpoints:
    """What a lab can do with checkpoints."""

    connection: Connection
    _numbers = itertools.count(1)

    def checkpoint(self, name: str | None = None) -> Checkpoint:
        """Take a checkpoint of the whole lab: all machines at one moment, with their disks and
        what is on its way between them.

        They stand still for some hundred milliseconds, and go on. A checkpoint of the same name is
        replaced. Of containers only the files are saved, and only where the lab file says
        ``checkpoint = "restart"``.
        """
        answer = self.connection.call("checkpoint", {"name": name})
        return self._checkpoint(answer)

    def restore(self, checkpoint: Checkpoint | str) -> None:
        """Take the lab back to a checkpoint, whatever its machines do now.

        What runs in them and was begun since is gone, and calls that wait for it raise
        ``MachineError``. So are commands of scripts that ran when the checkpoint was taken.
        """
        self.connection.call("restore", {"name": _name(checkpoint)})

    @property
    def checkpoints(self) -> list[Checkpoint]:
        """All checkpoints, the oldest first."""
        return [self._checkpoint(answer) for answer in self.connection.call("checkpoints")]

    def drop_checkpoint(self, checkpoint: Checkpoint | str) -> None:
        """Forget a checkpoint, and remove its files."""
        self.connection.call("drop_checkpoint", {"name": _name(checkpoint)})

    @contextmanager
    def rollback(self) -> Iterator[Checkpoint]:
        """Do something and undo it: at the end of the block, also by an exception, the lab is as
        it was at its beginning. Blocks may be nested.
        """
        checkpoint = self.checkpoint(f"rollback {next(self._numbers)}")
        try:
            yield checkpoint
        finally:
            try:
                self.restore(checkpoint)
            finally:
                self.drop_checkpoint(checkpoint)

    def _checkpoint(self, answer: dict[str, Any]) -> Checkpoint:
        return Checkpoint(
            name=answer["name"],
            created=answer["created"],
            still=answer["still"],
            machines=tuple(answer["machines"]),
            _owner=self,
        )


def _name(checkpoint: Checkpoint | str) -> str:
    if isinstance(checkpoint, Checkpoint):
        return checkpoint.name
    if isinstance(checkpoint, str):
        return checkpoint
    raise UsageError(f"a checkpoint or its name is wanted, not {checkpoint!r}")
