from concurrent.futures import ThreadPoolExecutor


def one(machine):
    machine.wait_until_ready()
    machine.succeed("true")
    machine.shutdown()


start_all()
with ThreadPoolExecutor(len(machines)) as pool:
    list(pool.map(one, machines))
