//! Software that people use: three nodes of etcd, and the leader dies.

use anyhow::Result;
use machinist_tests::{Bench, Need};

use crate::Case;

pub const CASES: &[Case] = &[Case {
    name: "cluster::etcd_goes_on_without_its_leader",
    needs: &[Need::Container, Need::Python],
    run: etcd,
}];

fn etcd(bench: &Bench) -> Result<()> {
    bench.write(
        "lab.toml",
        r#"
[image.etcd]
source = "debian:bookworm"
packages = ["etcd-client", "etcd-server"]

[machine.node]
kind = "container"
image = "etcd"
count = 3

[[test]]
name = "failover"
script = "failover.py"
timeout = "200s"
"#,
    )?;
    bench.write(
        "failover.py",
        r#"
import json
nodes = {"node-1": node_1, "node-2": node_2, "node-3": node_3}
peers = ",".join(f"{name}=http://{name}:2380" for name in nodes)
endpoints = ",".join(f"http://{name}:2379" for name in nodes)

start_all()
for name, node in nodes.items():
    node.succeed("systemctl stop etcd; rm -rf /var/lib/etcd/*")
    node.succeed(
        f"systemd-run --unit=member etcd --name {name} --data-dir /var/lib/member"
        f" --initial-cluster {peers} --initial-cluster-state new"
        f" --listen-peer-urls http://0.0.0.0:2380 --initial-advertise-peer-urls http://{name}:2380"
        f" --listen-client-urls http://0.0.0.0:2379 --advertise-client-urls http://{name}:2379"
    )
for node in nodes.values():
    node.wait_for_open_port(2379)

def ctl(node, arguments, timeout=200):
    return node.succeed(f"ETCDCTL_API=3 etcdctl --endpoints={endpoints} {arguments}", timeout=timeout)

node_1.wait_until_succeeds(f"ETCDCTL_API=3 etcdctl --endpoints={endpoints} endpoint health", timeout=200)
ctl(node_1, "put fruit apple")

status = json.loads(ctl(node_1, "endpoint status -w json"))
leader = next(s["Endpoint"] for s in status if s["Status"]["leader"] == s["Status"]["header"]["member_id"])
leader = leader.removeprefix("http://").removesuffix(":2379")
rest = [name for name in nodes if name != leader]
with subtest(f"the leader, {leader}, dies"):
    nodes[leader].crash()
    alive = ",".join(f"http://{name}:2379" for name in rest)
    survivor = nodes[rest[0]]
    survivor.wait_until_succeeds(f"ETCDCTL_API=3 etcdctl --endpoints={alive} put fruit pear", timeout=200)
    assert "pear" in nodes[rest[1]].succeed(f"ETCDCTL_API=3 etcdctl --endpoints={alive} get fruit")
with subtest("and comes back"):
    nodes[leader].start()
    assert "apple" not in survivor.succeed(f"ETCDCTL_API=3 etcdctl --endpoints={alive} get fruit")
"#,
    )?;
    bench.machinist(&["test"]).run()?.exits(0)?;
    Ok(())
}
