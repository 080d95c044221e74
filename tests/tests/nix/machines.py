"""What Nix's own build hook makes of texts of machines.

Standard input: JSON, a list of texts. Standard output: JSON, a list of what became of each: `null` where
the hook gave up, else its machines, as it tells of them when it finds none for a build.
"""

import json
import re
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

# So many words tell everything, also which machines are considered.
VERBOSITY = "6"
DERIVATION = "/nix/store/00000000000000000000000000000000-none.drv"


def number(value: int) -> bytes:
    return struct.pack("<Q", value)


def string(text: bytes) -> bytes:
    return number(len(text)) + text + bytes(-len(text) % 8)


def request(builders: bytes) -> bytes:
    settings = {b"builders": builders, b"system": b"x86_64-linux"}
    told = b"".join(number(1) + string(name) + string(value) for name, value in settings.items())
    build = string(b"try") + number(0) + string(b"no-system") + string(DERIVATION.encode()) + number(0)
    return told + number(0) + build


def machines(text: str) -> list[str] | None:
    hook = subprocess.run(
        ["nix", "__build-remote", VERBOSITY],
        input=request(text.encode()),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd="/",
        check=False,
    )
    uris, described, declined = [], [], False
    for line in hook.stderr.decode(errors="replace").splitlines():
        if line.startswith("# decline"):
            declined = True
        if not line.startswith("@nix "):
            continue
        message = re.sub(r"\x1b\[[0-9;]*m", "", json.loads(line[5:]).get("msg", ""))
        if found := re.match(r"considering building on remote machine '(.*)'$", message, re.DOTALL):
            uris.append(found[1])
        if message.startswith("Failed to find a machine"):
            described = message.split("mandatoryFeatures)\n")[1].splitlines()
    if not declined or len(uris) != len(described):
        return None
    return [f"{uri} {it}" for uri, it in zip(uris, described, strict=True)]


with ThreadPoolExecutor(4) as pool:
    json.dump(list(pool.map(machines, json.load(sys.stdin))), sys.stdout)
