//! VLANs: those on one see each other, and nobody else.

use anyhow::Result;
use machinist_tests::{Bench, Need};

use crate::Case;
use crate::labs::IMAGE;

pub const CASES: &[Case] = &[
    Case {
        name: "network::vlans_are_isolated_both_ways",
        needs: &[Need::Container, Need::Vm, Need::Python],
        run: isolated,
    },
    Case {
        name: "network::cables_are_pulled_and_plugged_in",
        needs: &[Need::Container, Need::Python],
        run: pulled,
    },
];

/// Cables of a machine, and of a VLAN.
fn pulled(bench: &Bench) -> Result<()> {
    let mut lab = String::from(IMAGE);
    for name in ["a", "b", "c"] {
        lab += &format!("[machine.{name}]\nkind = \"container\"\nimage = \"small\"\n");
    }
    lab += "[[test]]\nname = \"cables\"\nscript = \"t.py\"\n";
    bench.write("lab.toml", &lab)?;
    bench.write(
        "t.py",
        r#"
start_all()
def knock(name):
    return f"(timeout 2 bash -c 'exec 3<>/dev/tcp/{name}/9' 2>&1 || true) | grep refused"
a.succeed(knock("b"))
assert os.path.exists(f"/proc/{a.pid}")
b.block()
a.fail(knock("b"))
a.succeed(knock("c"))
b.unblock()
a.wait_until_succeeds(knock("b"), timeout=200)
vlan1.block()
a.fail(knock("c"))
vlan1.unblock()
a.wait_until_succeeds(knock("c"), timeout=200)
"#,
    )?;
    bench.machinist(&["test"]).run()?.exits(0)?;
    Ok(())
}

/// A VM and a container on each of two VLANs, and a container on both.
fn isolated(bench: &Bench) -> Result<()> {
    let mut lab = String::from(IMAGE);
    for (name, kind, vlans) in [
        ("c1", "container", "[1]"),
        ("c2", "container", "[2]"),
        ("v1", "vm", "[1]"),
        ("v2", "vm", "[2]"),
        ("both", "container", "[1, 2]"),
    ] {
        lab += &format!(
            "[machine.{name}]\nkind = \"{kind}\"\nimage = \"small\"\nvlans = {vlans}\nmemory = \"512M\"\n"
        );
    }
    lab += "[vlan.1]\n[vlan.2]\n[[test]]\nname = \"isolation\"\nscript = \"t.py\"\n";
    bench.write("lab.toml", &lab)?;
    bench.write(
        "t.py",
        r#"
start_all()
# Not for the port alone: nginx opens it for a moment when it looks at its configuration.
for m in (c1, c2, v1, v2, both):
    m.wait_for_unit("nginx.service")
    m.wait_for_open_port(80)
def sees(a, address):
    a.succeed(f"curl -fsS --max-time 20 -g http://{address}/")
def is_blind(a, address):
    a.fail(f"curl -fsS --max-time 2 -g http://{address}/")
# Machines are numbered in the order of their names: both, c1, c2, v1, v2.
sees(c1, "v1"); sees(v1, "c1"); sees(c2, "v2"); sees(v2, "c2")
sees(both, "c1"); sees(both, "v1"); sees(both, "192.168.2.3"); sees(both, "192.168.2.5")
sees(v1, "[2001:db8:1::2]")
for a, address in ((c1, "c2"), (c1, "v2"), (v1, "c2"), (v1, "v2"), (c2, "c1"), (v2, "v1")):
    is_blind(a, address)
# Not by way of a machine on both, nor by the address alone.
is_blind(c1, "192.168.2.1")
c1.succeed("ip link add link eth1 name eth1.9 type vlan id 9 2>/dev/null || true")
# And nothing of the host.
for m in (c1, v1):
    names = m.succeed("ls /sys/class/net").split()
    assert set(names) - {"eth1.9"} == {"lo", "eth1"}, names
names = both.succeed("ls /sys/class/net").split()
assert set(names) == {"lo", "eth1", "eth2"}, names
"#,
    )?;
    bench.machinist(&["test"]).run()?.exits(0)?;
    Ok(())
}
