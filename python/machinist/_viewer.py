"""The window in which a person at an interactive session sees a container's display."""

from __future__ import annotations

import os
import subprocess
import threading
from typing import Any

from machinist._display import Display
from machinist._seeing import Seeing

_DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY")


def show(machine: Seeing) -> threading.Thread | None:
    """Opens the viewer that the driver's configuration names, once the machine's X server is there.

    Returns the thread that does so; ``None`` where there is nothing to see, or nowhere.
    """
    viewer = _viewer(machine)
    if viewer is None or not any(name in os.environ for name in _DISPLAYS):
        return None
    thread = threading.Thread(
        target=_run, args=(machine, viewer), name=f"machinist-viewer-{machine.name}", daemon=True
    )
    thread.start()
    return thread


def _viewer(machine: Display) -> str | None:
    told: dict[str, Any] = machine.display_configuration
    viewer = (told.get("display_viewers") or {}).get("vnc") or {}
    executable = viewer.get("executable") if told.get("display_targets") else None
    return None if executable is None else str(executable)


def _run(machine: Seeing, viewer: str) -> None:
    try:
        machine.wait_for_x(timeout=None)
        command = [viewer, str(machine.vnc_socket())]
        # Ctrl-C at the prompt is not for the viewer.
        with subprocess.Popen(command, start_new_session=True) as process:
            machine.log(f"VNC viewer running (pid {process.pid})")
            process.wait()
        machine.log(f"VNC viewer exited (status {process.returncode})")
        machine.end_vnc()
    except Exception as error:
        machine.log(f"failed to open the VNC viewer: {error}")
