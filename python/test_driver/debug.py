"""Breakpoints."""

from machinist._debug import Debug, DebugAbstract, DebugNop

__all__ = ["Debug", "DebugAbstract", "DebugNop"]
