start_all()
server.wait_for_unit("nginx.service")
server.wait_for_open_port(80)
client.wait_for_unit("multi-user.target")
assert "Welcome to nginx" in client.succeed("curl -fsS http://server/")

with subtest("a service that stops and comes back"):
    server.succeed("systemctl stop nginx")
    server.wait_for_closed_port(80)
    client.fail("curl -fsS http://server/")
    server.succeed("systemctl start --no-block nginx")
    client.wait_until_succeeds("curl -fsS http://server/")

with subtest("a job that takes a moment"):
    job = "sleep 0.3; date > /var/www/html/date; exec sleep 1000"
    server.succeed(f"systemd-run --unit=job sh -c '{job}'")
    server.wait_for_unit("job.service")
    server.wait_for_file("/var/www/html/date")
    client.succeed("curl -fsS http://server/date | grep :")

with subtest("the other way round"):
    client.succeed("systemd-run --unit=listens sh -c 'sleep 0.3; exec nc -lk 8000'")
    client.wait_for_open_port(8000)
    server.succeed("nc -z client 8000")
    client.succeed("systemctl stop listens")
    client.wait_for_closed_port(8000)
