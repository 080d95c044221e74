start_all()
with subtest("machines see each other"):
    web.wait_for_unit("nginx.service")
    assert "Welcome to nginx" in client.succeed("curl -fsS http://web/")
