"""Reading a screen: tesseract, on the picture as it is and on two versions made easier to read."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager

from machinist._errors import MachineError

_TESSERACT = ("--psm", "11", "-c", "debug_file=/dev/null")
"""Text may be anywhere: no columns, no order (11 is "sparse text")."""

_MAGICK = (
    *("-colorspace", "Gray", "-density", "72"),
    # The size that tesseract is trained for; text of consoles is far smaller.
    *("-filter", "Catrom", "-resample", "300"),
    *("-contrast", "-normalize", "-despeckle", "-sharpen", "1", "-posterize", "3"),
)
_INK = ("-gamma", "100", "-blur", "1x65535")
"""All that is not black becomes white, so that letters of any colour are seen."""


def read_text(png: bytes) -> str:
    """The text on a picture."""
    with readings(png, processed=False) as texts:
        return next(texts)


def read_variants(png: bytes) -> list[str]:
    """The text on a picture, and on its two easier versions."""
    with readings(png) as texts:
        return list(texts)


def readings(png: bytes, processed: bool = True) -> AbstractContextManager[Iterator[str]]:
    """The readings of a picture as they become ready; what is not waited for is given up."""
    return _Readings(png, processed)


def arguments_of_magick(negate: bool) -> list[str]:
    """What ImageMagick is told to make a picture easier to read, black on white or the reverse."""
    return [*_MAGICK, *(["-negate"] if negate else []), *_INK]


class _Readings(AbstractContextManager[Iterator[str]]):
    def __init__(self, png: bytes, processed: bool) -> None:
        tesseract = _program(("tesseract",), "tesseract-ocr", "tesseract")
        magick = _program(("magick", "convert"), "imagemagick", "imagemagick") if processed else ""
        self._directory = tempfile.TemporaryDirectory(prefix="machinist-ocr-")
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._given_up = False
        picture = os.path.join(self._directory.name, "screen.png")
        with open(picture, "wb") as file:
            file.write(png)

        def plain() -> str:
            return self._read(tesseract, picture)

        def easier(name: str, negate: bool) -> str:
            better = os.path.join(self._directory.name, name)
            self._run([magick, picture, *arguments_of_magick(negate), better])
            return self._read(tesseract, better)

        jobs: list[Callable[[], str]] = [plain]
        if processed:
            jobs.append(lambda: easier("positive.png", False))
            jobs.append(lambda: easier("negative.png", True))
        self._pool = ThreadPoolExecutor(len(jobs), "machinist-ocr")
        self._jobs = [self._pool.submit(job) for job in jobs]

    def __enter__(self) -> Iterator[str]:
        return (job.result() for job in self._first_ready())

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._given_up = True
            for process in self._running:
                process.kill()
        self._pool.shutdown()
        self._directory.cleanup()

    def _first_ready(self) -> Iterator[Future[str]]:
        return as_completed(self._jobs)

    def _read(self, tesseract: str, picture: str) -> str:
        return self._run([tesseract, picture, "-", *_TESSERACT]).decode(errors="replace")

    def _run(self, command: Sequence[str]) -> bytes:
        # Three run side by side: one thread for each is quicker than four that fight for a core.
        environment = {**os.environ, "OMP_THREAD_LIMIT": "1"}
        with self._lock:
            if self._given_up:
                raise MachineError("the picture is not wanted any more")
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
            )
            self._running.add(process)
        stdout, stderr = process.communicate()
        with self._lock:
            self._running.discard(process)
        if process.returncode != 0 and not self._given_up:
            raise MachineError(
                f"{os.path.basename(command[0])} failed on the screen's picture (exit code "
                f"{process.returncode}): {stderr.decode(errors='replace').strip()}"
            )
        return stdout


def _program(names: Sequence[str], debian: str, nix: str) -> str:
    for name in names:
        found = shutil.which(name)
        if found is not None:
            return found
    raise MachineError(
        f"reading a screen needs {names[0]}, which is not on the search path: install it (on "
        f"Debian: apt-get install {debian}; in a Nix test: enableOCR = true, or the package {nix})"
    )
