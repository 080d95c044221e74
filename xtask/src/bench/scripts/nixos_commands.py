import json
import time

machine, = machines
machine.wait_for_unit("multi-user.target")
# The rest of its start is nobody's command. Who waits without polling is here before its end.
machine.execute("systemctl is-system-running --wait")
begun = time.perf_counter()
for _ in range(1000):
    machine.succeed("true")
took = time.perf_counter() - begun
with open("result.json", "w") as file:
    json.dump({"seconds": took}, file)
