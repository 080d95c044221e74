//! Store paths as Nix's own programs read them: names, and lines for `nix-store --load-db`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::daemon::Info;

/// Where paths are, for Nix. Another place would give other paths.
pub(super) const STORE: &str = "/nix/store";
/// The letters of a path's hash, in Nix's own base 32.
const HASH: usize = 32;
/// The longest name behind it.
const LONGEST: usize = 211;

/// The last part of a store path; `None` where it is none. What is none must never become a file's name.
pub(super) fn name(path: &str) -> Option<&str> {
    let name = path.strip_prefix(STORE)?.strip_prefix('/')?;
    let (hash, rest) = name.split_at_checked(HASH)?;
    let rest = rest.strip_prefix('-')?;
    let digit = |byte: u8| b"0123456789abcdfghijklmnpqrsvwxyz".contains(&byte);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"+-._?=".contains(&byte);
    let good = hash.bytes().all(digit) && rest.bytes().all(plain);
    (good && (1..=LONGEST).contains(&rest.len())).then_some(name)
}

pub(super) fn path(name: &str) -> String {
    format!("{STORE}/{name}")
}

/// The paths with these names, as `nix-store --load-db` reads them.
pub(super) fn lines(infos: &BTreeMap<String, Info>) -> String {
    let mut text = String::new();
    for (name, info) in infos {
        let Info {
            deriver,
            hash,
            references,
            size,
        } = info;
        // Writing to a string does not fail.
        _ = writeln!(text, "{STORE}/{name}\n{hash}\n{size}\n{deriver}");
        _ = writeln!(text, "{}", references.len());
        for reference in references {
            _ = writeln!(text, "{reference}");
        }
    }
    text
}

/// Takes out of `infos` what has a reference to one of `lost`, or to something that has.
pub(super) fn without(infos: &mut BTreeMap<String, Info>, lost: &BTreeSet<String>) -> Vec<String> {
    let mut out: BTreeSet<String> = lost.clone();
    let mut gone = Vec::new();
    loop {
        let hit = |info: &Info| {
            let mut names = info.references.iter().filter_map(|path| name(path));
            names.any(|name| out.contains(name))
        };
        let more: Vec<String> = infos
            .iter()
            .filter(|(name, info)| lost.contains(*name) || hit(info))
            .map(|(name, _)| name.clone())
            .collect();
        if more.is_empty() {
            return gone;
        }
        for name in more {
            infos.remove(&name);
            out.insert(name.clone());
            gone.push(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "0123456789abcdfghijklmnpqrsvwxyz";

    fn info(references: &[&str]) -> Info {
        Info {
            deriver: String::new(),
            hash: "00".into(),
            references: references.iter().map(|it| path(it)).collect(),
            size: 96,
        }
    }

    #[test]
    fn only_store_paths_have_names() {
        let good = format!("{STORE}/{HASH}-a.b");
        assert_eq!(name(&good), Some(&good[STORE.len() + 1..]));
        for bad in [
            format!("{STORE}/{HASH}-a.lock/../../etc"),
            format!("{STORE}/{HASH}-"),
            format!("{STORE}/{HASH}"),
            format!("{STORE}/.links"),
            format!("/other/{HASH}-a"),
            format!("{STORE}/{}-a", HASH.to_uppercase()),
            format!("{STORE}/{HASH}-a b"),
            format!("{STORE}/{}é-a", &HASH[1..]),
        ] {
            assert_eq!(name(&bad), None, "{bad}");
        }
    }

    #[test]
    fn what_needs_a_lost_path_goes_with_it() {
        let named = |letter: &str| format!("{HASH}-{letter}");
        let [a, b, c, d] = ["a", "b", "c", "d"].map(named);
        let mut infos = BTreeMap::from([
            (a.clone(), info(&[&a, &b])),
            (b.clone(), info(&[&c])),
            (c.clone(), info(&[])),
            (d.clone(), info(&[&d])),
        ]);
        let mut gone = without(&mut infos, &BTreeSet::from([c.clone()]));
        gone.sort();
        assert_eq!(gone, [a, b, c]);
        let text = lines(&infos);
        assert_eq!(text, format!("{STORE}/{d}\n00\n96\n\n1\n{STORE}/{d}\n"));
    }
}
