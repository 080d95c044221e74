"""A person at a machine: shells and consoles in the terminal of the script."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import threading

from machinist._commands import Commands
from machinist._connection import encode_data
from machinist._errors import MachineError


class Interact(Commands):
    """For use while a test is being written."""

    def shell_interact(self, address: str | None = None) -> None:
        """Join this terminal to a root shell in the machine, until that shell ends.

        With ``address``, join that instead: any address of ``socat``, such as
        ``TCP-LISTEN:4444``.
        """
        # Few scripts need it.
        from machinist import _terminal

        if address is None:
            status = _terminal.join_shell(self._connection.path, self.name)
            self.log(f"the shell has ended (exit code {status})")
            return
        socat = shutil.which("socat")
        if socat is None:
            raise MachineError(
                "shell_interact with an address needs socat, which is not on the search path: "
                "install it (on Debian and in Nix: the package socat)"
            )
        ours, theirs = socket.socketpair()
        with ours, theirs:
            relay = threading.Thread(
                target=_terminal.relay_shell,
                args=(self._connection.path, self.name, ours),
                daemon=True,
            )
            relay.start()
            command = [socat, address, f"FD:{theirs.fileno()}"]
            try:
                subprocess.run(command, pass_fds=[theirs.fileno()], check=False)
            except KeyboardInterrupt:
                # Ends the shell, not the script.
                pass

    def console_interact(self) -> None:
        """Type into the machine's serial console, until Ctrl-D or Ctrl-C.

        What the console prints is in the log.
        """
        self.log("Terminal is ready (there is no prompt):")
        try:
            while line := sys.stdin.buffer.readline():
                self._ask("console_send", data=encode_data(line))
        except KeyboardInterrupt:
            pass
        self.log("Closing connection to the console")
