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

with subtest("commands"):
    for _ in range(200):
        client.succeed("true")
        server.succeed("echo $((6 * 7)) | grep 42")

with subtest("files"):
    server.succeed("head -c 10000000 /dev/urandom > /var/www/html/file")
    client.succeed("curl -fsS http://server/file > /tmp/file")
    client.copy_from_machine("/tmp/file")
