"""The configuration of a NixOS test driver, as JSON: what ``nixos-test-driver --config`` reads."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any


@dataclass
class MachineConfiguration:
    """A machine."""

    name: str
    start_script: Path


@dataclass
class QemuMachineConfiguration(MachineConfiguration):
    """A VM."""


@dataclass
class NspawnMachineConfiguration(MachineConfiguration):
    """A container. What it shows, and how, is as in the file."""

    display_targets: list[dict[str, Any]] = field(default_factory=list)
    display_exporters: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass
class DriverConfiguration:
    """All of it."""

    vms: dict[str, QemuMachineConfiguration]
    containers: dict[str, NspawnMachineConfiguration]
    vlans: list[int]
    global_timeout: timedelta
    enable_ssh_backdoor: bool
    test_script: Path
    display_viewers: dict[str, dict[str, Any]] = field(default_factory=dict)


def load_driver_configuration(file_path: str | os.PathLike[str]) -> DriverConfiguration:
    """Reads a configuration. ``ValueError`` says what is wrong with one."""
    with open(file_path, encoding="utf-8") as file:
        data = json.load(file)
    try:
        return DriverConfiguration(
            vms={
                name: QemuMachineConfiguration(**_machine(machine))
                for name, machine in data["vms"].items()
            },
            containers={
                name: NspawnMachineConfiguration(
                    **_machine(machine),
                    display_targets=list(machine.get("display_targets", [])),
                    display_exporters=dict(machine.get("display_exporters", {})),
                )
                for name, machine in data["containers"].items()
            },
            vlans=[int(vlan) for vlan in data["vlans"]],
            global_timeout=timedelta(seconds=float(data["global_timeout"])),
            enable_ssh_backdoor=bool(data["enable_ssh_backdoor"]),
            test_script=Path(data["test_script"]),
            display_viewers=dict(data.get("display_viewers", {})),
        )
    except KeyError as error:
        raise ValueError(f"{os.fspath(file_path)} has no {error}") from error
    except (AttributeError, TypeError) as error:
        raise ValueError(f"{os.fspath(file_path)} is no driver configuration: {error}") from error


def _machine(machine: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": machine["name"], "start_script": Path(machine["start_script"])}
