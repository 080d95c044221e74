"""What can go wrong."""

from machinist._errors import MachineError, RequestedAssertionFailed, TestScriptError

__all__ = ["MachineError", "RequestedAssertionFailed", "TestScriptError"]
