//! `machinist doctor` and `machinist builder register`, with a real Nix daemon.
//!
//! All in one container: the daemon, and a machine of its own store that is reached as a builder is.

use anyhow::{Context as _, Result, ensure};
use machinist_tests::nix::NixHost;
use serde_json::Value;

use crate::Case;

pub const CASES: &[Case] = &[
    Case {
        name: "doctor::a_builder_is_registered_and_forgotten",
        run: registration,
    },
    Case {
        name: "doctor::failures_made_on_purpose_are_found",
        run: failures,
    },
];

/// A daemon, and `/usr/local/bin/remote`: a machine with a store of its own for each connection.
pub const RIG: &str = r#"
export PATH=/machinist:$PATH
cat > /usr/local/bin/remote <<'END'
#!/bin/bash
exec unshare --mount --propagation private bash -c '
  mount -t tmpfs -o mode=755 none /nix
  mkdir -p /nix/store /nix/var
  NIX_REMOTE= NIX_CONF_DIR=/remote exec nix-daemon --stdio
'
END
chmod +x /usr/local/bin/remote
mkdir /remote
cp /etc/nix/nix.conf /remote/
daemon() {
  if [ -n "${running:-}" ]; then kill "$running"; wait "$running" || true; fi
  rm -f /nix/var/nix/daemon-socket/socket
  # Asked for a daemon itself, it would ask itself, and so on.
  NIX_REMOTE= nix-daemon 2> /tmp/daemon.log &
  running=$!
  until [ -S /nix/var/nix/daemon-socket/socket ]; do sleep 0.01; done
}
daemon
trap 'kill $running' EXIT
export NIX_REMOTE=daemon
"#;

fn registration(host: &NixHost) -> Result<()> {
    let script = format!(
        "{RIG}\n{}",
        r#"
printf '# mine' > /etc/nix/machines
machinist builder create b > /dev/null
register() { machinist builder register b --program /usr/local/bin/remote --systems x86_64-linux "$@"; }

# A feature that the machine has not: nothing is written.
if register --mandatory-features kvm 2> /tmp/said; then exit 1; fi
grep -q 'does not build' /tmp/said
if register --mandatory-features moon 2> /tmp/said; then exit 1; fi
grep -q 'builder b has no feature moon; it can have benchmark' /tmp/said
test "$(cat /etc/nix/machines)" = '# mine'

# Somebody who may not write the file is told so before anything is built.
if HOME=/tmp setpriv --reuid 1000 --regid 1000 --clear-groups machinist builder register far --ssh u@h \
  --host-key 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJBWcxbBlaqt1auOtEF8QUWrUotiC5qBJUuEWdVCbroo' 2> /tmp/said; then exit 1; fi
grep 'run it again with sudo' /tmp/said

register --mandatory-features nixos-test
register --mandatory-features nixos-test 2>&1 | grep 'registered already'
grep -c remote-program /etc/nix/machines

# Nix sends there what asks for it, and nothing else.
cat > /tmp/test.nix <<'END'
derivation {
  name = "routed"; system = "x86_64-linux"; builder = "/bin/bash";
  args = [ "-c" "echo built > $out" ]; requiredSystemFeatures = [ "nixos-test" ];
}
END
nix-build --no-out-link /tmp/test.nix --max-jobs 0 2>&1 | grep "on 'ssh-ng://localhost?remote-program=/usr/local/bin/remote%20connect%20b'"

# Who set `builders` is named.
echo 'builders =' >> /etc/nix/nix.conf
if register 2> /tmp/said; then exit 1; fi
cat /tmp/said >&2
machinist builder destroy b --yes
machinist builder unregister b
od -c /etc/nix/machines | head -1
if machinist builder unregister b; then exit 1; fi
"#
    );
    host.run(&script)?
        .exits(0)?
        .says("1\n")?
        .says("run it again with sudo")?
        .says("is registered already")?
        .complains("registered b in /etc/nix/machines")?
        .complains("builders is '' (set by /etc/nix/nix.conf:")?
        .complains("Nix still looks for it: machinist builder unregister b")?
        .complains("b is out of /etc/nix/machines")?
        .complains("has no builder b: there is none of machinist's")?
        // Not a byte more than before.
        .says("#       m   i   n   e\n")?;
    Ok(())
}

