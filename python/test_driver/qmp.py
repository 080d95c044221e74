"""QEMU's machine protocol."""

from machinist._qmp import QMPAPIError, QMPSession

__all__ = ["QMPAPIError", "QMPSession"]
