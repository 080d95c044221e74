"""The firmware of a VM."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from machinist._commands import Commands

if TYPE_CHECKING:
    from machinist._efi import EfiVariable, EfiVars


class Efi(Commands):
    """The variables of a VM's firmware."""

    @property
    def efi_vars_path(self) -> Path:
        """Where the start script keeps them."""
        self._only_vms("efi_vars_path")
        return self.state_dir / f"{self.name}-efi-vars.fd"

    @property
    def efi_vars(self) -> EfiVars:
        """All of them, for while the machine is off."""
        # Takes a while to import, and few scripts need it.
        from machinist._efi import EfiVars

        return EfiVars(self.efi_vars_path, self)  # type: ignore[arg-type]

    def create_efi_vars(self) -> None:
        """Begin with no variables, before the first start."""
        self.efi_vars.create_empty()

    def read_efi_vars(self) -> list[EfiVariable]:
        """All of them."""
        found = self.efi_vars.read_content() or {}
        return [one for each in found.values() for one in each.values()]

    def write_efi_vars(self, add: list[EfiVariable]) -> None:
        """Add variables, or replace them."""
        self.efi_vars.write(add)

    def dump_efi_vars(self) -> None:
        """Print all of them."""
        for variable in self.read_efi_vars():
            variable.print()
