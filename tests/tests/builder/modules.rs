//! The units that the modules of NixOS declare, in a container that systemd boots: their sockets start
//! the services, and Nix builds through them.

use std::path::Path;

use anyhow::Result;

use crate::Case;
use crate::rig::Rig;

pub const CASES: &[Case] = &[Case {
    name: "modules::units_as_declared_build_for_nix",
    run: units,
}];

/// A host that NixOS' module has set up, with Nix's own daemon and builds' users.
const SYSTEM: &str = r#"
mkdir -p /machinist/bin /home/user
chown 1000:1000 /home/user
ln -s ../machinist /machinist/bin/machinist
for n in 1 2; do
    echo "nixbld$n:x:3000$n:30000::/var/empty:/bin/false" >> /etc/passwd
done
echo 'nixbld:x:30000:nixbld1,nixbld2' >> /etc/group
nix-instantiate --eval --strict --json --attr builders /repository/nix/tests/evaluate.nix > /tmp/host.json
python3 /repository/tests/tests/builder/units.py < /tmp/host.json
cat > /run/systemd/system/nix-daemon.service <<'END'
[Service]
ExecStart=/usr/bin/nix-daemon
END
cat > /run/systemd/system/nix-daemon.socket <<'END'
[Socket]
ListenStream=/nix/var/nix/daemon-socket/socket
END
systemctl daemon-reload
systemctl start nix-daemon.socket
# As sockets.target has them: none of the services runs.
systemctl start $(cd /run/systemd/system/sockets.target.wants && echo *)
systemctl is-active machinist-builder-linux.service machinist-external-linux.service && exit 1
user() { HOME=/home/user setpriv --reuid 1000 --regid 1000 --clear-groups env NIX_REMOTE=daemon "$@"; }
derive() {
    cat > "/home/user/$1.nix" <<END
derivation { name = "$1"; system = "$2"; builder = "/bin/sh"; args = [ "-c" "echo $1 built; echo $1 > \$out" ]; }
END
}
"#;

const BUILDS: &str = r#"
derive declared x86_64-linux
cat $(user nix build --print-build-logs --no-link --print-out-paths --file /home/user/declared.nix)
systemctl is-active machinist-builder-linux.service
cat /proc/$(systemctl show --value --property MainPID machinist-builder-linux.service)/cgroup | grep -o 'machinist-builder-linux.service'
# For another system, by its external builder; the service is started by a build's user.
derive external i686-linux
cat $(user nix build --print-build-logs --no-link --print-out-paths --file /home/user/external.nix)
systemctl is-active machinist-external-linux.service
# A killed service is started by the next connection, as is one that was stopped.
systemctl kill --signal KILL machinist-builder-linux.service
derive again x86_64-linux
cat $(user nix build --no-link --print-out-paths --file /home/user/again.nix)
# It has hardly started, and stops in order all the same.
timeout 60 systemctl stop machinist-builder-linux.service
/machinist/machinist builder status linux --format json | python3 -c 'import json, sys; print("machine:", json.load(sys.stdin)["machine"])'
# One that nobody has declared, by its own units; registering it has Nix build on it.
machinist=/machinist/machinist
MACHINIST_CACHE=/var/cache/machinist $machinist builder create hand --kind container --cores 1 --memory 1G
$machinist builder unit hand --write
systemctl daemon-reload
systemctl enable --now machinist-builder-hand.socket
$machinist builder register hand --program $machinist --mandatory-features nixos-test
systemctl is-active machinist-builder-hand.service
code=0
$machinist doctor --for builder --format json > /tmp/found || code=$?
python3 -c '
import json
for it in json.load(open("/tmp/found")):
    if it["id"].startswith(("machines.", "builder", "linux.cgroup2")):
        print(it["id"], it["level"], it["found"])
'
echo "doctor ends with $code"
systemctl stop machinist-builder-hand.socket machinist-builder-hand.service
systemctl stop machinist-external-linux.socket machinist-external-linux.service machinist-builder-linux.socket machinist-builder-linux.service
"#;

fn units(rig: &Rig) -> Result<()> {
    // Its image is made where there is a network.
    rig.create("b", &["--kind", "container"])?;
    rig.builder(&["start", "b"]).run()?.exits(0)?;
    rig.end("b")?;
    let cache = machinist_tests::images::cache()?;
    let shown: [(&Path, &str); 1] = [(&cache, "/var/cache/machinist")];
    let ran = rig.host().booted(&format!("{SYSTEM}{BUILDS}"), &shown)?;
    let ran = ran
        .exits(0)?
        .says("inactive\ninactive\ndeclared\nactive\nmachinist-builder-linux.service\n")?
        .says("external\nactive\nagain\nmachine: off\n")?
        .complains("starting builder linux")?
        .complains("declared> declared built")?
        .complains("registered hand in /etc/nix/machines")?;
    for (id, number) in [
        ("builder.guest fine", 2),
        ("machines.connect fine", 2),
        ("machines.roundtrip fine", 2),
        ("machines.features fine", 2),
        // That of Nix's own packages has it; this one was made in a hurry.
        ("linux.cgroup2 warning it has no Delegate=yes", 1),
    ] {
        anyhow::ensure!(ran.stdout.matches(id).count() == number, "{id}: {ran}");
    }
    Ok(())
}
