"""The driver's configuration."""

from machinist._configuration import (
    DriverConfiguration,
    MachineConfiguration,
    NspawnMachineConfiguration,
    QemuMachineConfiguration,
    load_driver_configuration,
)

__all__ = [
    "DriverConfiguration",
    "MachineConfiguration",
    "NspawnMachineConfiguration",
    "QemuMachineConfiguration",
    "load_driver_configuration",
]
