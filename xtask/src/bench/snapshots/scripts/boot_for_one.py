"""What a test without a checkpoint does: boots the lab, and uses its machine."""

import json
import subprocess
import sys
import time

import machinist

program = sys.argv[1]
begun = time.perf_counter()
up = subprocess.run([program, "up"], check=True, stdout=subprocess.PIPE, text=True)
session = up.stdout.strip()
try:
    ps = subprocess.run([program, "ps", "--format", "json"], check=True, stdout=subprocess.PIPE)
    (socket,) = [it["socket"] for it in json.loads(ps.stdout) if it["session"] == session]
    with machinist.connect(socket) as lab:
        machine = lab.machine("m")
        machine.wait_until_ready()
        machine.succeed("echo untouched > /run/it")
        assert machine.succeed("cat /run/it") == "untouched\n"
        machine.succeed("echo 1 > /run/it")
    took = time.perf_counter() - begun
finally:
    subprocess.run([program, "down", session], check=True, stdout=subprocess.DEVNULL)
print(took)
