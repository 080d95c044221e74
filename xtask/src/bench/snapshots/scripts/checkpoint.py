import time

for machine in machines:
    machine.wait_until_ready()
# They work: each writes to its memory and to its disk, and a connection is busy.
for machine in machines:
    machine.succeed("for n in 1 2 3 4 5 6; do head -c 4M /dev/urandom > /run/random-$n; done")
    machine.succeed("systemd-run --unit=work sh -c 'while :; do head -c 1M /dev/urandom > /var/tmp/work; done'")

still = []
restored = []
for _ in range(5):
    checkpoint = lab.checkpoint()
    still.append(checkpoint.still)
    begun = time.perf_counter()
    lab.restore(checkpoint)
    restored.append(time.perf_counter() - begun)
    for machine in machines:
        machine.succeed("systemctl is-active work")
    checkpoint.drop()
print("still", still, "restored", restored)
report({"still": max(still), "restored": max(restored)})
