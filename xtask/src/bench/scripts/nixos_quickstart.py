start_all()
server.wait_for_unit("nginx.service")
server.wait_for_open_port(80)
client.wait_for_unit("multi-user.target")
assert "Welcome to nginx" in client.succeed("curl -fsS http://server/")

with subtest("an application comes up"):
    app = "python3 -m http.server 8080 --directory /var/www/html"
    server.succeed(f"systemd-run --unit=app --property=Restart=always {app}")
    server.wait_for_open_port(8080)
    client.succeed("curl -fsS http://server:8080/")

with subtest("it comes back when it dies"):
    server.succeed("systemctl kill --signal=KILL app")
    client.wait_until_succeeds("curl -fsS http://server:8080/")
    server.wait_until_succeeds("systemctl show -P NRestarts app | grep -qx 1")

with subtest("work in the background"):
    work = "tar --create --sort=name /usr/share/zoneinfo | sha256sum > /tmp/sum && mv /tmp/sum /var/www/html/"
    server.succeed(f"systemd-run --unit=work sh -c '{work}'")
    server.wait_for_file("/var/www/html/sum")
    assert len(client.succeed("curl -fsS http://server/sum").split()[0]) == 64

with subtest("the web server stops and starts"):
    server.succeed("systemctl stop --no-block nginx")
    server.wait_for_closed_port(80)
    client.fail("curl -fsS http://server/")
    server.succeed("systemctl start --no-block nginx")
    # Its port alone says little: `nginx -t`, which is run first, listens for a moment, too.
    server.wait_for_unit("nginx.service")
    server.wait_for_open_port(80)
    client.succeed("curl -fsS http://server/sum")

with subtest("the other way round"):
    client.succeed("systemd-run --unit=app python3 -m http.server 8000 --directory /etc")
    client.wait_for_open_port(8000)
    server.succeed("curl -fsS http://client:8000/hostname | grep client")
    client.succeed("systemctl stop --no-block app")
    client.wait_for_closed_port(8000)
