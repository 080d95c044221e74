//! Builds that Nix gives to `machinist external-builder`.

use anyhow::Result;

use crate::Case;
use crate::rig::Rig;

pub const CASES: &[Case] = &[Case {
    name: "external::builds_of_all_kinds",
    run: kinds,
}];

/// Nix as a client whose builds for this system go to our program, as an ordinary build's user; and
/// the service that builds for it.
const EXTERNAL: &str = r#"
kill %1
wait %1 || true
rm -f /nix/var/nix/daemon-socket/socket
for n in 1 2 3 4; do
    echo "nixbld$n:x:3000$n:30000::/var/empty:/bin/false" >> /etc/passwd
done
echo 'nixbld:x:30000:nixbld1,nixbld2,nixbld3,nixbld4' >> /etc/group
cat > /etc/nix/nix.conf <<'END'
build-users-group = nixbld
experimental-features = nix-command external-builders
substituters =
max-jobs = 4
external-builders = [{"systems":["x86_64-linux"],"program":"/machinist/machinist","args":["external-builder","run","--socket","/run/external","b"]}]
