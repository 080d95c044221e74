# Units with sandboxes of their own, in a container: each gets what it asks for.
every = [
    "ProtectSystem=strict",
    "PrivateTmp=yes",
    "PrivateDevices=yes",
    "ProtectHome=yes",
    "MountAPIVFS=yes",
    "DynamicUser=yes",
    "NoNewPrivileges=yes",
]


def unit(properties, command):
    options = " ".join(f"-p {it}" for it in properties)
    return m.succeed(f"systemd-run -q --wait --pipe {options} sh -c '{command}'")


m.start()
m.wait_for_unit("multi-user.target")
m.succeed("touch /home/seen /tmp/seen")

with subtest("each alone"):
    unit(["ProtectSystem=strict"], "! touch /etc/x && ! touch /usr/x && touch /dev/shm/x")
    t.assertNotIn("seen", unit(["PrivateTmp=yes"], "touch /tmp/own; ls /tmp"))
    devices = unit(["PrivateDevices=yes"], "echo > /dev/null; ls /dev").split()
    t.assertIn("urandom", devices)
    t.assertNotIn("console", devices)
    t.assertNotIn("seen", unit(["ProtectHome=tmpfs"], "ls /home"))
    t.assertIn("systemd", unit(["MountAPIVFS=yes"], "cat /proc/1/comm"))
    identity = unit(["DynamicUser=yes", "StateDirectory=d"], "touch /var/lib/d/x; id -u")
    t.assertGreater(int(identity), 60000)
    t.assertIn("1", unit(["NoNewPrivileges=yes"], "grep NoNewPrivs /proc/self/status"))
    t.assertNotIn("eth", unit(["PrivateNetwork=yes"], "cat /proc/net/dev"))

with subtest("what wants new instances of the kernel's file systems"):
    # A root with nothing in it but programs.
    bare = [f"BindReadOnlyPaths={it}" for it in ("/usr", "/bin", "/lib", "/lib64")]
    bare += ["TemporaryFileSystem=/:ro", "MountAPIVFS=yes"]
    unit(bare, "test ! -e /etc && test -r /proc/self/status && test -d /sys/class/net")
    hidden = ["PrivateUsers=yes", "ProtectProc=invisible", "ProcSubset=pid"]
    unit(hidden, "test ! -e /proc/meminfo && test -e /proc/self/status")
    m.succeed("ip netns add inner")
    t.assertEqual(m.succeed("ip netns exec inner ls /sys/class/net").split(), ["lo"])

with subtest("all at once"):
    t.assertGreater(int(unit(every, "! touch /tmp/../etc/x && id -u")), 60000)

with subtest("a service of Debian's"):
    m.wait_for_unit("nginx.service")
    t.assertIn("Welcome", m.succeed("curl -fsS http://localhost/"))
    namespaces = m.succeed("readlink /proc/1/ns/mnt /proc/$(cat /run/nginx.pid)/ns/mnt").split()
    t.assertEqual(len(set(namespaces)), 2)
