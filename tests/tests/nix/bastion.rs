//! Somebody else's machine behind a bastion, as a builder: with real `sshd`s.

use anyhow::Result;
use machinist_tests::nix::NixHost;

use crate::Case;
use crate::doctor::RIG;

pub const CASES: &[Case] = &[Case {
    name: "bastion::a_machine_behind_one_is_registered",
    run: behind,
}];

/// The machine builds in a store of its own, whatever it is asked to run.
const SERVERS: &str = r#"
mkdir -p /run/sshd /ssh
for name in bastion build user other; do ssh-keygen -q -t ed25519 -N '' -f /ssh/$name; done
cp /ssh/user.pub /ssh/authorized
serve() {
  local port=$1 name=$2
  shift 2
  /usr/sbin/sshd -f /dev/null -E /ssh/$name.log -h /ssh/$name -o ListenAddress=127.0.0.1:$port -o UsePAM=no \
    -o PermitRootLogin=yes -o StrictModes=no -o AuthorizedKeysFile=/ssh/authorized -o PidFile=none "$@"
}
serve 2201 bastion
serve 2202 build -o ForceCommand=/usr/local/bin/remote
register() {
  machinist builder register far --ssh root@127.0.0.1:2202 --jump root@127.0.0.1:2201 --key /ssh/user \
    --systems x86_64-linux --features uid-range "$@"
}
"#;

fn behind(host: &NixHost) -> Result<()> {
    let script = format!(
        "{RIG}\n{SERVERS}\n{}",
        r#"
# Who answers there is not who should.
if register --host-key /ssh/other.pub --jump-host-key /ssh/bastion.pub 2> /tmp/said; then exit 1; fi
if register --host-key /ssh/build.pub --jump-host-key /ssh/other.pub 2>> /tmp/said; then exit 1; fi
cat /tmp/said >&2
test ! -e /etc/nix/machines
test ! -e /etc/machinist/ssh/far
# A file with something else is not shown: it may be a secret.
if register --host-key /ssh/user --jump-host-key /ssh/bastion.pub 2> /tmp/said; then exit 1; fi
grep '/ssh/user has no public host key' /tmp/said
if grep 'PRIVATE KEY' /tmp/said; then exit 1; fi

register --host-key /ssh/build.pub --jump-host-key /ssh/bastion.pub
register --host-key /ssh/build.pub --jump-host-key /ssh/bastion.pub 2>&1 | grep 'registered already'
grep -c remote-program /etc/nix/machines
grep -o 'Accepted publickey for root' /ssh/bastion.log | sort -u

# An ordinary user's build goes there.
echo 'derivation { name = "far"; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "echo > $out" ];
  requiredSystemFeatures = [ "uid-range" ]; }' > /tmp/far.nix
mkdir /tmp/home
chown 1000 /tmp/home
HOME=/tmp/home setpriv --reuid 1000 --regid 1000 --clear-groups nix-build --no-out-link /tmp/far.nix --max-jobs 0
machinist builder unregister far
"#
    );
    let ran = host.run(&script)?.exits(0)?;
    anyhow::ensure!(
        ran.stderr.matches("ost key verification failed").count() >= 2,
        "{ran}"
    );
    ran.says("1\n")?
        .says("Accepted publickey for root\n")?
        .complains("registered far in /etc/nix/machines")?
        .complains("far is out of /etc/nix/machines")?
        .complains("-F%20/etc/machinist/ssh/far/config%20builder%20nix-daemon'")?;
    Ok(())
}
