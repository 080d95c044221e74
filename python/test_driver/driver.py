"""The driver."""

from machinist._driver import Driver
from machinist._driver import Tester as AssertionTester
from machinist._driver import python_name as pythonize_name

__all__ = ["AssertionTester", "Driver", "pythonize_name"]
