//! What people test: routers, isolation, shares, projects, many machines at once.

use anyhow::Result;
use machinist_tests::{Bench, Need};

use crate::Case;
use crate::stage::Stage;

pub const CASES: &[Case] = &[
    Case {
        name: "a_router_translates_addresses_for_two_clients",
        needs: &[Need::Container, Need::Python],
        run: router,
    },
    Case {
        name: "vlans_are_isolated_both_ways",
        needs: &[Need::Container, Need::Vm, Need::Python],
        run: isolated,
    },
    Case {
        name: "eight_containers_at_once",
        needs: &[Need::Container, Need::Python],
        run: eight,
    },
];

/// A server on the outer network, two clients on the inner one, and a router between them.
fn router(bench: &Bench) -> Result<()> {
    let stage = Stage::with(bench, &["curl", "nftables", "nginx-light"])
        .vlans(&[1, 2])
        .container("client1", 1, &[2])?
        .container("client2", 2, &[2])?
        .container("router", 3, &[1, 2])?
        .container("server", 4, &[1])?;
    let script = r#"
start_all()
router.succeed(
    "sysctl -w net.ipv4.ip_forward=1",
    "nft add table ip nat",
    "nft 'add chain ip nat out { type nat hook postrouting priority 100 ; }'",
    "nft add rule ip nat out oifname eth1 masquerade",
)
server.wait_for_unit("nginx.service")
server.wait_for_open_port(80)
server.succeed("head -c 20000000 /dev/urandom > /var/www/html/big")
wanted = server.succeed("sha256sum < /var/www/html/big")
for client in client1, client2:
    client.fail("curl -fsS --max-time 2 http://192.168.1.4/")
    client.succeed("ip route add default via 192.168.2.3")
    got = client.succeed("curl -fsS --max-time 60 http://192.168.1.4/big | sha256sum")
    assert got == wanted, got
# Both were seen as the router.
seen = set(server.succeed("cut -d ' ' -f 1 /var/log/nginx/access.log").split())
assert seen == {"192.168.1.3"}, seen
# Nobody gets in from outside.
server.fail("timeout 2 bash -c 'exec 3<>/dev/tcp/192.168.2.1/80'")
with subtest("without the router there is nothing"):
    router.shutdown()
    client1.fail("curl -fsS --max-time 2 http://192.168.1.4/")
"#;
    stage.driver(&[], script)?.run()?.exits(0)?;
    Ok(())
}

/// A VM and a container on each of two VLANs, and a container on both.
fn isolated(bench: &Bench) -> Result<()> {
    let stage = Stage::new(bench)
        .vlans(&[1, 2])
        .container("both", 1, &[1, 2])?
        .container("c1", 2, &[1])?
        .container("c2", 3, &[2])?
        .vm("v1", 4, &[1])?
        .vm("v2", 5, &[2])?;
    let script = r#"
def knock(address):
    return f"(timeout 3 bash -c 'exec 3<>/dev/tcp/{address}/9' 2>&1 || true) | grep refused"

start_all()
for machine in machines:
    machine.wait_for_unit("multi-user.target")
pairs = [
    (c1, "192.168.1.4"), (v1, "192.168.1.2"), (c2, "192.168.2.5"), (v2, "192.168.2.3"),
    (both, "192.168.1.4"), (both, "192.168.2.5"), (v1, "2001:db8:1::2"), (c2, "2001:db8:2::5"),
]
for machine, address in pairs:
    machine.wait_until_succeeds(knock(address), timeout=200)
strangers = [
    (c1, "192.168.2.5"), (c1, "192.168.2.3"), (v1, "192.168.2.3"), (v1, "192.168.2.5"),
    (c2, "192.168.1.4"), (v2, "192.168.1.2"), (c1, "192.168.2.1"),
]
for machine, address in strangers:
    machine.fail(knock(address))
# Not by claiming to be there, either: it is another wire.
c1.succeed("ip addr add 192.168.2.77/24 dev eth1")
c1.fail(knock("192.168.2.3"))
"#;
    stage.driver(&[], script)?.run()?.exits(0)?;
    Ok(())
}

fn eight(bench: &Bench) -> Result<()> {
    let mut stage = Stage::new(bench).vlans(&[1]);
    for number in 1..=8 {
        stage = stage.container(&format!("m{number}"), number, &[1])?;
    }
    let script = r#"
start_all()
assert len(machines) == 8
for machine in machines:
    machine.wait_for_unit("multi-user.target")
for machine in machines:
    for number in range(1, 9):
        machine.succeed(f"(timeout 60 bash -c 'exec 3<>/dev/tcp/192.168.1.{number}/9' 2>&1 || true) | grep refused")
# Side by side: none waits for another.
import threading, time
began = time.monotonic()
threads = [threading.Thread(target=machine.succeed, args=("sleep 2",)) for machine in machines]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert time.monotonic() - began < 14
"#;
    stage.driver(&[], script)?.run()?.exits(0)?;
    Ok(())
}
