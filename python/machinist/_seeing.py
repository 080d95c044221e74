"""What a machine shows, and typing into it. How a screen is read is imported where it is needed."""

from __future__ import annotations

import os
import re
import shlex
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path

from machinist._arguments import path, string
from machinist._display import Display
from machinist._handle import Timeout
from machinist._keys import key_of
from machinist._qmp import Qmp
from machinist._retry import FIRST_PAUSE, INFINITE, LONGEST_PAUSE, repeat, seconds

_WINDOW = re.compile(r'.*0x[0-9a-f]* "([^"]*)"')
_X_SOCKET = "/tmp/.X11-unix/X0"
_SESSION_REACHED = "Reached target Current graphical"


class Seeing(Qmp, Display):
    """Keyboard, text consoles, screen and windows."""

    # The keyboard

    def send_key(
        self, key: str, delay: float | timedelta | None = 0.01, log: bool | None = True
    ) -> None:
        """Press keys, such as ``ctrl-alt-delete``, or the key of a character.

        The names are those of QEMU's ``sendkey``. ``delay``: how long to wait afterwards, in
        seconds.
        """
        self._only_vms("send_key")
        wanted = key_of(string("key", key))
        with self.nested(f"sending key {wanted!r}") if log else nullcontext():
            answer = self.send_monitor_command(f"sendkey {wanted}")
            if answer.strip():
                self.log(f"sendkey {wanted}: {answer.strip()}")
            if delay is not None:
                time.sleep(seconds(delay) or 0)

    def send_chars(self, chars: str, delay: float | timedelta | None = 0.01) -> None:
        """Type a text, one key after the other; ``\\n`` is the Enter key."""
        self._only_vms("send_chars")
        with self.nested(f"sending keys {chars!r}"):
            for char in chars:
                self.send_key(char, delay, log=False)

    # Text consoles

    def get_tty_text(self, tty: str) -> str:
        """The text that is on a virtual console, such as ``"1"``."""
        self._only_vms("get_tty_text")
        return self._tty_text(tty, None)

    def _tty_text(self, tty: str, timeout: Timeout) -> str:
        number = shlex.quote(str(tty))
        width = f"$(stty -F /dev/tty{number} size | cut -d ' ' -f 2)"
        return self.execute(f'fold -w "{width}" /dev/vcs{number}', timeout=_look(timeout))[1]

    def wait_until_tty_matches(
        self, tty: str, regexp: str, timeout: Timeout = 900, attempt_timeout: Timeout = None
    ) -> None:
        """Wait until the text on a virtual console has ``regexp``."""
        self._only_vms("wait_until_tty_matches")
        pattern = re.compile(regexp)

        def matches(last: bool) -> bool:
            text = self._tty_text(tty, attempt_timeout)
            if last:
                self.log(
                    f"Last chance to match /{regexp}/ on TTY{tty}, "
                    f"which currently contains: {text}"
                )
            return pattern.search(text) is not None

        with self.nested(f"waiting for {regexp} to appear on tty {tty}"):
            _poll(matches, timeout)

    def dump_tty_contents(self, tty: str) -> None:
        """Write the text on a virtual console into the log."""
        self._only_vms("dump_tty_contents")
        self.log(f"TTY{tty}:\n{self.get_tty_text(tty)}")

    # The screen

    def screenshot(self, filename: str | os.PathLike[str]) -> None:
        """Take a picture of the screen, as PNG.

        A name without a directory goes to the output directory; one without a dot gets ``.png``.
        """
        name = path("filename", filename)
        if "." not in os.path.basename(name):
            name += ".png"
        target = Path(name) if "/" in name else self.out_dir / name
        with self.nested(f"making screenshot {target}", {"image": target.name}):
            target.write_bytes(self._picture())

    def get_screen_text(self) -> str:
        """The text on the screen, as far as it can be read (by tesseract)."""
        from machinist import _ocr

        return _ocr.read_text(self._picture())

    def get_screen_text_variants(self) -> list[str]:
        """The text on the screen, read in several ways. One of them, in no certain order, may be
        better than the others."""
        from machinist import _ocr

        return _ocr.read_variants(self._picture())

    def wait_for_text(
        self, regex: str, timeout: Timeout = 900, attempt_timeout: Timeout = None
    ) -> None:
        """Wait until one of the readings of the screen has ``regex``.

        A look at the screen does not block: ``attempt_timeout``, its limit, is not needed.
        """
        from machinist import _ocr

        pattern = re.compile(regex)
        seen = b""
        texts: list[str] = []

        def appears(last: bool) -> bool:
            nonlocal seen
            picture = self._picture()
            # Reading takes a second of a processor: the same picture has the same text.
            if picture != seen:
                seen = picture
                texts.clear()
                with _ocr.readings(picture) as readings:
                    for text in readings:
                        texts.append(text)
                        if pattern.search(text):
                            return True
            if last:
                self.log(f"Last OCR attempt failed. Text was: {texts}")
            return False

        with self.nested(f"waiting for {regex} to appear on screen"):
            _poll(appears, timeout)

    def _picture(self) -> bytes:
        with tempfile.TemporaryDirectory(prefix="machinist-screen-") as directory:
            picture = Path(directory) / "screen.png"
            self._ask("screenshot", host=str(picture))
            return picture.read_bytes()

    # Windows

    def wait_for_x(self, timeout: Timeout = 900, attempt_timeout: Timeout = None) -> None:
        """Wait until the X server can be connected to, and on NixOS until its session is there."""
        reached = (
            f"[ -e {_X_SOCKET} ] && {{ [ ! -e /etc/NIXOS ] || "
            f"journalctl -b SYSLOG_IDENTIFIER=systemd | grep '{_SESSION_REACHED}'; }}"
        )
        with self.nested("waiting for the X11 server"):
            limit = _look(attempt_timeout)
            _poll(lambda _last: self.execute(reached, timeout=limit)[0] == 0, timeout)

    def get_window_names(self) -> list[str]:
        """The names of all windows on the display."""
        return self._window_names(None)

    def _window_names(self, timeout: Timeout) -> list[str]:
        command = "DISPLAY=${DISPLAY:-:0} xwininfo -root -tree"
        # A look that has a limit of its own may take too long, and the next one not.
        tree = (
            self.succeed(command) if timeout is None else self.execute(command, timeout=timeout)[1]
        )
        matches = (_WINDOW.match(line) for line in tree.splitlines())
        return [match[1] for match in matches if match]

    def wait_for_window(
        self, regexp: str, timeout: Timeout = 900, attempt_timeout: Timeout = None
    ) -> None:
        """Wait until there is a window whose name has ``regexp``."""
        pattern = re.compile(regexp)

        def is_there(last: bool) -> bool:
            names = self._window_names(attempt_timeout)
            if last:
                self.log(
                    f"Last chance to match {regexp} on the window list, "
                    f"which currently contains: {', '.join(names)}"
                )
            return any(pattern.search(name) for name in names)

        with self.nested("waiting for a window to appear"):
            _poll(is_there, timeout)


def _look(timeout: Timeout) -> Timeout:
    """The limit of one look: as long as a command may take, unless there is another."""
    return 900 if timeout is None else timeout


def _poll(fn: Callable[[bool], bool], timeout: Timeout) -> None:
    repeat(fn, INFINITE if timeout is None else timeout, FIRST_PAUSE, LONGEST_PAUSE)
