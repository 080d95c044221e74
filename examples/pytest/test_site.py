"""Tests that spoil the machine that they are given. Each of them finds it as `lab_setup` left it."""

import pytest

SITE = "/var/www/html/page"


@pytest.fixture(scope="module")
def lab_setup(lab_session):
    """Once, before the first test: what takes long belongs here."""
    web = lab_session.machine("web")
    web.succeed(f"echo welcome > {SITE}")
    web.wait_until_succeeds("curl -fsS http://localhost/page | grep -q welcome")


def test_the_site_is_there(machine):
    assert machine.succeed("curl -fsS http://localhost/page") == "welcome\n"


def test_a_site_that_is_gone_is_not_found(machine):
    machine.succeed(f"rm {SITE}")
    machine.fail("curl -fsS http://localhost/page")


@pytest.mark.parametrize("word", ["one", "two", "three"])
def test_the_site_can_be_changed(machine, word):
    assert machine.succeed(f"cat {SITE}") == "welcome\n"
    machine.succeed(f"echo {word} > {SITE}")
    assert machine.succeed("curl -fsS http://localhost/page") == f"{word}\n"


def test_the_service_comes_back_when_it_is_killed(machine):
    machine.succeed("pkill -KILL nginx; systemctl reset-failed nginx; systemctl restart nginx")
    machine.wait_for_unit("nginx")
    assert machine.succeed("curl -fsS http://localhost/page") == "welcome\n"


def test_a_machine_that_has_lost_its_system_is_whole_again_afterwards(machine):
    machine.succeed("rm -rf /etc /usr/share; kill -9 $(cat /run/nginx.pid)")


def test_so_it_is(machine):
    assert machine.succeed("curl -fsS http://localhost/page; test -e /etc/passwd") == "welcome\n"
