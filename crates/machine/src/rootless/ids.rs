//! The ids that the host gives a user beside their own: subuid(5) and subgid(5).

use std::fmt;
use std::fs;
use std::path::Path;

use machinist_sys::id_map::IdRange;

/// So many ids a system needs beside root's, the last of them `nobody`'s (65534) and one more.
const NEEDED: u32 = 65_535;

/// Where ranges begin that useradd(8) gives.
const FIRST: u32 = 100_000;

/// How many useradd(8) gives.
const USUAL: u32 = 65_536;

/// A user, as the files may name them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: Option<String>,
    pub(crate) number: u32,
}

impl User {
    /// The one that we are. `login` is what the environment says, for a user that /etc/passwd does
    /// not know.
    pub(crate) fn ourselves(etc: &Path, login: Option<String>) -> Self {
        let number = rustix::process::geteuid().as_raw();
        let passwd = fs::read_to_string(etc.join("passwd")).unwrap_or_default();
        Self {
            name: name_of(&passwd, number).or(login),
            number,
        }
    }

    fn is(&self, word: &str) -> bool {
        self.name.as_deref() == Some(word) || word.parse() == Ok(self.number)
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => f.write_str(name),
            None => self.number.fmt(f),
        }
    }
}

fn name_of(passwd: &str, number: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(number)).then(|| name.to_owned())
    })
}

/// A file gives a user too few ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TooFew {
    /// A line that would mend it.
    pub(crate) line: String,
}

/// How the ids of one kind are mapped: the user's own to 0, those that `text` gives them behind it.
pub(crate) fn mapping(text: &str, user: &User, own: u32) -> Result<Vec<IdRange>, TooFew> {
    let mut ranges = vec![IdRange {
        inside: 0,
        outside: own,
        count: 1,
    }];
    let mut next = 1;
    for (_, outside, count) in entries(text).filter(|(name, ..)| user.is(name)) {
        let count = count.min(NEEDED + 1 - next);
        if count > 0 {
            ranges.push(IdRange {
                inside: next,
                outside,
                count,
            });
            next += count;
        }
    }
    if next > NEEDED {
        return Ok(ranges);
    }
    let free = entries(text)
        .map(|(_, start, count)| start.saturating_add(count))
        .fold(FIRST, u32::max);
    Err(TooFew {
        line: format!("{user}:{free}:{USUAL}"),
    })
}

/// The entries of the file: who, from where on, and how many.
fn entries(text: &str) -> impl Iterator<Item = (&str, u32, u32)> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next()?;
        Some((
            name,
            fields.next()?.parse().ok()?,
            fields.next()?.parse().ok()?,
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anna() -> User {
        User {
            name: Some("anna".into()),
            number: 1000,
        }
    }

    fn numbers(text: &str) -> Result<Vec<(u32, u32, u32)>, TooFew> {
        let ranges = mapping(text, &anna(), 1000)?;
        Ok(ranges
            .iter()
            .map(|range| (range.inside, range.outside, range.count))
            .collect())
    }

    #[test]
    fn a_range_by_name_or_by_number() {
        let expected = vec![(0, 1000, 1), (1, 165_536, 65_535)];
        assert_eq!(
            numbers("bert:100000:65536\nanna:165536:65536\n"),
            Ok(expected.clone())
        );
        assert_eq!(numbers("1000:165536:65536"), Ok(expected));
    }

    #[test]
    fn ranges_are_joined() {
        assert_eq!(
            numbers("anna:100000:40000\nanna:300000:40000\n"),
            Ok(vec![
                (0, 1000, 1),
                (1, 100_000, 40_000),
                (40_001, 300_000, 25_535)
            ])
        );
    }

    #[test]
    fn the_line_that_is_missing_takes_nobodys_ids() {
        let line = |text| numbers(text).unwrap_err().line;
        assert_eq!(line(""), "anna:100000:65536");
        assert_eq!(line("bert:100000:65536\n# x\nbad"), "anna:165536:65536");
        assert_eq!(line("anna:100000:1000"), "anna:101000:65536");
    }

    #[test]
    fn names_are_found() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nanna:x:1000:1000::/home/anna:/bin/sh\n";
        assert_eq!(name_of(passwd, 1000).as_deref(), Some("anna"));
        assert_eq!(name_of(passwd, 1), None);
    }
}
