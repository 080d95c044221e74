//! What is found in the machine of a NixOS system: its Nix says what it offers, and what it does not
//! really have is left out.

use machinist_guest::Agent;

use super::settle::{RESOLVER, SettleError, run};
use crate::config::{Config, Kind};
use crate::state::Proven;

/// Prints the version of its Nix, whether `/dev/kvm` can be opened by builds, and its settings. Its
/// argument is `network` where its input is how names are asked for.
const SEE: &str = r#"
if [ "$1" = network ]; then
    [ ! -L /etc/resolv.conf ] || rm /etc/resolv.conf
    cat > /etc/resolv.conf
fi
nix --version
# An emulated processor has virtualization, too, and nobody wants to wait for that.
[ "$(systemd-detect-virt --vm || true)" != qemu ] && [ -c /dev/kvm ] && (exec 3<>/dev/kvm) 2> /dev/null && stat -c %a /dev/kvm || echo none
nix --extra-experimental-features nix-command config show
"#;

/// Asks a machine what its Nix offers.
pub(super) async fn see(agent: &Agent, config: &Config) -> Result<Proven, SettleError> {
    let network = config.kind == Kind::Container && config.network;
    let (word, resolver) = match network {
        true => ("network", std::fs::read(RESOLVER).unwrap_or_default()),
        false => ("none", Vec::new()),
    };
    let words = ["sh", "-ec", SEE, "see", word];
    let said = run(
        agent,
        "the question for its Nix's settings",
        &words,
        &resolver,
    )
    .await?;
    Ok(understand(&said))
}

fn understand(said: &str) -> Proven {
    let mut lines = said.lines();
    let version = lines.next().unwrap_or_default();
    let nix = version.rsplit(' ').next().unwrap_or_default().to_owned();
    // Those of builds are nobody's but "others".
    let kvm = lines.next().unwrap_or_default().ends_with(['6', '7']);
    let setting = |name: &str| {
        let mut settings = said.lines().filter_map(|line| line.split_once(" = "));
        let found = settings.find(|(key, _)| *key == name);
        found.map_or("", |(_, value)| value)
    };
    let experimental: Vec<&str> = setting("experimental-features").split(' ').collect();
    let ranges = setting("auto-allocate-uids") == "true"
        && ["auto-allocate-uids", "cgroups"]
            .iter()
            .all(|name| experimental.contains(name));
    let mut features: Vec<String> = setting("system-features")
        .split_whitespace()
        .filter(|name| match *name {
            "kvm" => kvm,
            "uid-range" => ranges,
            _ => true,
        })
        .map(str::to_owned)
        .collect();
    features.sort();
    Proven { features, nix }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From Nix 2.34.8, shortened.
    const SAID: &str = "nix (Nix) 2.34.8\n600\nauto-allocate-uids = true\n\
        experimental-features = auto-allocate-uids cgroups nix-command\n\
        system = x86_64-linux\nsystem-features = benchmark kvm nixos-test uid-range\n";

    #[test]
    fn only_what_it_has_is_offered() {
        let proven = understand(SAID);
        assert_eq!(proven.nix, "2.34.8");
        assert_eq!(proven.features, ["benchmark", "nixos-test", "uid-range"]);
        let open = understand(&SAID.replace("\n600\n", "\n666\n"));
        assert!(open.features.contains(&"kvm".to_owned()));
        let none = SAID.replace("uids = true", "uids = false");
        assert_eq!(understand(&none).features, ["benchmark", "nixos-test"]);
        let none = SAID.replace(" cgroups", "");
        assert_eq!(understand(&none).features, ["benchmark", "nixos-test"]);
    }
}
