import random
import statistics
import time

ROUNDS = 15
# Long enough for the wait to have begun, and never in step with anything.
DELAYS = [0.3 + random.random() / 10 for _ in range(ROUNDS)]


def later(name, delay, command, *options):
    """A unit of systemd's that does something in a while."""
    m.succeed(
        f"systemd-run --quiet --no-block --unit={name} {' '.join(options)}"
        f" bash -c 'sleep {delay}; {command}'"
    )


def unit(number, delay):
    name = f"wait-{number}.service"
    later(name, delay, "true", "-p Type=oneshot", "-p RemainAfterExit=yes")
    begun = time.monotonic()
    m.wait_for_unit(name)
    seen = time.monotonic()
    active = int(m.get_unit_property(name, "ActiveEnterTimestampMonotonic")) / 1e6
    assert begun < active, "it was active before the wait began"
    return seen - active


def stamped(number, delay, command, wait):
    """The seconds from `command`'s stamp until `wait` returns."""
    later(f"stamped-{number}", delay, command)
    begun = time.time()
    wait()
    seen = time.time()
    m.wait_for_file(f"/run/stamp-{number}.done")
    stamp = float(m.succeed(f"cat /run/stamp-{number}"))
    assert begun < stamp, "it was there before the wait began"
    return seen - stamp


def file(number, delay):
    command = (
        f"echo $EPOCHREALTIME > /run/stamp-f{number}; : > /run/it-{number};"
        f" : > /run/stamp-f{number}.done"
    )
    return stamped(f"f{number}", delay, command, lambda: m.wait_for_file(f"/run/it-{number}"))


LISTEN = """
use Socket; use Time::HiRes;
my ($port, $path) = @ARGV;
sub put { open my $file, ">", $_[0]; print $file $_[1]; }
socket(my $socket, PF_INET, SOCK_STREAM, 0) or die;
bind($socket, sockaddr_in($port, INADDR_ANY)) or die;
my $now = Time::HiRes::time;
listen($socket, 5) or die;
put($path, $now); put("$path.done", ""); sleep 5;
"""


def port(number, delay):
    command = f"perl /run/listen.pl {7000 + number} /run/stamp-p{number}"
    return stamped(f"p{number}", delay, command, lambda: m.wait_for_open_port(7000 + number, timeout=30))


m.wait_until_ready()
m.succeed(f"cat > /run/listen.pl <<'END'\n{LISTEN}\nEND")
report(
    {
        what.__name__: statistics.median([what(*it) for it in enumerate(DELAYS)])
        for what in (unit, file, port)
    }
)
