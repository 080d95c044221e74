//! A builder that sees the store of its host.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use machinist_tests::Ran;
use rustix::process::Signal;

use crate::Case;
use crate::rig::Rig;
use crate::vm::{OPTIONS, cut_power};

pub const CASES: &[Case] = &[
    Case {
        name: "host_store::of_a_container",
        run: container,
    },
    Case {
        name: "host_store::of_a_vm",
        run: vm,
    },
];

const NAME: &str = "h";

/// Before a client's daemon is started: its store is a directory that the host sees, too.
const BEFORE: &str = r#"
mkdir -p /rig/nix/store /nix
mount --bind /rig/nix /nix
rm -f /nix/var/nix/daemon-socket/socket
# Paths that are valid without having been built: lines for nix-store.
valid() { NIX_REMOTE=local nix-store --load-db; }
# What nix-store wants to know of PATH, whose references are on its input.
described() {
    local references
    references=$(cat)
    NIX_REMOTE=local nix-store --dump "$1" > /tmp/nar
    printf '%s\n' "$1" "$(sha256sum < /tmp/nar | cut -d' ' -f1)" "$(stat -c %s /tmp/nar)" "" \
        "$(wc -w <<< "$references")" $references
}
big=/nix/store/00000000000000000000000000000001-big
tool=/nix/store/00000000000000000000000000000002-tool
link=/nix/store/00000000000000000000000000000003-link
half=/nix/store/00000000000000000000000000000004-half
"#;

/// A gigabyte that takes no room, and a closure with it: a file, a directory, a link.
const CLOSURE: &str = r#"
truncate --size 1G $big
chmod 0444 $big
mkdir $tool
echo "$big" > $tool/says
ln -s $tool/says $link
{
    # What `described` would say of it, in a second.
    printf '%s\n' $big 65c70bf4311890f5207d6cf7b2a3cc576898bc515af7f9ec37550770941e1d37 1073741936 "" 0
    described $tool <<< $big
    described $link <<< $tool
} | valid
# What is being written, and a lock.
mkdir -p $half
echo half > $half/written
touch $half.lock $tool.lock
"#;

