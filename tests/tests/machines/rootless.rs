//! Labs of an ordinary user: containers in a user namespace, and what is said where there is none.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use machinist_tests::{Bench, Need, OrdinaryUser, wait_until};
use rustix::process::Signal;

use crate::{Case, shared};

pub const CASES: &[Case] = &[Case {
    name: "rootless::an_ordinary_user",
    needs: &[Need::Container, Need::Vm],
    run: ordinary_user,
}];

const QUICKSTART: &str = include_str!("../../../examples/quickstart/lab.toml");

/// The quickstart's machines, so that no other image is built and the VM's snapshot is found again;
/// but here the client may be either.
const EITHER: &str = r#"
[image.small]
source = "debian:bookworm"
packages = ["nginx-light", "curl"]
[machine.web]
kind = "container"
image = "small"
vlans = [1]
checkpoint = "restart"
[machine.client]
image = "small"
vlans = [1]
memory = "512M"
[vlan.1]
[[test]]
name = "web"
machines = ["web"]
steps = [{ machine = "web", run = "true" }]
[[test]]
name = "web-back"
machines = ["web"]
script = "back.py"
[[test]]
name = "client-back"
machines = ["client"]
script = "back.py"
[[test]]
name = "client"
machines = ["client"]
steps = [{ machine = "client", run = "systemd-detect-virt", status = 0, stdout = { matches = "qemu|kvm" } }]
"#;

/// An ordinary user's machine goes back in time: who reads a QEMU's memory is not root, and what a
/// container has written is other ids'.
const BACK: &str = r#"
machine.succeed("echo kept > /srv/file; chown 12:34 /srv/file; rm -r /usr/share/doc; mkdir /usr/share/doc")
checkpoint = lab.checkpoint()
for _ in range(2):
    machine.succeed("rm -r /srv; echo later > /usr/share/doc/later")
    lab.restore(checkpoint)
    found = machine.succeed("cat /srv/file; stat -c %u:%g /srv/file; ls /usr/share/doc")
    t.assertEqual(found, "kept\n12:34\n")
"#;

/// One user for all of it: their images are built once, which takes half a minute.
fn ordinary_user(bench: &Bench) -> Result<()> {
    let user = OrdinaryUser::new()?;
    quickstart(&user).context("the quickstart")?;
    user.nothing_left(bench).context("after the quickstart")?;
    inside(&user).context("inside of a container")?;
    user.nothing_left(bench).context("after a container")?;
    shared::root_beside(bench, &user).context("root beside the user")?;
    killed(bench, &user).context("a killed engine")?;
    user.nothing_left(bench).context("after a killed engine")?;
    without(bench, &user).context("without ids")?;
    user.nothing_left(bench).context("without ids")?;
    shared::refused(bench, &user).context("a cache that is somebody else's")
}

fn quickstart(user: &OrdinaryUser) -> Result<()> {
    user.write_lab(QUICKSTART)?;
    user.machinist(&["test"])
        .run()?
        .exits(0)?
        .complains("web: starting by nspawn")?
        .complains("1 passed")?;
    Ok(())
}

/// Root there is the user here: files in a volume are the user's, in both directions.
fn inside(user: &OrdinaryUser) -> Result<()> {
    let script = "id -u && rm -r /etc/apt && mkdir /etc/apt && ls -A /etc/apt \
                  && chown www-data /srv && stat -c %U /srv \
                  && stat -c %u /lab && touch /lab/made && cat /proc/self/uid_map";
    let image = ["--package", "nginx-light", "--package", "curl"];
    let mut args = vec!["run", "--volume", ".:/lab:rw"];
    args.extend(image);
    args.extend(["--", "sh", "-c", script]);
    let ran = user.machinist(&args).run()?.exits(0)?;
    ensure!(ran.stdout.starts_with("0\nwww-data\n0\n"), "{ran}");
    let made = user.path().join("lab/made").metadata()?;
    let lab = user.path().join("lab").metadata()?;
    use std::os::unix::fs::MetadataExt;
    ensure!(made.uid() == lab.uid(), "{} {}", made.uid(), lab.uid());
    // The host's own root would show as nobody's.
    let args = [
        "run",
        "--kind",
        "container",
        "--image",
        "host",
        "--",
        "true",
    ];
    user.machinist(&args)
        .run()?
        .exits(96)?
        .complains("image `host`")?;
    // What may be either is a VM then. No image of Debian's is built for it, but a kernel.
    let args = ["run", "--image", "host", "--", "systemd-detect-virt"];
    let ran = user.machinist(&args).run()?.exits(0)?;
    ensure!(ran.stdout.trim() != "systemd-nspawn", "{ran}");
    ran.complains("fresh: it is a VM: a container with the image `host`")?;
    Ok(())
}

/// SIGKILL, while the containers run.
fn killed(bench: &Bench, user: &OrdinaryUser) -> Result<()> {
    user.write_lab(EITHER)?;
    user.write("back.py", BACK)?;
    user.machinist(&["test", "web-back"]).run()?.exits(0)?;
    for time in 0..3 {
        let up = user.machinist(&["up", "--foreground"]).start()?;
        let sessions = || {
            let ps = user.machinist(&["ps", "--format", "json"]).run().ok()?;
            ps.stdout.contains("\"ready\"").then_some(())
        };
        wait_until(Duration::from_secs(200), sessions).context("no machine was ready")?;
        if time == 0 {
            shared::root_runs(bench, user, "container")?;
        }
        up.signal(Signal::KILL);
        up.wait()?;
        wait_until(Duration::from_secs(30), || {
            let mut entries = std::fs::read_dir(user.path().join("run")).ok()?;
            entries
                .all(|it| it.is_ok_and(|it| it.file_name() == ".gate"))
                .then_some(())
        })
        .context("the session's directory stays")?;
    }
    Ok(())
}

/// What the user lacks is said before anything boots; a machine that may be a VM is one.
fn without(bench: &Bench, user: &OrdinaryUser) -> Result<()> {
    user.write_lab(EITHER)?;
    user.machinist_without_cgroup(&["test", "web"])
        .run()?
        .exits(96)?
        .complains("cgroup2")?
        .complains("systemd-run --user --scope")?;
    user.give_ids(false)?;
    let run = ["run", "--kind", "container", "--", "true"];
    user.machinist(&run)
        .run()?
        .exits(96)?
        .complains("add the line machinist-tester:100000:65536 to /etc/subuid")?
        .complains("add the line machinist-tester:100000:65536 to /etc/subgid")?;
    user.machinist(&["show", "client"])
        .run()?
        .exits(0)?
        .says("vm ")?
        .says("in /etc/subuid")?;
    user.machinist(&["test", "client"])
        .run()?
        .exits(0)?
        .complains("client: it is a VM: containers need root, or a user namespace")?
        .complains("client: restored from its snapshot")?;
    // Not even root of a namespace; and root has a VM of the same cache meanwhile.
    let back = user.machinist(&["test", "client-back"]).start()?;
    shared::root_runs(bench, user, "vm")?;
    back.wait()?.exits(0)?;
    shared::for_nobody_else(user)?;
    user.machinist(&["test", "web"])
        .run()?
        .exits(96)?
        .complains("to /etc/subuid")?;
    Ok(())
}
