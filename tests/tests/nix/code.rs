//! The Nix code: what can be said of it without running a test by it.

use anyhow::Result;
use machinist_tests::nix::NixHost;

use crate::Case;

pub const CASES: &[Case] = &[
    Case {
        name: "code::it_is_nix",
        run: parses,
    },
    Case {
        name: "code::it_evaluates_to_what_it_should",
        run: evaluates,
    },
    Case {
        name: "code::the_flake_is_one",
        run: flake,
    },
    Case {
        name: "code::the_driver_of_an_older_nixpkgs_is_exchanged",
        run: exchanged,
    },
    Case {
        name: "code::the_package_has_what_scripts_are_checked_with",
        run: checks,
    },
    Case {
        name: "code::the_hosts_settings_are_known_to_nix",
        run: settings,
    },
    Case {
        name: "code::declared_builders_can_be_made",
        run: builders,
    },
];

fn parses(host: &NixHost) -> Result<()> {
    let script = "\
cd /repository
find flake.nix nix tests/tests/nix -name '*.nix' -print0 | xargs -0 -n1 nix-instantiate --parse > /dev/null
";
    host.run(script)?.exits(0)?;
    Ok(())
}

fn evaluates(host: &NixHost) -> Result<()> {
    host.run("nix-instantiate --eval --strict --attr holds /repository/nix/tests/evaluate.nix\n")?
        .exits(0)?
        .says("true")?;
    Ok(())
}

/// By Nix's own rules for flakes, with what stands in for nixpkgs. A flake is copied whole, so it
/// gets only what belongs to it.
fn flake(host: &NixHost) -> Result<()> {
    let script = "\
mkdir /tmp/flake
tar -C /repository -c flake.nix nix Cargo.lock Cargo.toml crates python tests xtask | tar -C /tmp/flake -x
cd /tmp/flake
nix flake check --no-build --all-systems --no-write-lock-file \\
  --override-input nixpkgs path:/tmp/flake/nix/tests/nixpkgs path:/tmp/flake
";
    let ran = host.run(script)?.exits(0)?;
    ran.complains("checking derivation packages.aarch64-linux.nixos-test-driver")?
        .complains("checking NixOS module 'nixosModules.default'")?;
    Ok(())
}

fn exchanged(host: &NixHost) -> Result<()> {
    let script = "\
nix-build /repository/nix/tests --attr older-test --out-link /tmp/result
cat /tmp/result/written
";
    let ran = host.run(script)?.exits(0)?;
    ran.says("by machinist")?;
    Ok(())
}

fn checks(host: &NixHost) -> Result<()> {
    let script = "\
nix-build /repository/nix/tests --attr checks --out-link /tmp/result
cat /tmp/result
";
    let ran = host.run(script)?.exits(0)?;
    ran.says("start_all")?.says("polling_condition")?;
    Ok(())
}

/// What the NixOS module sets is understood, and is what a build with user ids needs.
fn settings(host: &NixHost) -> Result<()> {
    let script = "\
nix-instantiate --eval --strict --json --attr settings /repository/nix/tests/evaluate.nix |
  python3 -c '
import json, sys
for name, value in json.load(sys.stdin).items():
    words = value if isinstance(value, list) else [json.dumps(value)]
    print(name, \"=\", *words)
' > /tmp/nix.conf
mkdir /tmp/conf
mv /tmp/nix.conf /tmp/conf
NIX_CONF_DIR=/tmp/conf nix config show --extra-experimental-features nix-command
";
    let ran = host.run(script)?.exits(0)?;
    for complaint in ["unknown setting", "Ignoring setting"] {
        anyhow::ensure!(!ran.stderr.contains(complaint), "{ran}");
    }
    ran.says("auto-allocate-uids = true")?
        .says("sandbox-fallback = false")?;
    Ok(())
}

/// What the modules of builders say to machinist and to Nix is understood by both.
fn builders(host: &NixHost) -> Result<()> {
    let script = "\
mkdir -p /machinist/bin
ln -s ../machinist /machinist/bin/machinist
of() { nix-instantiate --eval --strict --json --attr \"builders.$1\" /repository/nix/tests/evaluate.nix; }
of create | python3 -c 'import json, sys; print(json.load(sys.stdin))' > /tmp/create
sh -e /tmp/create
# It is made once, and gets its options each time.
sed -i 's/.--max-jobs. .2./--max-jobs 3/' /tmp/create
sh -e /tmp/create
grep max_jobs /var/lib/machinist/builders/linux/builder.json
mkdir /tmp/conf
of settings | python3 -c '
import json, sys
settings = json.load(sys.stdin)
print(\"extra-experimental-features = nix-command\", *settings[\"extra-experimental-features\"])
print(\"external-builders =\", settings[\"external-builders\"])
' > /tmp/conf/nix.conf
NIX_CONF_DIR=/tmp/conf nix config show | grep external-builders
of mac.launchd.daemons | PATH=/machinist:$PATH python3 /repository/tests/tests/nix/plists.py
";
    let ran = host.run(script)?.exits(0)?;
    anyhow::ensure!(!ran.stderr.contains("unknown setting"), "{ran}");
    ran.says("\"max_jobs\": 3")?
        .says("\"systems\":[\"i686-linux\"]")?
        .says("machinist-builder-linux: 6 keys")?
        .says("machinist-external-linux: 6 keys")?;
    Ok(())
}
