import json

v.wait_until_ready()
v.succeed("iperf3 --server --daemon")
v.wait_for_open_port(5201)
said = json.loads(c.succeed("iperf3 --client v --time 5 --json"))
report({"bits": said["end"]["sum_received"]["bits_per_second"]})
