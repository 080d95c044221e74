import statistics
import subprocess
import sys
import time

command = ["nsenter", "--target", sys.argv[1], "--all"]
command += ["bash", "-c", "source /etc/profile; true"]
times = []
for _ in range(100):
    begun = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.PIPE)
    times.append(time.perf_counter() - begun)
print(statistics.median(times))
