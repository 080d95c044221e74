//! Builds that Nix gives to `machinist external-builder`.

use anyhow::Result;

use crate::Case;
use crate::rig::Rig;
use crate::web::Web;

pub const CASES: &[Case] = &[Case {
    name: "external::builds_of_all_kinds",
    run: kinds,
}];

/// Nix as a client whose builds for this system go to our program, as an ordinary build's user; and
/// the service that builds for it, by `$builder`.
const EXTERNAL: &str = r#"
kill %1
wait %1 || true
rm -f /nix/var/nix/daemon-socket/socket
for n in 1 2 3 4; do
    echo "nixbld$n:x:3000$n:30000::/var/empty:/bin/false" >> /etc/passwd
done
echo 'nixbld:x:30000:nixbld1,nixbld2,nixbld3,nixbld4' >> /etc/group
cat > /etc/nix/nix.conf <<END
build-users-group = nixbld
experimental-features = nix-command external-builders
substituters =
max-jobs = 4
external-builders = [{"systems":["x86_64-linux"],"program":"/machinist/machinist","args":["external-builder","run","--socket","/run/external","$builder"]}]
END
mkdir -p /nix/store
chown root:nixbld /nix/store
chmod 1775 /nix/store
nix-daemon 2>> /rig/daemon.log &
/machinist/machinist external-builder serve $builder --socket /run/external 2> /rig/external.log & service=$!
for n in $(seq 600); do
    [ -S /nix/var/nix/daemon-socket/socket ] && [ -S /run/external ] && break
    sleep 0.05
done
"#;

/// What a client begins with whose builds go to a builder so.
pub fn through(builder: &str) -> String {
    format!("builder={builder}\n{EXTERNAL}")
}

