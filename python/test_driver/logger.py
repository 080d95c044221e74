"""The log."""

from machinist._logger import AbstractLogger, CompositeLogger, Logger, LogLevel

__all__ = ["AbstractLogger", "CompositeLogger", "LogLevel", "Logger"]
