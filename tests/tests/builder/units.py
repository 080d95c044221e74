"""Units, machines and settings of the modules, as NixOS makes files of them.

Standard input: what `nix/tests/builders.nix` says of a host. The units go to systemd's directory, the rest
to `/etc/nix`.
"""

import json
import os
import sys
from pathlib import Path

UNITS = Path("/run/systemd/system")
# The names that NixOS' options have for what a unit calls otherwise.
NAMES = {
    "after": "After",
    "before": "Before",
    "conflicts": "Conflicts",
    "description": "Description",
    "requires": "Requires",
}
# What no file has: they say how NixOS deals with the unit.
NOT_IN_FILES = {"restartIfChanged"}


def text(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def lines(settings):
    return [f"{name}={text(value)}" for name, value in settings.items()]


def unit(name, kind, it):
    it = {key: value for key, value in it.items() if key not in NOT_IN_FILES}
    head = lines(it.pop("unitConfig", {}))
    for option in NAMES.keys() & it.keys():
        value = it.pop(option)
        head.append(f"{NAMES[option]}={value if isinstance(value, str) else ' '.join(value)}")
    body = lines(it.pop(f"{kind}Config", {}))
    body += [f"ListenStream={path}" for path in it.pop("listenStreams", [])]
    if kind == "service":
        # As there, where a service finds nothing else; packages of Nix are Debian's here.
        it.pop("path", None)
        body.append("Environment=PATH=/usr/bin:/usr/sbin")
    if "script" in it:
        script = Path(f"/run/{name}-start")
        script.write_text(f"#!/bin/sh\nset -e\n{it.pop('script')}\n")
        script.chmod(0o755)
        body.append(f"ExecStart={script}")
    wanted = it.pop("wantedBy", [])
    assert not it, f"{name}: {it}"
    file = UNITS / f"{name}.{kind}"
    file.write_text("\n".join(["[Unit]", *head, f"[{kind.capitalize()}]", *body, ""]))
    for target in wanted:
        directory = UNITS / f"{target}.wants"
        directory.mkdir(parents=True, exist_ok=True)
        os.symlink(file, directory / file.name)


host = json.load(sys.stdin)
UNITS.mkdir(parents=True, exist_ok=True)
for kind in ("service", "socket"):
    for name, it in host["systemd"][f"{kind}s"].items():
        unit(name, kind, it)
with open("/etc/nix/machines", "w", encoding="utf-8") as machines:
    for it in host["machines"]:
        words = [
            f"{it['protocol']}://{it['hostName']}",
            ",".join(it["systems"]),
            "-",
            str(it["maxJobs"]),
            str(it["speedFactor"]),
            ",".join(it["supportedFeatures"]) or "-",
            ",".join(it["mandatoryFeatures"]) or "-",
            "-",
        ]
        print(*words, file=machines)
with open("/etc/nix/nix.conf", "w", encoding="utf-8") as conf:
    print("build-users-group = nixbld", file=conf)
    print("substituters =", file=conf)
    print("max-jobs = 1", file=conf)
    print("extra-experimental-features = nix-command", file=conf)
    for name, value in host["settings"].items():
        print(name, "=", *(value if isinstance(value, list) else [text(value)]), file=conf)