/// What a native build would find it finds, what it makes comes back, and what it says is seen.
#[expect(clippy::too_many_lines, reason = "one machine for all of it")]
fn kinds(rig: &Rig) -> Result<()> {
    rig.create_shared("b", &[])?;
    rig.builder(&["start", "b"]).run()?.exits(0)?;
    let web = Web::open()?;
    let script = web.derivation("127.0.0.1")
        + r#"
echo from the client > input
derive several 'echo in the log; echo "$(<$input)" > $out; echo two > $dev' \
    'input = ./input; outputs = [ "out" "dev" ];'
build several.nix '^*' > paths
sort $(cat paths)
# Made once more, at other paths, and compared.
build several.nix --rebuild

derive layout '
    [ -t 1 ] && [ -c /dev/ptmx ] && echo "pts: $(echo /dev/pts/*)"
    [ ! -e /sys ] && [ ! -e /etc/nsswitch.conf ] && echo "dir $PWD, cores $NIX_BUILD_CORES, $(echo $(</proc/self/uid_map))"
    echo "store: $(echo /nix/store/*)"
    echo "$filePath: $(<$filePath)" > $out' \
    'passAsFile = [ "file" ]; file = "a file";'
cat $(build layout.nix)

derive structured ". \$NIX_ATTRS_SH_FILE; echo \"\$(<\$NIX_ATTRS_JSON_FILE)\" > ''\${outputs[out]}" \
    '__structuredAttrs = true; answer = [ 42 { deep = true; } ];'
grep -o '"answer":\[42,{"deep":true}\]' $(build structured.nix)

# Only what has a fixed hash has what a network needs.
hash=$(echo fixed | sha256sum | cut -d' ' -f1)
derive fixed '[ -e /etc/nsswitch.conf ] && echo fixed > $out' \
    "outputHashMode = \"flat\"; outputHashAlgo = \"sha256\"; outputHash = \"$hash\";"
cat $(build fixed.nix)
# And what Nix builds by itself.
cat $(build download.nix)

# A closure of more than a few paths.
derive large 'n=0; for path in $paths; do n=$((n+1)); read text < $path; done; echo "$n paths, the last $text" > $out' \
    'paths = builtins.genList (n: builtins.toFile "file-''${toString n}" "text ''${toString n}\n") 250;'
cat $(build large.nix)

# Four at once, and one that waits for all.
cat > many.nix <<'END'
let
  build = name: script: more: derivation ({
    inherit name;
    system = "x86_64-linux";
    builder = "/bin/sh";
    args = [ "-c" script ];
  } // more);
  part = n: build "part-${toString n}" "echo ${toString n} > $out" { };
in
build "many" "for part in $parts; do read n < $part; echo -n $n; done > $out; echo >> $out" { parts = builtins.genList part 8; }
END
cat $(build many.nix)

derive failing 'echo on fire; echo left > file; exit 3' ''
build failing.nix --keep-failed 2> said && exit 1
cat said >&2
kept=$(grep -o "keeping build directory [^ ]*" said | head -1 | tr -d "\"'" | sed 's/.* //; s/[.]$//')
cat "$kept"/file

derive elsewhere 'echo > $out' 'requiredSystemFeatures = [ "moon" ];'
build elsewhere.nix && exit 1
derive range 'echo > $out' 'requiredSystemFeatures = [ "uid-range" ];'
build range.nix && exit 1
# This Nix refuses that itself; another one may not.
mkdir -p top/build
cat > build.json <<'END'
{"version":1,"builder":"/bin/sh","args":[],"env":{"requiredSystemFeatures":"uid-range"},"tmpDir":"/home/user/top/build",
"tmpDirInSandbox":"/build","storeDir":"/nix/store","realStoreDir":"/nix/store","system":"x86_64-linux","inputPaths":[],"outputs":{}}
END
/machinist/machinist external-builder run --socket /run/external b build.json && exit 1

inside() { /machinist/machinist builder shell b -- "$@"; }
runs() { inside sh -c 'grep -lz "it [r]uns" /proc/[0-9]*/cmdline > /dev/null 2>&1'; }
gone() {
    for n in $(seq 200); do
        runs || return 0
        sleep 0.1
    done
    return 1
}
derive endless 'echo it runs; while true; do pause 1; done' ''
endless() {
    HOME=/home/user NIX_REMOTE=daemon setpriv --reuid 1000 --regid 1000 --clear-groups \
        nix build --print-build-logs --no-link --file endless.nix 2> endless.log & endless=$!
    for n in $(seq 600); do
        grep -q 'it runs' endless.log && break
        sleep 0.05
    done
    runs
}
# What is cancelled dies in the machine.
endless
kill $endless
wait $endless || true
gone
# So does a build whose service is killed; the next service builds on, and clears up.
endless
kill -KILL $service
wait $endless && exit 1
grep 'external builder b: the service of external builds ended before the build did' endless.log
gone
rm /run/external
/machinist/machinist external-builder serve b --socket /run/external 2>> /rig/external.log & service=$!
for n in $(seq 600); do
    [ -S /run/external ] && break
    sleep 0.05
done
derive after 'echo after > $out' ''
cat $(build after.nix)

# And nothing of all that is left there.
for n in $(seq 200); do
    [ "$(inside ls /nix/machinist/external)" != lock ] || break
    sleep 0.1
done
echo "left: $(inside ls /nix/machinist/external)"
kill $service
wait $service
"#;
    let ran = rig.client(&format!("{}{script}", through("b")))?;
    ran.exits(0)?
        .says("from the client\ntwo")?
        .says("/build/.attr-")?
        .says(": a file")?
        .says("\"answer\":[42,{\"deep\":true}]")?
        .says("fixed")?
        .says("from the host")?
        .says("250 paths, the last text 249")?
        .says("01234567\n")?
        .says("left\n")?
        .says("after\n")?
        .says("asks for the feature uid-range, which an external builder cannot have; a machine line can")?
        .says("left: lock")?
        .complains("several> in the log")?
        .complains("layout> pts: /dev/pts/ptmx")?
        .complains("layout> dir /build, cores ")?
        .complains("failing> on fire")?
        .complains("builder failed with exit code 3")?
        .complains("asks for the feature moon; builder b has")?
        .complains("'uid-range' is not supported")?;
    rig.end("b")
}
