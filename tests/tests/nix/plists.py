"""launchd's jobs, as the programs write them and as the module for Macs declares them: property lists
of known keys with values of the right types, and the same in both.

Standard input: the module's jobs, as JSON.
"""

import json
import plistlib
import subprocess
import sys

# Of launchd.plist(5), what we use. A list has one type of items, as has a dictionary with names of its own.
ANY = object()
SOCKET = {"SockPathName": str, "SockPathMode": int, "SockPathGroup": int}
JOB = {
    "AbandonProcessGroup": bool,
    "EnvironmentVariables": {ANY: str},
    "ExitTimeOut": int,
    "Label": str,
    "ProgramArguments": [str],
    "Sockets": {ANY: SOCKET},
    "StandardErrorPath": str,
    "inetdCompatibility": {"Wait": bool},
}


def check(value, shape, where):
    if isinstance(shape, list):
        assert isinstance(value, list) and value, where
        for item in value:
            check(item, shape[0], where)
    elif isinstance(shape, dict):
        assert isinstance(value, dict) and value, where
        for name, item in value.items():
            assert name in shape or ANY in shape, f"{where}: {name} is no key of launchd's"
            check(item, shape.get(name, shape.get(ANY)), f"{where}.{name}")
    else:
        assert type(value) is shape, f"{where}: {value!r}"


def written(*words):
    said = subprocess.run(["machinist", *words], stdout=subprocess.PIPE, check=True).stdout
    start, end = said.index(b"<?xml"), said.index(b"</plist>")
    return plistlib.loads(said[start : end + len(b"</plist>")])


def comparable(job):
    job = dict(job)
    # Where programs are differs, and Nix's own path is known to the module alone.
    job["ProgramArguments"] = job["ProgramArguments"][1:]
    job.pop("EnvironmentVariables", None)
    return json.loads(json.dumps(job).replace('"/var/run/', '"/run/'))


declared = {name: it["serviceConfig"] for name, it in json.load(sys.stdin).items()}
for name, words in {
    "machinist-builder-linux": ["builder", "unit", "linux", "--init", "launchd"],
    "machinist-external-linux": ["external-builder", "unit", "linux", "--init", "launchd", "--group", "350"],
}.items():
    job = written(*words)
    for found in (job, declared[name]):
        check(found, JOB, name)
        assert found["Label"] == name.replace("-", "."), found["Label"]
    assert comparable(job) == comparable(declared[name]), f"{job} {declared[name]}"
    print(f"{name}: {len(job)} keys")