/// What a run of `machinist doctor` has found, by the name that the script gave it.
struct Found(Vec<(String, Value)>);

impl Found {
    fn of(stdout: &str) -> Result<Self> {
        let mut all = Vec::new();
        for part in stdout.split("=== ").skip(1) {
            let (name, rest) = part.split_once('\n').context("no name")?;
            let found = serde_json::from_str(rest).with_context(|| format!("{name}: {rest}"))?;
            all.push((name.to_owned(), found));
        }
        Ok(Self(all))
    }

    /// The findings of a check.
    fn check(&self, run: &str, id: &str) -> Result<Vec<&Value>> {
        let (_, found) = self
            .0
            .iter()
            .find(|(name, _)| name == run)
            .context(run.to_owned())?;
        let all = found.as_array().context("no list")?;
        Ok(all.iter().filter(|it| it["id"] == id).collect())
    }

    /// A check has found `part`, and calls it a `level`.
    fn is(&self, run: &str, id: &str, level: &str, part: &str) -> Result<()> {
        let found = self.check(run, id)?;
        let fits = |it: &&&Value| {
            it["level"] == level && it["found"].as_str().is_some_and(|text| text.contains(part))
        };
        ensure!(
            found.iter().any(|it| fits(&it)),
            "{run}: {id} is no {level} with {part:?}: {found:#?}"
        );
        Ok(())
    }
}

/// One after the other, with what the doctor says of each.
const FAILURES: &str = r#"
# The machine claims to offer what its builds do not find.
sed -i 's/^system-features.*/& devnet kvm/' /remote/nix.conf
line='ssh-ng://localhost?remote-program=/usr/local/bin/remote x86_64-linux - 2 1'
# Ends with what its worst finding says; the name, and the exit code, come first.
doctor() {
  local name=$1 code=0
  shift
  machinist doctor --for builder --format json "$@" > /tmp/found 2> /tmp/said || code=$?
  echo "=== $name:$code"
  cat /tmp/found
}
cp /etc/nix/nix.conf /tmp/nix.conf
echo "$line uid-range,nixos-test" > /etc/nix/machines
doctor well
machinist doctor --for container --format json > /tmp/found
echo "=== containers:$?"
cat /tmp/found
echo "$line uid-range,devnet,kvm" > /etc/nix/machines
doctor claims
printf '%s\nssh://h - - four\n' "$line" > /etc/nix/machines
doctor broken

# Seed 003.
install -m 640 /dev/null /etc/nix/builder_ed25519
echo 'ssh-ng://builder@linux-builder aarch64-linux /etc/nix/builder_ed25519 1 1 kvm' > /etc/nix/machines
echo 'builders =' >> /etc/nix/nix.conf
doctor seed003 --fix
stat -c %a /etc/nix/builder_ed25519 >&2
cp /tmp/nix.conf /etc/nix/
# Its author gave the name an address: on port 22, there is this host's own server.
sed 's/^/127.0.0.1 linux-builder\n/;q' /etc/hosts > /tmp/hosts
mount --bind /tmp/hosts /etc/hosts
mkdir -p /run/sshd /ssh
for name in own other; do ssh-keygen -q -t ed25519 -N '' -f /ssh/$name; done
/usr/sbin/sshd -f /dev/null -h /ssh/own -o ListenAddress=127.0.0.1:22 -o UsePAM=no -o PidFile=/run/sshd.pid
entry="ssh-ng://builder@linux-builder aarch64-linux /etc/nix/builder_ed25519 1 1 kvm -"
echo "$entry $(base64 -w0 /ssh/other.pub)" > /etc/nix/machines
NIX_SSHOPTS='-o StrictHostKeyChecking=no' doctor seed003-hosts
# And then a second entry, without a key.
printf '%s\n%s\n' "$entry -" "${entry/linux-builder/localhost} -" > /etc/nix/machines
doctor seed003-twice
kill "$(cat /run/sshd.pid)"

