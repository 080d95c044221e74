"""systemd in a machine."""

from __future__ import annotations

import re
import shlex

from machinist._arguments import string
from machinist._commands import Commands
from machinist._errors import RequestedAssertionFailed
from machinist._handle import Timeout
from machinist._retry import FIRST_PAUSE, INFINITE, repeat

_PROPERTY = re.compile(r"^([^=]+)=(.*)$")


class Units(Commands):
    """systemd's units."""

    def systemctl(self, q: str, user: str | None = None) -> tuple[int, str]:
        """Run ``systemctl`` with arguments as a shell takes them, or ``systemctl --user`` of
        ``user``. Returns exit status and standard output."""
        if user is None:
            return self.execute(f"systemctl {q}")
        inner = f"XDG_RUNTIME_DIR=/run/user/$(id -u) systemctl --user {q}"
        return self.execute(f"su -l {shlex.quote(user)} --shell /bin/sh -c {shlex.quote(inner)}")

    def start_job(self, jobname: str, user: str | None = None) -> tuple[int, str]:
        """``systemctl start``."""
        return self.systemctl(f"start {jobname}", user)

    def stop_job(self, jobname: str, user: str | None = None) -> tuple[int, str]:
        """``systemctl stop``."""
        return self.systemctl(f"stop {jobname}", user)

    def wait_for_unit(
        self,
        unit: str,
        user: str | None = None,
        timeout: Timeout = 900,
        attempt_timeout: Timeout = None,
    ) -> None:
        """Wait until a systemd unit is active.

        It is an error if the unit fails, or is inactive while no job is pending. (No look blocks:
        ``attempt_timeout``, the limit of one, is not needed.)
        """
        self._wait("wait_unit", timeout, unit=string("unit", unit), user=user)

    def wait_for_unit_active_state(
        self,
        unit: str,
        state: str,
        user: str | None = None,
        timeout: Timeout = 900,
        attempt_timeout: Timeout = None,
    ) -> None:
        """Wait until a systemd unit is in ``state``, such as ``reloading``, ``failed`` or
        ``inactive``. Other states on the way are no errors."""
        string("unit", unit)
        string("state", state)
        found = ""

        def reached(last: bool) -> bool:
            nonlocal found
            found = self.get_unit_property(unit, "ActiveState", user)
            if last and found != state:
                self.log(f'unit "{unit}" is still in state "{found}"')
            return found == state

        with self.nested(f"waiting for unit {unit} to be {state}"):
            repeat(reached, INFINITE if timeout is None else timeout, FIRST_PAUSE, 0.2)

    def get_unit_info(self, unit: str, user: str | None = None) -> dict[str, str]:
        """All properties of a systemd unit, as ``systemctl show`` tells them."""
        status, lines = self.systemctl(f'--no-pager show "{unit}"', user)
        if status != 0:
            raise RequestedAssertionFailed(
                f'retrieving systemctl info for unit "{unit}"'
                f"{_under(user)} failed with exit code {status}"
            )
        matches = (_PROPERTY.match(line) for line in lines.split("\n"))
        return {match[1]: match[2] for match in matches if match}

    def get_unit_property(self, unit: str, property: str, user: str | None = None) -> str:
        """One property of a systemd unit."""
        status, lines = self.systemctl(f'--no-pager show "{unit}" --property="{property}"', user)
        if status != 0:
            raise RequestedAssertionFailed(
                f'retrieving systemctl property "{property}" for unit "{unit}"'
                f"{_under(user)} failed with exit code {status}"
            )
        match = _PROPERTY.match(lines)
        if match is None or match[1] != property:
            raise RequestedAssertionFailed(
                f'unit "{unit}" has no property "{property}": systemctl show says {lines!r}'
            )
        return match[2]

    def require_unit_state(self, unit: str, require_state: str = "active") -> None:
        """Assert that a systemd unit is in a state now."""
        state = self.get_unit_property(unit, "ActiveState")
        if state != require_state:
            raise RequestedAssertionFailed(
                # The doubled word is in the message of the NixOS driver, which scripts may look for.
                f"Expected unit '{unit}' to to be in state '{require_state}' "
                f"but it is in state '{state}'"
            )


def _under(user: str | None) -> str:
    return "" if user is None else f' under user "{user}"'
