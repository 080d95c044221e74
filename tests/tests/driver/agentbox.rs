//! A VM that people work in, and how its makers test it: agentbox's checks, rebuilt over Debian.
//! There each is a test of its own with a VM of its own; here one VM has the services of all.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use anyhow::{Result, ensure};
use machinist_tests::{Bench, Need};

use crate::Case;
use crate::stage::Stage;

pub const CASES: &[Case] = &[Case {
    name: "a_workplace_with_users_shares_and_projects",
    needs: &[Need::Vm, Need::Container, Need::Python, Need::Ssh],
    run: workplace,
}];

const PACKAGES: [&str; 4] = ["git", "openssh-server", "rsync", "sudo"];

/// Directories of the host, by the names that the VM mounts them by.
const SHARES: [(&str, &str); 4] = [
    ("host-augment", "augment"),
    ("host-docker", "docker"),
    ("ssh-keys", "ssh-keys"),
    ("host-project", "project"),
];

/// Who works there.
const ACTIVATE: &str = "#!/bin/sh -e
id dev || useradd --create-home --uid 1000 --user-group --shell /bin/bash dev
chmod 700 /home/dev
";

/// Copies what the host shares into a home directory, with modes of its own.
const COPY_CONFIGS: &str = r#"#!/bin/bash -e
share() {
    local from=/mnt/$1 to=/home/dev/$2 file
    mkdir -p $from $to
    mount -t 9p -o trans=virtio,version=9p2000.L,ro $1 $from
    cp -r $from/. $to/
    umount $from
    chown -R dev:dev $to
    chmod 700 $to
    for file in "${@:3}"; do chmod 600 $to/$file; done
}
share host-augment .augment session.json
share host-docker .docker config.json
share ssh-keys .ssh id_ed25519
"#;

const MOUNT_PROJECT: &str = "#!/bin/sh -e
mkdir -p /home/dev/mounted
mount -t 9p -o trans=virtio,version=9p2000.L host-project /home/dev/mounted
test -f /home/dev/mounted/flake.nix
";

const COPY_PROJECT: &str = "#!/bin/sh -e
rsync --archive --exclude node_modules --exclude secret /home/dev/mounted/ /home/dev/copied/
chown -R dev:dev /home/dev/copied
";

const CLONE_PROJECT: &str = "#!/bin/sh -e
git clone --depth 1 --branch main ssh://git@hub/home/git/project.git /home/dev/project
test -f /home/dev/project/README
";

const CHECK_PROJECT: &str = "#!/bin/sh -e
test -f /home/dev/project/no-such-marker
";

/// A service that does one thing and is active then.
fn once(name: &str, needs: &str, more: &str) -> (String, String, u32) {
    let unit = format!(
        "[Unit]\nRequires={needs}\nAfter={needs}\n[Service]\nType=oneshot\nRemainAfterExit=yes\n{more}\n\
         ExecStart=/etc/test/{name}\n"
    );
    let path = format!("/etc/systemd/system/{name}.service");
    (path, unit, 0o644)
}

fn files() -> Vec<(String, String, u32)> {
    let program = |name: &str, text: &str| (format!("/etc/test/{name}"), text.to_owned(), 0o755);
    let wanted = "[Unit]\nWants=copy-host-configs.service mount-host-project.service \
                  copy-host-project.service clone-host-project.service\n";
    vec![
        (
            "/etc/systemd/system/multi-user.target.d/work.conf".to_owned(),
            wanted.to_owned(),
            0o644,
        ),
        (
            "/etc/sudoers.d/dev".to_owned(),
            "dev ALL=(ALL) NOPASSWD: ALL\n".to_owned(),
            0o440,
        ),
        once("activate", "early.service", ""),
        once("copy-host-configs", "activate.service", ""),
        once("mount-host-project", "activate.service", ""),
        once("copy-host-project", "mount-host-project.service", ""),
        once(
            "clone-host-project",
            "copy-host-configs.service",
            "User=dev",
        ),
        once("check-project", "clone-host-project.service", ""),
        program("activate", ACTIVATE),
        program("copy-host-configs", COPY_CONFIGS),
        program("mount-host-project", MOUNT_PROJECT),
        program("copy-host-project", COPY_PROJECT),
        program("clone-host-project", CLONE_PROJECT),
        program("check-project", CHECK_PROJECT),
    ]
}

/// What is on the host.
fn lay_out(place: &Path) -> Result<()> {
    let files: [(&str, &str, u32, u32); 9] = [
        ("augment/session.json", "{\"token\": \"test\"}\n", 0o644, 0),
        ("docker/config.json", "{\"auths\": {}}\n", 0o644, 0),
        ("ssh-keys/config", "Host hub\n", 0o644, 0),
        ("project/flake.nix", "{ outputs = { }; }\n", 0o644, 1000),
        ("project/secret", "hidden\n", 0o600, 0),
        ("project/tool", "#!/bin/sh\n", 0o755, 1000),
        ("project/src/index.js", "console.log(1)\n", 0o644, 1000),
        ("project/node_modules/index.js", "0\n", 0o644, 1000),
        ("project/README.md", "# Project\n", 0o644, 1000),
    ];
    for (name, text, mode, owner) in files {
        let path = place.join(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        chown(&path, Some(owner), Some(owner))?;
    }
    chown(place.join("project"), Some(1000), Some(1000))?;
    Ok(())
}

fn workplace(bench: &Bench) -> Result<()> {
    let place = bench.path();
    lay_out(&place)?;
    let shares = SHARES.map(|(tag, folder)| {
        let path = place.join(folder);
        format!(
            "-virtfs local,path={},security_model=none,mount_tag={tag}",
            path.display()
        )
    });
    let stage = Stage::with(bench, &PACKAGES)
        .vlans(&[1])
        .vm_with("machine", 1, &[1], |mut script| {
            script.options = shares.join(" ");
            script.files = files();
            let open = "PermitRootLogin yes\nPermitEmptyPasswords yes\nUsePAM no\n".to_owned();
            let place = "/etc/ssh/sshd_config.d/open.conf".to_owned();
            script.files.push((place, open, 0o644));
            script.hosts = vec!["192.168.1.2 hub".to_owned()];
            script
        })?
        .container("hub", 2, &[1])?;
    stage
        .driver(&[], include_str!("agentbox.py"))?
        .run()?
        .exits(0)?;
    ensure!(bench.read("out/results/project/README")? == "changed\n");
    Ok(())
}