/// Asks the builder's Nix for paths as a client does, also for one that the host is still writing.
const ASK: &str = r#"
cat > /tmp/ask.py <<'END'
import struct, subprocess, sys
nix = subprocess.Popen(
    ["/machinist/machinist", "connect", "h"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
)
number = lambda value: struct.pack("<Q", value)
def text(value):
    value = value.encode()
    return number(len(value)) + value + bytes(-len(value) % 8)
def read():
    return struct.unpack("<Q", nix.stdout.read(8))[0]
def read_text():
    length = read()
    return nix.stdout.read(length + -length % 8)[:length].decode()
paths = sys.argv[1:]
asked = number(0x6e697863) + number(1 << 8 | 35) + number(0) + number(0)
asked += number(31) + number(len(paths)) + b"".join(map(text, paths)) + number(0)
nix.stdin.write(asked)
nix.stdin.flush()
read(), read(), read_text(), read()
assert read() == 0x616c7473 and read() == 0x616c7473
print("valid:", [read_text() for _ in range(read())])
nix.stdin.close()
END
python3 /tmp/ask.py $half $half.lock $tool.lock $link
"#;

/// A build that needs the closure, and says what it saw of the store.
const BUILD: &str = r#"
machines h
reads() {
    derive $1 'read -r big < $link; [ -s $big ]; echo $big /nix/store/* > $out' \
        "link = builtins.storePath \"$link\";"
    cat $(build $1.nix)
}
"#;

/// A path that Nix takes for valid, and that somebody has removed.
const LOST: &str = r#"
lost=/nix/store/00000000000000000000000000000005-lost
echo lost > $lost
described $lost < /dev/null | valid
rm $lost
derive lost 'echo > $out' "lost = builtins.storePath \"$lost\";"
build lost.nix && exit 1
"#;

fn client(rig: &Rig, script: &str) -> Result<Ran> {
    rig.client_after(BEFORE, &format!("{BUILD}{script}"))?
        .exits(0)
}

/// A script in the builder, as root.
fn inside(rig: &Rig, script: &str) -> Result<Ran> {
    let words = ["shell", NAME, "--", "sh", "-c", script];
    rig.builder(&words).run()
}

fn log(rig: &Rig) -> Result<String> {
    Ok(rig.builder(&["logs", NAME]).run()?.exits(0)?.stdout)
}

/// Whether fewer bytes went there than anybody could take for the closure.
fn not_copied(rig: &Rig) -> Result<()> {
    let status = rig.status(NAME)?;
    let sent = status["sent"].as_u64().context("no bytes are counted")?;
    ensure!((1..1 << 20).contains(&sent), "{status}");
    ensure!(status["from_host"]["paths"] == 3, "{status}");
    let bytes = status["from_host"]["bytes"].as_u64();
    ensure!(bytes.is_some_and(|bytes| bytes > 1 << 30), "{status}");
    Ok(())
}

fn container(rig: &Rig) -> Result<()> {
    let stop = |rig: &Rig| {
        rig.builder(&["stop", NAME]).run()?.exits(0)?;
        Ok(())
    };
    life(rig, &["--kind", "container"], stop)
}

fn vm(rig: &Rig) -> Result<()> {
    life(rig, OPTIONS, lose_power)
}

/// Whatever becomes of the machine, its service keeps no file of the host's store; that it keeps no root
/// there, either, is seen by what the host's Nix removes next.
fn lose_power(rig: &Rig) -> Result<()> {
    cut_power(rig, NAME)?;
    let state = rig.until(NAME, "off", Duration::from_secs(60))?;
    let service = state["service"]
        .as_str()
        .context("its service is gone, too")?;
    let store = rig.file("nix");
    for open in fs::read_dir(format!("/proc/{service}/fd"))? {
        // What is closed meanwhile is none.
        let open = fs::read_link(open?.path()).unwrap_or_default();
        ensure!(!open.starts_with(&store), "it keeps {open:?}");
    }
    Ok(())
}

/// A build whose closure has a gigabyte starts without that being copied; and all of the rest of what
/// is safe about it, in one life of a builder.
fn life(rig: &Rig, options: &[&str], off: impl Fn(&Rig) -> Result<()>) -> Result<()> {
    let own = format!("--host-store={}", rig.file("nix").display());
    rig.create(NAME, &[options, &[own.as_str()]].concat())?;
    let service = rig.serve(NAME)?;

    // The host's Nix does not remove what the machine sees, though it has no other reason to keep it.
    let collected = "nix-store --gc 2> /dev/null; ls $big $tool $link";
    let script = format!("{CLOSURE} reads first\n{ASK}\n{LOST}\n{collected}");
    client(rig, &script)?
        .says("00000000000000000000000000000001-big /nix/store/")?
        .says("valid: ['/nix/store/00000000000000000000000000000003-link']")?
        .complains("00000000000000000000000000000005-lost")?;
    not_copied(rig)?;
    let said = log(rig)?;
    let lost = "warning: the host's Nix takes /nix/store/00000000000000000000000000000005-lost";
    ensure!(said.contains(lost), "{said}");

    // What is there cannot be written or removed, is what Nix says it is, and is alone there.
    let script = "
        set -eu; cd /nix/store
        ls -d 0000*
        ! echo > 00000000000000000000000000000002-tool/says
        nix-store --gc > /dev/null 2>&1
        nix-store --verify-path $PWD/*-tool $PWD/*-link && echo verified";
    inside(rig, script)?
        .exits(0)?
        .says("1-big\n00000000000000000000000000000002-tool\n00000000000000000000000000000003-link\nverified")?
        .complains("Read-only file system")?;

    // It is all there after another start, which needs the host's Nix: without, nothing is known of it.
    service.signal(Signal::KILL);
    service.wait()?;
    let refused = rig.builder(&["start", NAME]).run()?;
    ensure!(refused.stderr.contains("does not answer"), "{refused}");
    client(rig, "reads second")?.says("1-big /nix/store/")?;
    not_copied(rig)?;
    off(rig)?;

    // What the host has removed while the machine was off is forgotten, with what refers to it.
    let script =
        "nix-store --gc 2> /dev/null; ! ls $big; derive third 'echo > $out' ''; build third.nix";
    client(rig, script)?;
    let said = log(rig)?;
    ensure!(said.contains("does not have /nix/store/0000"), "{said}");
    let forgotten =
        "! ls -d /nix/store/0000* /nix/store/*-first && nix-store --verify && echo sound";
    inside(rig, forgotten)?.exits(0)?.says("sound")?;

    // The same where the machine runs, and the host's daemon, which has kept it all, has ended for a while.
    client(rig, &format!("{CLOSURE} reads first"))?.says("1-big /nix/store/")?;
    let script = "nix-store --gc 2> /dev/null; ! ls $big; echo new > input; derive fourth 'echo > $out' 'input = ./input;'; build fourth.nix";
    client(rig, script)?;
    inside(rig, forgotten)?.exits(0)?.says("sound")?;
    rig.end(NAME)
}
