start_all()
server.wait_for_unit("nginx.service")
server.wait_for_open_port(80)
client.wait_for_unit("multi-user.target")
assert "Welcome to nginx" in client.succeed("curl -fsS http://server/")

with subtest("a service that stops and comes back"):
    server.succeed("systemctl stop --no-block nginx")
    server.wait_for_closed_port(80)
    client.fail("curl -fsS http://server/")
    server.succeed("systemctl start --no-block nginx")
    server.wait_for_open_port(80)
    server.wait_for_unit("nginx.service")
    client.succeed("curl -fsS http://server/")

with subtest("work in the background"):
    work = "tar --create --sort=name /usr/share | sha256sum > /tmp/sum && mv /tmp/sum /var/www/html/"
    server.succeed(f"systemd-run --unit=work sh -c '{work}'")
    server.wait_for_file("/var/www/html/sum")
    server.wait_until_fails("systemctl is-active work")
    assert len(client.succeed("curl -fsS http://server/sum").split()[0]) == 64

with subtest("the other way round"):
    client.succeed("systemd-run --no-block --unit=listens sh -c 'exec nc -lk 8000 >/tmp/heard'")
    client.wait_for_open_port(8000)
    server.succeed("echo hello | nc -N client 8000")
    client.wait_until_succeeds("grep hello /tmp/heard")
    client.succeed("systemctl stop --no-block listens")
    client.wait_for_closed_port(8000)
    server.wait_until_fails("nc -z client 8000")
