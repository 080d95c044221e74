import pytest


@pytest.fixture(scope="module")
def lab_setup(lab_session):
    lab_session.machine("m").succeed("echo untouched > /run/it")


@pytest.mark.parametrize("number", range(30))
def test_small(machine, number):
    assert machine.succeed("cat /run/it") == "untouched\n"
    machine.succeed(f"echo {number} > /run/it")
