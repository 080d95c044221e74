"""VLANs."""

from machinist._vlan import VLan

__all__ = ["VLan"]
