"""Variables of EFI firmware."""

from machinist._efi import EfiGuid, EfiVariable, EfiVars

__all__ = ["EfiGuid", "EfiVariable", "EfiVars"]