# Who sets what no file sets.
echo "$line uid-range" > /etc/nix/machines
NIX_CONFIG='builders =' doctor asked
NIX_REMOTE_SYSTEMS=/etc/elsewhere daemon
doctor remote-systems
daemon
# A machine that does not trust whoever connects.
sed 's/--stdio/--stdio --force-untrusted/' /usr/local/bin/remote > /usr/local/bin/wary
chmod +x /usr/local/bin/wary
sed -i 's/^experimental-features.*/& daemon-trust-override/' /remote/nix.conf
echo "${line/remote x86/wary x86}" > /etc/nix/machines
doctor untrusted
rm /etc/nix/machines

# Seed 000: a program that builds, and gives no terminals.
cat > /usr/local/bin/external <<'END'
#!/usr/bin/python3
import json, os, subprocess, sys
build = json.load(open(sys.argv[-1]))
print("\x02", flush=True)
script = '/usr/bin/mount -t tmpfs none /dev/pts; cd "$1"; shift; exec "$@"'
sys.exit(subprocess.call(["/usr/bin/unshare", "--map-root-user", "--mount", "/bin/sh", "-c", script, "sh", build["tmpDir"], build["builder"], *build["args"]], env=build["env"]))
END
chmod +x /usr/local/bin/external
echo 'nixbld:x:30000:' >> /etc/group
sed -i 's/^experimental-features.*/& external-builders/; s/^build-users-group.*/build-users-group = nixbld/' /etc/nix/nix.conf
sed -i 's/^system-features.*/system-features = uid-range/' /etc/nix/nix.conf
echo 'external-builders = [{"systems":["x86_64-linux"],"program":"/usr/local/bin/external","args":[]}]' >> /etc/nix/nix.conf
daemon
doctor seed000
cp /tmp/nix.conf /etc/nix/

# What makes builds fail.
daemon
sed 's/^auto-allocate-uids.*//; s/^sandbox-fallback.*//' /tmp/nix.conf > /etc/nix/nix.conf
touch -d '+1 minute' /etc/nix/nix.conf
doctor settings
daemon
mkdir /homeless-shelter
doctor homeless
# Nothing can be built below that: once it is mended, all else is looked at again.
chmod 777 /nix
doctor mended --fix
stat -c 'nix is %a' /nix >&2
umount -l /dev/pts
doctor terminals
"#;

fn failures(host: &NixHost) -> Result<()> {
    let ran = host.run(&format!("{RIG}\n{FAILURES}"))?.exits(0)?;
    let found = Found::of(&ran.stdout)?;
    well_and_claims(&found).with_context(|| ran.to_string())?;
    seeds(&found).with_context(|| ran.to_string())?;
    mistakes(&found).with_context(|| ran.to_string())?;
    // What --fix has done.
    ran.complains("600\n")?.complains("nix is 775\n")?;
    Ok(())
}

fn well_and_claims(found: &Found) -> Result<()> {
    found.is(
        "containers:0",
        "container.ground",
        "fine",
        "all can be made",
    )?;
    found.is("well:1", "nix.daemon", "fine", "trusts this user")?;
    found.is("well:1", "machines.connect", "fine", "Nix 2.")?;
    found.is("well:1", "machines.features", "fine", "all proven")?;
    found.is("well:1", "machines.roundtrip", "fine", "both outputs")?;
    found.is("well:1", "linux.uid-range", "fine", "65536 ids")?;
    found.is("well:1", "linux.sandbox", "fine", "it has a sandbox")?;
    // This host has no KVM for its builds.
    found.is("well:1", "linux.kvm", "warning", "")?;

    found.is("claims:2", "machines.features", "failure", "devnet: tun: ")?;
    found.is("claims:2", "machines.features", "failure", "kvm: kvm: ")?;
    found.is(
        "broken:2",
        "machines.parse",
        "failure",
        "machines:2: column 3",
    )?;
    Ok(())
}

