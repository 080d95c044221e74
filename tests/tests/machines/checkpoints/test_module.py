"""Small tests that spoil what they find. Each finds it whole."""

import pytest


@pytest.fixture(scope="module")
def lab_setup(lab_session):
    lab_session.machine("a").succeed("echo fresh > /tmp/state")


@pytest.mark.parametrize("number", range(10))
def test_nothing_is_left_of_others(lab, number):
    a = lab.machine("a")
    assert a.succeed("cat /tmp/state") == "fresh\n"
    a.succeed(f"echo {number} > /tmp/state; rm -f /etc/passwd")


def test_the_only_machine_is_none_here(request):
    with pytest.raises(pytest.fail.Exception, match="a, b"):
        request.getfixturevalue("machine")
