"""Machines."""

from machinist._keys import CHAR_TO_KEY
from machinist._machine import Machine, NspawnMachine, QemuMachine
from machinist._retry import retry

BaseMachine = Machine

__all__ = ["CHAR_TO_KEY", "BaseMachine", "Machine", "NspawnMachine", "QemuMachine", "retry"]