/// The stories of seeds 003 and 000.
fn seeds(found: &Found) -> Result<()> {
    found.is("seed003:2", "builders.effective", "failure", "it is empty")?;
    found.is("seed003:2", "machines.key", "fine", "mended: chmod 600")?;
    found.is("seed003:2", "machines.ssh", "failure", "")?;
    found.is(
        "seed003:2",
        "machines.connect",
        "failure",
        "failed to start SSH",
    )?;

    after_seed003(found)?;
    found.is(
        "seed000:2",
        "external.pty",
        "failure",
        "opens no terminal: No such file",
    )?;
    found.is(
        "seed000:2",
        "external.config",
        "warning",
        "takes all builds for x86_64-linux",
    )?;
    found.is(
        "seed000:2",
        "tests.takers",
        "warning",
        "external cannot have uid-range",
    )?;
    found.is(
        "seed000:2",
        "external.features",
        "warning",
        "a build that asks for uid-range is refused: error: feature 'uid-range' is not supported",
    )?;
    found.is(
        "seed000:2",
        "linux.uid-range",
        "warning",
        "not supported on this platform",
    )?;
    Ok(())
}

/// What its author tried next.
fn after_seed003(found: &Found) -> Result<()> {
    let (hosts, twice) = ("seed003-hosts:2", "seed003-twice:2");
    found.is(hosts, "machines.ssh", "failure", "own ssh server")?;
    found.is(hosts, "machines.ssh", "warning", "StrictHostKeyChecking=no")?;
    let connect = found.check(hosts, "machines.connect")?;
    let why = connect.first().context("no connection")?["why"].as_str();
    ensure!(
        why.is_some_and(|why| why.starts_with("another machine answered")),
        "{connect:#?}"
    );
    found.is(
        twice,
        "machines.lint",
        "warning",
        "a second machine of this host",
    )?;
    let connect = found.check(twice, "machines.connect")?;
    let unknown = |it: &&&Value| {
        it["why"]
            .as_str()
            .is_some_and(|why| why.contains("nobody is asked"))
    };
    ensure!(connect.iter().filter(unknown).count() == 2, "{connect:#?}");
    Ok(())
}

fn mistakes(found: &Found) -> Result<()> {
    found.is("asked:2", "builders.asked", "failure", "it is empty")?;
    found.is(
        "asked:2",
        "builders.effective",
        "fine",
        "@/etc/nix/machines",
    )?;
    found.is(
        "remote-systems:1",
        "builders.effective",
        "warning",
        "@/etc/elsewhere, without @/etc/nix/machines",
    )?;
    found.is(
        "untrusted:1",
        "machines.connect",
        "warning",
        "does not trust us",
    )?;
    found.is(
        "settings:1",
        "nix.stale",
        "warning",
        "before /etc/nix/nix.conf changed",
    )?;
    found.is(
        "settings:1",
        "linux.sandbox",
        "warning",
        "sandbox-fallback is true",
    )?;
    found.is("homeless:2", "nix.homeless", "failure", "it exists")?;
    found.is(
        "homeless:2",
        "linux.uid-range",
        "warning",
        "auto-allocate-uids",
    )?;
    for (id, part) in [
        ("nix.homeless", "mended: rmdir"),
        ("linux.builddir", "mended: chmod 775"),
    ] {
        found.is("mended:1", id, "fine", part)?;
    }
    found.is(
        "mended:1",
        "linux.sandbox",
        "warning",
        "sandbox-fallback is true",
    )?;
    found.is("terminals:2", "linux.devpts", "failure", "it is not there")?;
    found.is(
        "terminals:2",
        "linux.sandbox",
        "failure",
        "opening pseudoterminal master",
    )?;
    Ok(())
}
