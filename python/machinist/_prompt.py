"""A Python prompt in a script that stands still, at a Unix socket.

Both ways it is lines of text, as of a terminal that edits lines by itself: ``machinist attach
SESSION --python`` is one end of it. Clients may come one after the other, or several at once: each
has a thread, so that one whose command takes long keeps nobody out, and nothing keeps the script
from going on.
"""

from __future__ import annotations

import code
import contextlib
import io
import os
import socket
import sys
import threading
from types import FrameType
from typing import Any

_CHUNK = 1 << 16
_BANNER = (
    "Python {version} in the script, which stands still at {place}.\n"
    "Its names are known here. Ctrl-D leaves this prompt; the test stays paused.\n"
)
_INTERRUPT = b"\x03"


class Prompt:
    """Serves prompts in ``frame`` at the socket ``path``, which only its owner may use."""

    def __init__(self, path: str, frame: FrameType) -> None:
        self._path = path
        self._frame = frame
        # Taken once: what one client assigns, the next one sees.
        self._names = frame.f_locals
        self._clients: set[socket.socket] = set()
        self._output = _Output(sys.stdout), _Output(sys.stderr)

    def __enter__(self) -> Prompt:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(self._path)
        # Nobody can have come before: it did not listen.
        os.chmod(self._path, 0o600)
        self._listener.listen()
        # What writes and flushes is all that is asked of them.
        sys.stdout, sys.stderr = self._output  # type: ignore[assignment]
        threading.Thread(target=self._accept, name="machinist-prompt", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        for open_socket in [self._listener, *self._clients]:
            # Ends what waits for it, which closing alone does not.
            with contextlib.suppress(OSError):
                open_socket.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        sys.stdout, sys.stderr = (output.others for output in self._output)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            name = "machinist-prompt-client"
            threading.Thread(target=self._serve, args=(client,), name=name, daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        self._clients.add(client)
        place = f"{os.path.basename(self._frame.f_code.co_filename)}:{self._frame.f_lineno}"
        banner = _BANNER.format(version=sys.version.split()[0], place=place)
        stream = client.makefile("w", encoding="utf-8", errors="replace", newline="\n")
        with client, contextlib.suppress(OSError, ValueError):
            for output in self._output:
                output.by_thread[threading.get_ident()] = stream
            try:
                _Console(client, self._frame, self._names).interact(banner, "")
            finally:
                for output in self._output:
                    del output.by_thread[threading.get_ident()]
                self._clients.discard(client)
                stream.close()


class _Console(code.InteractiveConsole):
    """A prompt at a socket, with the names of a frame."""

    def __init__(self, client: socket.socket, frame: FrameType, names: dict[str, Any]) -> None:
        super().__init__(names)
        self._client = client
        self._globals = frame.f_globals
        self._names = names
        self._input = b""

    def raw_input(self, prompt: str = "") -> str:
        self._client.sendall(prompt.encode())
        while (end := self._input.find(b"\n")) < 0:
            chunk = self._client.recv(_CHUNK)
            if not chunk:
                raise EOFError
            if _INTERRUPT in chunk:
                self._input = b""
                raise KeyboardInterrupt
            self._input += chunk
        line, self._input = self._input[:end], self._input[end + 1 :]
        return line.decode(errors="replace").rstrip("\r")

    def runcode(self, code: Any) -> None:
        try:
            exec(code, self._globals, self._names)
        except SystemExit:
            # Leaves the prompt, not the script.
            raise _Left from None
        except BaseException:
            self.showtraceback()

    def write(self, data: str) -> None:
        self._client.sendall(data.encode())

    def interact(self, banner: str | None = None, exitmsg: str | None = None) -> None:
        with contextlib.suppress(_Left):
            super().interact(banner, exitmsg)


class _Left(Exception):
    """A client called ``exit``."""


class _Output(io.TextIOBase):
    """What a client's thread prints goes to the client; all else goes where it went before."""

    def __init__(self, others: Any) -> None:
        super().__init__()
        self.others = others
        self.by_thread: dict[int, Any] = {}

    def write(self, text: str) -> int:
        stream = self.by_thread.get(threading.get_ident())
        if stream is None:
            return int(self.others.write(text))
        stream.write(text)
        stream.flush()
        return len(text)

    def flush(self) -> None:
        self.by_thread.get(threading.get_ident(), self.others).flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.others, name)
