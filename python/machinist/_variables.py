"""The environment of a script, which start scripts of VMs find as if they were its children."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from machinist._connection import Connection

NOW: Mapping[Any, Any] = getattr(os.environ, "_data", os.environ)
"""This process's environment. Where CPython has it as a plain dictionary, that is compared: it is
looked at before every command."""


class Variables:
    """What of the environment has been told to the engine."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._texts = dict(os.environ)
        self.told = dict(NOW)
        """``NOW``, as it was then."""

    def tell(self) -> None:
        """Tells what has changed."""
        told, texts = dict(NOW), dict(os.environ)
        changed: dict[str, str | None] = {
            name: value for name, value in texts.items() if self._texts.get(name) != value
        }
        changed.update(dict.fromkeys(self._texts.keys() - texts.keys()))
        self._connection.call("set_variables", {"variables": changed})
        self.told, self._texts = told, texts
