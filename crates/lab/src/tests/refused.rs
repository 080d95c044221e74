#![expect(
    clippy::too_many_lines,
    reason = "the messages stand beside what they are about"
)]

use super::{drawn, wrong};
use crate::Lab;

#[test]
fn six_mistakes_at_once() {
    let errors = wrong(
        r#"
[machine.web]
image  = "debian:bookworm"
memroy = "512M"

[machine.My_DB]
image = "ap"
memory = 512

[image.app]
source = "debian:bookworm"

[[test]]
name = "serves"
steps = [
  { machine = "wbe", wait = "port:80", timeout = "30 seconds" },
]
"#,
    );
    insta::assert_snapshot!(drawn(&errors), @r#"
  × lab.toml: 6 mistakes

Error:
  × unknown key `memroy`
   ╭─[lab.toml:4:1]
 3 │ image  = "debian:bookworm"
 4 │ memroy = "512M"
   · ───┬──
   ·    ╰── a machine has no such key
 5 │
   ╰────
  help: did you mean `memory`?
        a machine has the keys `cdi`, `checkpoint`, `count`, `cpus`, `devices`, `disks`, `env`,
        `files`, `gpu`, `image`, `kind`, `memory`, `packages`, `publish`, `ready`, `snapshot`,
        `vlans`, `volumes`

Error:
  × `My_DB` cannot be the name of a machine: host names have no 'M'
   ╭─[lab.toml:6:10]
 5 │
 6 │ [machine.My_DB]
   ·          ─────
 7 │ image = "ap"
   ╰────
  help: `my-db` would do; a name is a host name: lower-case letters, digits and `-`, beginning
        with a letter, at most 63

Error:
  × there is no image `ap`
   ╭─[lab.toml:7:9]
 6 │ [machine.My_DB]
 7 │ image = "ap"
   ·         ────
 8 │ memory = 512
   ╰────
  help: did you mean `app`?
        define it with `[image.ap]`, or use a source: `debian:SUITE`, `host`, `dir:PATH` or
        `tar:PATH`

Error:
  × expected a size (a string), found an integer
   ╭─[lab.toml:8:10]
 7 │ image = "ap"
 8 │ memory = 512
   ·          ───
 9 │
   ╰────
  help: say the unit, such as "512M"

Error:
  × there is no machine `wbe`
    ╭─[lab.toml:16:15]
 15 │ steps = [
 16 │   { machine = "wbe", wait = "port:80", timeout = "30 seconds" },
    ·               ─────
 17 │ ]
    ╰────
  help: did you mean `web`?

Error:
  × `30 seconds` is not a duration
    ╭─[lab.toml:16:50]
 15 │ steps = [
 16 │   { machine = "wbe", wait = "port:80", timeout = "30 seconds" },
    ·                                                  ────────────
 17 │ ]
    ╰────
  help: durations are numbers with units: `30s`, `5m`, `1h30m`, `250ms`
"#);
    insta::assert_snapshot!(errors.plain(), @r#"
lab.toml:4:1: unknown key `memroy` (machine.web.memroy)
  help: did you mean `memory`?
        a machine has the keys `cdi`, `checkpoint`, `count`, `cpus`, `devices`, `disks`, `env`, `files`, `gpu`, `image`, `kind`, `memory`, `packages`, `publish`, `ready`, `snapshot`, `vlans`, `volumes`
lab.toml:6:10: `My_DB` cannot be the name of a machine: host names have no 'M' (machine.My_DB)
  help: `my-db` would do; a name is a host name: lower-case letters, digits and `-`, beginning with a letter, at most 63
lab.toml:7:9: there is no image `ap` (machine.My_DB.image)
  help: did you mean `app`?
        define it with `[image.ap]`, or use a source: `debian:SUITE`, `host`, `dir:PATH` or `tar:PATH`
lab.toml:8:10: expected a size (a string), found an integer (machine.My_DB.memory)
  help: say the unit, such as "512M"
lab.toml:16:15: there is no machine `wbe` (test[0].steps[0].machine)
  help: did you mean `web`?
lab.toml:16:50: `30 seconds` is not a duration (test[0].steps[0].timeout)
  help: durations are numbers with units: `30s`, `5m`, `1h30m`, `250ms`
"#);
}

#[test]
fn each_conflict() {
    let all = [
        "[machine.a]\nimage = 'host'\npackages = ['nginx']",
        "[machine.a]\nimage = 'nixos:/x'",
        "[machine.a]",
        "",
        "[machine.a]\nimage = 'host'\nkind = 'container'\ndisks = [{ size = '1G' }]",
        "[machine.a]\nimage = 'host'\nkind = 'vm'\ndevices = ['/dev/fuse']",
        "[machine.a]\nimage = 'host'\ndevices = ['/dev/fuse']\ndisks = [{ size = '1G' }]",
        "[machine.a]\nimage = 'host'\nkind = 'vmm'",
        "[machine.a]\nimage = 'host'\ncount = 0",
        "[machine.a]\nimage = 'host'\ncount = 2\npublish = ['80:80']",
        "[machine.a]\nimage = 'host'\ncount = 2\ndisks = [{ path = 'x' }]",
        "[machine.a]\nimage = 'host'\ncount = 2\n[machine.a-1]\nimage = 'host'",
        "[machine.a]\nimage = 'host'\ncount = 200\n[machine.b]\nimage = 'host'\ncount = 51",
        "[machine.a]\nimage = 'host'\npublish = ['80:80']\n[machine.b]\nimage = 'host'\npublish = ['0.0.0.0:80:1']",
        "[machine.a]\nimage = 'host'\npublish = '80:80'",
        "[machine.a]\nimage = 'host'\ndisks = [{}]",
        "[machine.a]\nimage = 'host'\nvlans = [1, 1, 255]",
        "[machine.a]\nimage = 'host'\nvolumes = ['/a:/x', '/b:/x']",
        "[machine.driver]\nimage = 'host'",
        "[machine.a]\nimage = 'host'\n[vlan.2]\ncondition = { delay = '5ms' }\n[vlan.255]",
        "[machine.a]\nimage = 'host'\n[[test]]\nname = 'x'\n[[test]]\nname = 'x'\nscript = 'a'\nsteps = [{ machine = 'a', run = 'x' }]",
        "[machine.a]\nimage = 'host'\n[[test]]\nname = 'x'\nsteps = []",
        "[machine.a]\nimage = 'host'\ncount = 2\n[[test]]\nname = 'x'\nsteps = [{ machine = 'a', run = 'x' }, { machine = 'a-1' }]",
        "[machine.a]\nimage = 'host'\n[machine.b]\nimage = 'host'\n[[test]]\nname = 'x'\nmachines = ['a', 'c']\nsteps = [{ machine = 'b', run = 'x' }]",
        "[machine.a]\nimage = 'host'\n[[test]]\nname = 'x'\nsteps = [{ machine = 'a', run = 'x', stdout = { matches = '[' }, to = 'x' }, { machine = 'a', copy_in = 'x' }, { machine = 'a', run = 'x', stderr = {} }]",
        "[machine.a]\nimage = 'host'\nimage = 'host'\n[machine.b\nx = ",
    ];
    let text: String = all.map(|text| wrong(text).plain() + "\n").concat();
    insta::assert_snapshot!(text, @r#"
lab.toml:3:12: packages cannot be added to `host` (machine.a.packages)
  help: only images that are made from Debian's packages take more of them

lab.toml:2:9: `nixos:` images are not in this version yet (machine.a.image)
  help: sources are `debian:SUITE`, `host`, `dir:PATH` and `tar:PATH`

lab.toml:1:10: `machine.a` has no image (machine.a)
  help: add `image = "debian:bookworm"`, here or under `[defaults]`

lab.toml:1:1: the lab has no machines
  help: begin with `[machine.NAME]`

lab.toml:4:9: a container has no disks (machine.a.disks)
  help: use `volumes`, or `kind = "vm"`

lab.toml:4:11: a VM has no devices of the host (machine.a.devices)
  help: leave `devices` out, or use `kind = "container"`

lab.toml:3:11: no machine has both disks and devices of the host (machine.a.devices)
  help: make two machines of it

lab.toml:3:8: `vmm` is not one of `auto`, `container`, `vm` (machine.a.kind)
  help: did you mean `vm`?

lab.toml:3:9: 0 is not within 1 to 250 (machine.a.count)
  help: So many of these: `app-1`, `app-2`, ...

lab.toml:4:11: only one machine can have port 80 of the host (machine.a.publish)
  help: name the machine's port alone, such as "80": each gets a free port

lab.toml:4:9: only one machine can write to a disk (machine.a.disks)
  help: make it `read_only = true`, or use `size` for a disk of each one's own

lab.toml:4:10: two machines are called `a-1` (machine.a-1)
  help: `count` makes names by adding `-1`, `-2` and so on

lab.toml:4:10: 251 machines are more than the 250 that a VLAN has addresses for (machine)

lab.toml:6:12: port 80 of the host is published twice (machine.b.publish)
  help: choose another port, or name the machine's port alone for a free one

lab.toml:3:11: expected a list, found a string (machine.a.publish)
  help: write ["80:80"]

lab.toml:3:10: a disk has either `size` or `path` (machine.a.disks[0])
  help: `{ size = "2G" }`, or `{ path = "data.img", read_only = true }`

lab.toml:3:13: VLAN 1 twice (machine.a.vlans)
  help: a machine hangs on a VLAN by one port
lab.toml:3:16: 255 is not within 1 to 254 (machine.a.vlans[2])
  help: The VLANs it hangs on: the first is `eth1`. Default: [1].

lab.toml:3:21: two volumes at `/x` (machine.a.volumes)
  help: give each its own target

lab.toml:1:10: `driver` cannot be the name of a machine: test scripts use this name for something else (machine.driver)
  help: choose another name, such as `driver-1`

lab.toml:4:1: `condition` is not in this version yet (vlan.2.condition)
  help: take it out: this version would not do what it says
lab.toml:5:7: `255` is not the number of a VLAN (vlan.255)
  help: VLANs are numbered 1 to 254

lab.toml:4:8: the test does nothing (test[0])
  help: a test has either `steps` or `script`
lab.toml:6:8: two tests are called `x` (test[1].name)
  help: filters and reports tell tests apart by their names
lab.toml:6:8: the test has both `steps` and `script` (test[1])
  help: a test has either `steps` or `script`

lab.toml:5:9: this list is empty (test[0].steps)
  help: What it does, step by step.

lab.toml:6:22: `a` has a `count`: a step needs one of them (test[0].steps[0].machine)
  help: these are `a-1`, `a-2`
lab.toml:6:40: the step does nothing (test[0].steps[1])
  help: a step has one of `wait`, `run`, `copy_in`, `copy_out`

lab.toml:7:18: there is no machine `c` (test[0].machines)
  help: the machines are `a`, `b`
lab.toml:8:22: `b` is not among the machines of this test (test[0].steps[0].machine)
  help: add "b" to the test's `machines`

lab.toml:5:59: this is not a regular expression: unclosed character class (test[0].steps[0].stdout.matches)
  help: a `\` or `[` that is meant as itself is written `\\` or `\[`; TOML strings in single quotes need no doubled `\`
lab.toml:5:71: `to` means nothing with `run` (test[0].steps[0].to)
  help: it goes with `copy_in`, `copy_out`
lab.toml:5:105: `copy_in` needs `to`: where to (test[0].steps[1])
  help: `copy_in = "site", to = "/srv/site"`
lab.toml:5:149: this expects nothing (test[0].steps[2])
  help: `contains`, `matches` or `equals`

lab.toml:3:1: duplicate key
lab.toml:4:11: unclosed table, expected `]`
"#);
}

#[test]
fn json_has_places_too() {
    let text = r#"{
  "machine": { "web": { "image": "host", "memory": null, "imaeg": 1, "image": 2 } }
}"#;
    let errors = Lab::parse_json(text, "lab.json").unwrap_err();
    insta::assert_snapshot!(drawn(&errors), @r#"
  × lab.json: one mistake

Error:
  × the key `image` stands here twice
   ╭─[lab.json:2:70]
 1 │ {
 2 │   "machine": { "web": { "image": "host", "memory": null, "imaeg": 1, "image": 2 } }
   ·                         ───┬───                                      ───────
   ·                            ╰── first here
 3 │ }
   ╰────
"#);
    let errors = Lab::parse_json("{\"machine\": {\n\"web\" }}", "lab.json").unwrap_err();
    insta::assert_snapshot!(drawn(&errors), @r#"
  × lab.json: one mistake

Error:
  × expected `:`
   ╭─[lab.json:2:7]
 1 │ {"machine": {
 2 │ "web" }}
   ·       ▲
   ·       ╰── not JSON
   ╰────
"#);
}

#[test]
fn snapshots_are_of_vms_and_restarts_of_containers() {
    let errors = wrong(
        r#"
[machine.web]
kind = "container"
image = "host"
snapshot = false
checkpoint = "restrat"

[machine.db]
kind = "vm"
image = "host"
checkpoint = "restart"
snapshot = "no"
snapshots = true
ready = "sytem"
"#,
    );
    insta::assert_snapshot!(drawn(&errors), @r#"
  × lab.toml: 6 mistakes

Error:
  × a container has no snapshot
   ╭─[lab.toml:5:12]
 4 │ image = "host"
 5 │ snapshot = false
   ·            ─────
 6 │ checkpoint = "restrat"
   ╰────
  help: leave it out: it starts at once in any case; or use `kind = "vm"`

Error:
  × `restrat` is not one of `refuse`, `restart`
   ╭─[lab.toml:6:14]
 5 │ snapshot = false
 6 │ checkpoint = "restrat"
   ·              ─────────
 7 │
   ╰────
  help: did you mean `restart`?

Error:
  × a checkpoint saves a VM as it is: there is nothing to choose
    ╭─[lab.toml:11:14]
 10 │ image = "host"
 11 │ checkpoint = "restart"
    ·              ─────────
 12 │ snapshot = "no"
    ╰────
  help: leave it out, or use `kind = "container"`

Error:
  × expected true or false, found a string
    ╭─[lab.toml:12:12]
 11 │ checkpoint = "restart"
 12 │ snapshot = "no"
    ·            ────
 13 │ snapshots = true
    ╰────
  help: Whether it may be restored from a snapshot instead of booting, if it is a VM. Default:
        true.

Error:
  × unknown key `snapshots`
    ╭─[lab.toml:13:1]
 12 │ snapshot = "no"
 13 │ snapshots = true
    · ────┬────
    ·     ╰── a machine has no such key
 14 │ ready = "sytem"
    ╰────
  help: did you mean `snapshot`?
        a machine has the keys `cdi`, `checkpoint`, `count`, `cpus`, `devices`, `disks`, `env`,
        `files`, `gpu`, `image`, `kind`, `memory`, `packages`, `publish`, `ready`, `snapshot`,
        `vlans`, `volumes`

Error:
  × `sytem` is nothing to wait for here
    ╭─[lab.toml:14:9]
 13 │ snapshots = true
 14 │ ready = "sytem"
    ·         ───────
    ╰────
  help: `agent`, `system`, `unit:NAME` or `command:SHELL`
    "#);
}
