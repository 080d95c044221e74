"""The log of a test, as a script writes into it."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from enum import IntEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from machinist._driver import Driver

Attributes = Mapping[str, str]
_NONE: Attributes = {}


class LogLevel(IntEnum):
    """How much a line matters."""

    DEBUG = 1
    INFO = 2
    WARNING = 3
    ERROR = 4


class AbstractLogger(ABC):
    """What can be done with a log."""

    @abstractmethod
    def log(self, message: str, attributes: Attributes = _NONE) -> None:
        """Write a line. ``attributes`` may name the machine that it is about."""

    @abstractmethod
    def subtest(self, name: str, attributes: Attributes = _NONE) -> AbstractContextManager[None]:
        """A part of the test, for ``with``."""

    @abstractmethod
    def nested(self, message: str, attributes: Attributes = _NONE) -> AbstractContextManager[None]:
        """A part of the log under a heading, for ``with``."""

    @abstractmethod
    def debug(self, *args: Any, **kwargs: Any) -> None:
        """Write a line for who looks for a mistake."""

    @abstractmethod
    def info(self, *args: Any, **kwargs: Any) -> None:
        """Write a line."""

    @abstractmethod
    def warning(self, *args: Any, **kwargs: Any) -> None:
        """Write a line about something that may be wrong."""

    @abstractmethod
    def error(self, *args: Any, **kwargs: Any) -> None:
        """Write a line about something that is wrong."""

    @abstractmethod
    def log_test_error(self, *args: Any, **kwargs: Any) -> None:
        """Write a line about what made the test fail."""

    @abstractmethod
    def log_serial(self, message: str, machine: str) -> None:
        """Write a line that a machine's console printed."""

    @abstractmethod
    def print_serial_logs(self, enable: bool) -> None:
        """Whether what consoles print is shown from now on."""

    @abstractmethod
    def set_log_level(self, level: LogLevel) -> None:
        """Leave out what matters less."""

    def __call__(self, message: str) -> None:
        self.log(message)


class Logger(AbstractLogger):
    """``log`` of a script: writes into the log of the test."""

    def __init__(
        self, driver: Driver, exit_on_error: bool = False, level: LogLevel = LogLevel.DEBUG
    ) -> None:
        self._driver = driver
        self._level = level
        self.exit_on_error = exit_on_error
        """Whether ``error`` ends the script, as it does in the NixOS driver."""

    def log(self, message: str, attributes: Attributes = _NONE) -> None:
        self._send(LogLevel.INFO, message, attributes)

    def debug(self, *args: Any, **kwargs: Any) -> None:
        self._write_words(LogLevel.DEBUG, args, kwargs)

    def info(self, *args: Any, **kwargs: Any) -> None:
        self._write_words(LogLevel.INFO, args, kwargs)

    def warning(self, *args: Any, **kwargs: Any) -> None:
        self._write_words(LogLevel.WARNING, args, kwargs)

    def error(self, *args: Any, **kwargs: Any) -> None:
        self._write_words(LogLevel.ERROR, args, kwargs)
        if self.exit_on_error:
            sys.exit(1)

    def log_test_error(self, *args: Any, **kwargs: Any) -> None:
        self._write_words(LogLevel.ERROR, args, kwargs)

    def log_serial(self, message: str, machine: str) -> None:
        self._write(LogLevel.INFO, message, {"machine": machine})

    def print_serial_logs(self, enable: bool) -> None:
        self._driver.show_consoles(enable)

    def set_log_level(self, level: LogLevel) -> None:
        self._level = LogLevel(level)

    def subtest(self, name: str, attributes: Attributes = _NONE) -> AbstractContextManager[None]:
        return self._driver.subtest(name)

    def nested(self, message: str, attributes: Attributes = _NONE) -> AbstractContextManager[None]:
        return self._driver.section(str(message), attributes)

    def _write_words(
        self, level: LogLevel, args: Sequence[Any], attributes: Mapping[str, Any]
    ) -> None:
        """A message, which may have ``%`` for the arguments behind it, as in ``logging``."""
        message, values = str(args[0]), args[1:]
        if values and isinstance(values[0], Mapping):
            # The NixOS driver takes attributes there.
            attributes, values = {**values[0], **attributes}, ()
        self._write(level, message % tuple(values) if values else message, attributes)

    def _write(self, level: LogLevel, message: str, attributes: Mapping[str, Any]) -> None:
        if level >= self._level:
            self._send(level, message, attributes)

    def _send(self, level: LogLevel, message: str, attributes: Mapping[str, Any]) -> None:
        self._driver.connection.call(
            "log",
            {
                "text": str(message),
                "machine": attributes.get("machine"),
                "level": level.name.lower(),
            },
        )


class CompositeLogger(AbstractLogger):
    """Hands on what it is told to several others."""

    def __init__(self, logger_list: list[AbstractLogger], exit_on_error: bool = True) -> None:
        self.logger_list = logger_list
        self.exit_on_error = exit_on_error

    def add_logger(self, logger: AbstractLogger) -> None:
        """From now on hand on to one more."""
        self.logger_list.append(logger)

    def log(self, message: str, attributes: Attributes = _NONE) -> None:
        self._each("log", message, attributes)

    def debug(self, *args: Any, **kwargs: Any) -> None:
        self._each("debug", *args, **kwargs)

    def info(self, *args: Any, **kwargs: Any) -> None:
        self._each("info", *args, **kwargs)

    def warning(self, *args: Any, **kwargs: Any) -> None:
        self._each("warning", *args, **kwargs)

    def error(self, *args: Any, **kwargs: Any) -> None:
        self._each("error", *args, **kwargs)
        if self.exit_on_error:
            sys.exit(1)

    def log_test_error(self, *args: Any, **kwargs: Any) -> None:
        self._each("log_test_error", *args, **kwargs)

    def log_serial(self, message: str, machine: str) -> None:
        self._each("log_serial", message, machine)

    def print_serial_logs(self, enable: bool) -> None:
        self._each("print_serial_logs", enable)

    def set_log_level(self, level: LogLevel) -> None:
        self._each("set_log_level", level)

    def subtest(self, name: str, attributes: Attributes = _NONE) -> AbstractContextManager[None]:
        return self._all("subtest", name, attributes)

    def nested(self, message: str, attributes: Attributes = _NONE) -> AbstractContextManager[None]:
        return self._all("nested", message, attributes)

    def _each(self, method: str, *args: Any, **kwargs: Any) -> None:
        for logger in self.logger_list:
            getattr(logger, method)(*args, **kwargs)

    @contextmanager
    def _all(self, method: str, *args: Any) -> Iterator[None]:
        with ExitStack() as stack:
            for logger in self.logger_list:
                stack.enter_context(getattr(logger, method)(*args))
            yield
