"""The driver."""

from machinist._configuration import DriverConfiguration, load_driver_configuration
from machinist._driver import Driver
from machinist._driver import Tester as AssertionTester
from machinist._driver import python_name as pythonize_name

__all__ = [
    "AssertionTester",
    "Driver",
    "DriverConfiguration",
    "load_driver_configuration",
    "pythonize_name",
]
