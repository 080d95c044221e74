"""A Python prompt in a script that stands still, at a Unix socket.

Both ways it is lines of text, as of a terminal that edits lines by itself; a byte 3 is Ctrl-C:
``machinist attach SESSION --python`` is one end of it. Clients may come one after the other, or several at once: each
has a thread, so that one whose command takes long keeps nobody out, and nothing keeps the script
from going on.
"""

from __future__ import annotations

import code
import contextlib
import io
import os
import queue
import socket
import sys
import threading
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from machinist._connection import Connection

_CHUNK = 1 << 16
_BANNER = (
    "Python {version} in the script, which stands still at {place}.\n"
    "Its names are known here. Ctrl-D leaves this prompt; the test stays paused.\n"
)
_INTERRUPT = b"\x03"


class Prompt:
    """Serves prompts in ``frame`` at the socket ``path``, which only its owner may use."""

    def __init__(self, path: str, frame: FrameType, connection: Connection | None = None) -> None:
        self._path = path
        self._frame = frame
        self._connection = connection
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
                _Console(client, self._frame, self._names, self._connection).interact(banner, "")
            finally:
                for output in self._output:
                    del output.by_thread[threading.get_ident()]
                self._clients.discard(client)
                stream.close()
                # Its listening thread still reads, which closing alone does not end.
                client.shutdown(socket.SHUT_RDWR)


class _Console(code.InteractiveConsole):
    """A prompt at a socket, with the names of a frame. It is served by one thread."""

    def __init__(
        self,
        client: socket.socket,
        frame: FrameType,
        names: dict[str, Any],
        connection: Connection | None,
    ) -> None:
        super().__init__(names)
        self._client = client
        self._globals = frame.f_globals
        self._names = names
        self._connection = connection
        self._thread = threading.get_ident()
        self._running = False
        self._typed: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        name = "machinist-prompt-keys"
        threading.Thread(target=self._listen, name=name, daemon=True).start()

    def _listen(self) -> None:
        """Takes what is typed, also while something runs: Ctrl-C is for that."""
        rest = b""
        while True:
            try:
                chunk = self._client.recv(_CHUNK)
            except OSError:
                chunk = b""
            if not chunk:
                self._typed.put(None)
                return
            _, interrupted, after = chunk.rpartition(_INTERRUPT)
            if interrupted:
                # What was typed before it is not wanted any more.
                rest, chunk = b"", after
                if self._running and self._connection is not None:
                    self._connection.interrupt(self._thread)
                else:
                    self._typed.put(_INTERRUPT.decode())
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._typed.put(line.decode(errors="replace").rstrip("\r"))

    def raw_input(self, prompt: str = "") -> str:
        self._client.sendall(prompt.encode())
        line = self._typed.get()
        if line is None:
            raise EOFError
        if line == _INTERRUPT.decode():
            raise KeyboardInterrupt
        return line

    def runcode(self, code: Any) -> None:
        self._running = True
        try:
            exec(code, self._globals, self._names)
        except SystemExit:
            # Leaves the prompt, not the script.
            raise _Left from None
        except BaseException:
            self.showtraceback()
        finally:
            self._running = False
            if self._connection is not None:
                # It may have ended by itself just then.
                self._connection.interrupt(self._thread, on=False)

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
