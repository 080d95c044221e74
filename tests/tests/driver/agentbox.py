import subprocess
from pathlib import Path

here = Path.cwd()

with subtest("a server of git comes first"):
    hub.wait_for_unit("ssh.service")
    hub.succeed(
        "useradd --create-home --shell /usr/bin/git-shell git",
        "install -d -o git -m 700 /home/git/.ssh",
        "ssh-keygen -q -t ed25519 -N '' -C dev@box -f /root/key",
        "install -o git -m 600 /root/key.pub /home/git/.ssh/authorized_keys",
        "git config --global user.name hub && git config --global user.email hub@example.com",
        "git init -q -b main /root/work && cd /root/work && echo text > README && git add . && git commit -qm first",
        "cd /root/work && echo more > README && git commit -qam second",
        "git clone -q --bare /root/work /home/git/project.git && chown -R git /home/git/project.git",
    )
    hub.wait_for_open_port(22)
    keys = here / "ssh-keys"
    hub.copy_from_machine("/root/key")
    (here / "out/key").rename(keys / "id_ed25519")
    host_key = " ".join(hub.succeed("cat /etc/ssh/ssh_host_ed25519_key.pub").split()[:2])
    (keys / "known_hosts").write_text(f"hub {host_key}\n")

with subtest("it boots"):
    machine.start()
    machine.wait_for_unit("multi-user.target")
    assert machine.succeed("hostname") == "machine\n"

with subtest("users"):
    machine.succeed("id dev")
    machine.succeed("getent passwd dev")
    machine.succeed("test -d /home/dev")
    assert machine.succeed("stat -c '%U %a' /home/dev") == "dev 700\n"

with subtest("sudo"):
    machine.succeed("sudo -u dev sudo -n true")
    machine.succeed("sudo -u dev sudo whoami | grep -q root")
    machine.fail("sudo -u nobody sudo -n true")

with subtest("services"):
    machine.wait_for_unit("ssh.service")
    machine.succeed("systemctl is-active ssh.service")
    machine.wait_for_open_port(22)
    machine.require_unit_state("ssh.service")

with subtest("programs"):
    for program in "git", "rsync", "sudo", "ssh":
        machine.succeed(f"which {program}")
    machine.fail("which no-such-program")

with subtest("shares are copied, with modes and owners"):
    machine.wait_for_unit("copy-host-configs.service")
    machine.succeed("test -d /home/dev/.augment")
    machine.succeed("test -f /home/dev/.augment/session.json")
    machine.succeed("test -f /home/dev/.docker/config.json")
    machine.succeed("stat -c '%a' /home/dev/.augment | grep -q 700")
    machine.succeed("stat -c '%a' /home/dev/.docker | grep -q 700")
    machine.succeed("stat -c '%a' /home/dev/.augment/session.json | grep -q 600")
    machine.succeed("stat -c '%a' /home/dev/.docker/config.json | grep -q 600")
    for path in ".augment", ".augment/session.json", ".docker":
        machine.succeed(f"stat -c '%U' /home/dev/{path} | grep -q dev")
    assert machine.succeed("cat /home/dev/.augment/session.json") == '{"token": "test"}\n'
    machine.fail("mountpoint /mnt/host-augment")

with subtest("a project by mount, as it is on the host"):
    machine.wait_for_unit("mount-host-project.service")
    machine.succeed("mountpoint /home/dev/mounted")
    machine.succeed("test -f /home/dev/mounted/flake.nix")
    machine.succeed("test -f /home/dev/mounted/src/index.js")
    told = machine.succeed("cd /home/dev/mounted && stat -c '%n %a %u' flake.nix secret tool").splitlines()
    assert told == ["flake.nix 644 1000", "secret 600 0", "tool 755 1000"], told
    machine.succeed("sudo -u dev cat /home/dev/mounted/flake.nix")
    machine.fail("sudo -u dev cat /home/dev/mounted/secret")
    machine.succeed("sudo -u dev sh -c 'echo written > /home/dev/mounted/made && chmod 640 /home/dev/mounted/made'")
    made = here / "project/made"
    assert made.read_text() == "written\n"
    assert (made.stat().st_mode & 0o7777, made.stat().st_uid) == (0o640, 1000)
    (here / "project/later").write_text("from the host\n")
    machine.wait_for_file("/home/dev/mounted/later")

with subtest("what all machines share, and what the script brings"):
    machine.succeed("echo word > /tmp/shared/word")
    assert hub.succeed("cat /tmp/shared/word") == "word\n"
    machine.copy_from_host(str(here / "project"), "/srv/brought")
    assert machine.succeed("stat -c %a /srv/brought/secret /srv/brought/tool").split() == ["600", "755"]

with subtest("a project as a copy"):
    machine.wait_for_unit("copy-host-project.service")
    machine.succeed("test -f /home/dev/copied/flake.nix")
    machine.succeed("stat -c '%U' /home/dev/copied | grep -q dev")
    machine.succeed("stat -c '%U' /home/dev/copied/src/index.js | grep -q dev")
    machine.succeed("test -d /home/dev/mounted/node_modules")
    machine.succeed("test ! -d /home/dev/copied/node_modules")
    machine.succeed("sudo -u dev touch /home/dev/copied/test-file.txt")
    machine.fail("test -e /home/dev/mounted/test-file.txt")

with subtest("a project by git over SSH, with the keys that were copied first"):
    after = machine.succeed("systemctl show clone-host-project.service --property=After")
    assert "copy-host-configs.service" in after, after
    requires = machine.get_unit_info("clone-host-project.service")["Requires"]
    assert "copy-host-configs.service" in requires.split(), requires
    machine.wait_for_unit("clone-host-project.service")
    machine.succeed("stat -c '%a' /home/dev/.ssh | grep -q 700")
    machine.succeed("stat -c '%a' /home/dev/.ssh/id_ed25519 | grep -q 600")
    machine.succeed("test -f /home/dev/project/README")
    machine.succeed("test -f /home/dev/project/.git/shallow")
    machine.succeed("cd /home/dev/project && sudo -u dev git rev-parse --abbrev-ref HEAD | grep -qx main")
    machine.succeed("stat -c '%U' /home/dev/project/README | grep -q dev")
    machine.succeed(
        "cd /home/dev/project && echo changed | sudo -u dev tee README"
        " && sudo -u dev git -c user.name=dev -c user.email=dev@box commit -qam third && sudo -u dev git push -q 2>&1"
    )
    assert hub.succeed("sudo -u git git -C /home/git/project.git log -1 --format=%s") == "third\n"

with subtest("a project that is not what it should be"):
    with t.assertRaisesRegex(RequestedAssertionFailed, 'unit "check-project.service" reached state "failed"'):
        machine.start_job("check-project")
        machine.wait_for_unit("check-project.service")
    machine.succeed("systemctl reset-failed")

with subtest("the line that is told logs in from outside"):
    machine.succeed("passwd -d root")
    machine.wait_for_open_port(22)
    line = machine.ssh_backdoor_command()
    elsewhere = ["env", "-i", f"PATH={os.environ['PATH']}", "sh", "-c", f"{line} hostname"]
    ran = subprocess.run(elsewhere, stdin=subprocess.DEVNULL, capture_output=True, timeout=120)
    assert (ran.returncode, ran.stdout) == (0, b"machine\n"), ran

machine.copy_from_machine("/home/dev/project", "results")
assert not machine.succeed("systemctl --failed --no-legend").strip()
machine.shutdown()
