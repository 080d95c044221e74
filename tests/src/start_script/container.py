
import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys

ROOT = os.environ["RUN_NSPAWN_ROOT_DIR"]
SHARED = os.environ.get("RUN_NSPAWN_SHARED_DIR")
NETNS = "nixos-nspawn-" + NAME

signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))


def ip(*words):
    subprocess.run(["ip", *words], check=True)


@contextlib.contextmanager
def network_namespace():
    ip("netns", "add", NETNS)
    try:
        yield
    finally:
        ip("netns", "delete", NETNS)


@contextlib.contextmanager
def locked(vlan):
    os.makedirs("/run/nixos-nspawn", exist_ok=True)
    with open(f"/run/nixos-nspawn/vlan-{vlan}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def bridge(vlan):
    name, tap = f"br{vlan}", f"vde-tap{vlan}"
    here = "/sys/class/net/" + name
    try:
        with locked(vlan):
            if not os.path.exists(here):
                ip("link", "add", name, "type", "bridge")
                ip("link", "set", name, "up")
                ip("addr", "add", f"192.168.{vlan}.254/24", "dev", name)
                ip("addr", "add", f"2001:db8:{vlan}::fe/64", "dev", name)
            if os.path.exists("/sys/class/net/" + tap):
                ip("link", "set", tap, "master", name)
                ip("link", "set", tap, "up")
            else:
                print(f"{tap} is not there: the container sees other containers only", file=sys.stderr)
        yield name
    finally:
        with locked(vlan):
            if os.path.exists(here):
                ports = [port for port in os.listdir(here + "/brif") if port != tap]
                if not ports:
                    ip("link", "delete", name)


@contextlib.contextmanager
def interface(inner, vlan, mac):
    outer = f"{NAME}-{inner}"
    with bridge(vlan) as name:
        ip("link", "add", outer, "type", "veth", "peer", "name", inner, "netns", NETNS)
        try:
            ip("link", "set", outer, "master", name)
            ip("link", "set", outer, "up")
            ip("-n", NETNS, "link", "set", inner, "address", mac)
            ip("-n", NETNS, "addr", "add", f"192.168.{vlan}.{NUMBER}/24", "dev", inner)
            ip("-n", NETNS, "addr", "add", f"2001:db8:{vlan}::{NUMBER}/64", "dev", inner, "nodad")
            ip("-n", NETNS, "link", "set", inner, "up")
            yield
        finally:
            ip("link", "delete", outer)


def write(path, text):
    path = ROOT + path
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if os.path.lexists(path):
        os.remove(path)
    with open(path, "w") as file:
        file.write(text)


def var():
    """The parts of `/var` that it has a copy of. What packages are made of it has as NixOS has its store:
    bound read-only. That is most of the files, and to copy them takes longer than to boot."""
    parts = [f"var/{name}" for name in os.listdir(IMAGE + "/var") if name != "lib"]
    return parts + [f"var/lib/{name}" for name in os.listdir(IMAGE + "/var/lib") if name != "dpkg"]


def furnish():
    """What NixOS' activation makes of an empty root. One that was used before keeps what it has; what
    a run that was killed has begun is done again."""
    os.makedirs(ROOT, exist_ok=True)
    os.chmod(ROOT, 0o755)
    if not os.path.exists(ROOT + "/.furnished"):
        for link in ("bin", "sbin", "lib", "lib64"):
            if not os.path.lexists(f"{ROOT}/{link}"):
                os.symlink("usr/" + link, f"{ROOT}/{link}")
        for directory in ("usr", "dev", "proc", "sys", "run", "tmp", "root", "home", "var/empty"):
            os.makedirs(f"{ROOT}/{directory}", exist_ok=True)
        os.chmod(ROOT + "/tmp", 0o1777)
        subprocess.run(["cp", "-a", "--parents", "etc", *var(), ROOT], cwd=IMAGE, check=True)
        write("/etc/hostname", NAME + "\n")
        names = [f"192.168.{vlan}.{NUMBER} {NAME}" for _inner, vlan, _mac in INTERFACES]
        write("/etc/hosts", "\n".join(["127.0.0.1 localhost", "::1 localhost", *names, *HOSTS, ""]))
        write("/etc/machine-id", "")
        for path, text in FILES:
            write(path, text)
        write("/.furnished", "")
    # As NixOS does; it does not care either where the file system does not know the attribute.
    subprocess.run(["chattr", "+i", ROOT + "/var/empty"], stderr=subprocess.DEVNULL)


def main():
    furnish()
    with network_namespace(), contextlib.ExitStack() as stack:
        for words in INTERFACES:
            stack.enter_context(interface(*words))

        def announce():
            print(f"systemd-nspawn's PID is {os.getpid()}", flush=True)

        shared = ["--bind=" + SHARED + ":/tmp/shared"] if SHARED else []
        nspawn = subprocess.Popen(
            [
                "systemd-nspawn",
                "--private-network",
                "--machine=" + NAME,
                "--bind-ro=" + IMAGE + "/usr:/usr",
                "--bind-ro=" + IMAGE + "/var/lib/dpkg:/var/lib/dpkg",
                "--keep-unit",
                "--register=no",
                "--notify-ready=yes",
                *OPTIONS,
                "--directory=" + ROOT,
                "--network-namespace-path=/run/netns/" + NETNS,
                *shared,
                "/sbin/init",
            ],
            preexec_fn=announce,
        )
        try:
            status = nspawn.wait()
        finally:
            nspawn.terminate()
            subprocess.run(["chattr", "-i", ROOT + "/var/empty"], stderr=subprocess.DEVNULL)
        sys.exit(status)


main()
