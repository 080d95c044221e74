"""Small tests that spoil what they find. Each finds it whole, also after one that has failed."""

import pytest

from machinist import MachineError, RequestedAssertionFailed


@pytest.fixture(scope="module")
def lab_setup(lab_session):
    lab_session.machine("vm-1").succeed("echo fresh > /tmp/state")
    lab_session.machine("box").succeed("echo fresh > /srv/state")


def check(lab):
    assert lab.machine("vm-1").succeed("cat /tmp/state") == "fresh\n"
    assert lab.machine("box").succeed("cat /srv/state") == "fresh\n"


def spoil(lab):
    lab.machine("vm-1").succeed("echo spoiled > /tmp/state; rm -f /etc/passwd")
    lab.machine("box").succeed("rm /srv/state /etc/passwd")


@pytest.mark.parametrize("number", range(2))
def test_nothing_is_left_of_others(lab, number):
    check(lab)
    spoil(lab)


@pytest.mark.xfail(raises=RequestedAssertionFailed, strict=True)
def test_that_fails(lab):
    check(lab)
    spoil(lab)
    lab.machine("vm-1").succeed("false")


def test_after_one_that_failed(lab):
    check(lab)
    lab.machine("vm-1").crash()


@pytest.fixture
def broken(lab):
    spoil(lab)
    raise KeyError("mine")


@pytest.mark.xfail(raises=KeyError, strict=True)
def test_whose_fixture_fails(broken):
    raise AssertionError("it is not run")


def test_after_one_whose_fixture_failed(lab):
    check(lab)
    lab.machine("vm-1").shutdown()
    lab.machine("box").crash()


@pytest.mark.xfail(raises=MachineError, strict=True)
def test_whose_command_is_overtaken(lab):
    check(lab)
    running = lab.machine("vm-1").spawn("sleep 600")
    checkpoint = lab.checkpoints[-1]
    checkpoint.restore()
    running.wait(timeout=200)


def test_that_does_without_the_lab():
    assert True


def test_at_last(lab):
    check(lab)


def test_the_only_machine_is_none_here(request):
    with pytest.raises(pytest.fail.Exception, match="box, vm-1"):
        request.getfixturevalue("machine")
