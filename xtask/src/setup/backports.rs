//! The apt source of a release's backports, made from the source that the machine has already.
//!
//! The machine knows best where its packages come from (a mirror, a proxy, a key of its own), so
//! the new source is a copy of the release's own with another suite.

use std::path::Path;

use anyhow::{Context, Result, bail};

/// A file to write.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    /// Where.
    pub path: String,
    /// All of it.
    pub text: String,
}

/// The source file that is to be added to `apt` (`/etc/apt`), or none if backports are there.
pub fn missing_source(apt: &Path, codename: &str) -> Result<Option<Source>> {
    let backports = format!("{codename}-backports");
    let files = source_files(apt)?;
    if files.iter().any(|(_, text)| has_suite(text, &backports)) {
        return Ok(None);
    }
    for (style, text) in &files {
        if let Some(text) = style.with_suite(text, codename, &backports) {
            let path = apt.join("sources.list.d/machinist-backports");
            let path = format!("{}.{}", path.display(), style.ending());
            return Ok(Some(Source { path, text }));
        }
    }
    bail!("no apt source of {codename} to make one of {backports} from")
}

/// The two ways to write a source.
#[derive(Clone, Copy)]
enum Style {
    /// `deb [options] URI SUITE COMPONENT...`
    Line,
    /// `Types: deb`, `URIs: ...`
    Stanza,
}

impl Style {
    fn ending(self) -> &'static str {
        match self {
            Self::Line => "list",
            Self::Stanza => "sources",
        }
    }

    /// The first source of `suite` in `text`, as a source of `other`.
    fn with_suite(self, text: &str, suite: &str, other: &str) -> Option<String> {
        match self {
            Self::Line => text.lines().find_map(|line| {
                let line = line.trim();
                let mut words: Vec<&str> = line.split_whitespace().collect();
                let at = words.iter().position(|word| *word == suite)?;
                (words.first() == Some(&"deb")).then(|| {
                    words.truncate(at);
                    format!("{} {other} main\n", words.join(" "))
                })
            }),
            Self::Stanza => stanzas(text).find_map(|stanza| {
                let wanted = |line: &str| names_suite(line, suite);
                stanza.iter().any(|line| wanted(line)).then(|| {
                    let lines = stanza.iter().map(|line| rewrite(line, other));
                    lines.fold(String::new(), |text, line| text + &line + "\n")
                })
            }),
        }
    }
}

/// All sources that apt reads. Files with other endings are switched off.
fn source_files(apt: &Path) -> Result<Vec<(Style, String)>> {
    let mut paths = vec![apt.join("sources.list")];
    let dir = apt.join("sources.list.d");
    if let Ok(entries) = std::fs::read_dir(&dir) {
        for entry in entries {
            let entry = entry.with_context(|| format!("cannot read {}", dir.display()))?;
            paths.push(entry.path());
        }
    }
    paths.sort();
    let mut files = Vec::new();
    for path in paths {
        let style = match path.extension().and_then(|ending| ending.to_str()) {
            Some("list") => Style::Line,
            Some("sources") => Style::Stanza,
            _ => continue,
        };
        if let Ok(text) = std::fs::read_to_string(&path) {
            files.push((style, text));
        }
    }
    Ok(files)
}

fn has_suite(text: &str, suite: &str) -> bool {
    text.lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .any(|line| line.split_whitespace().any(|word| word == suite))
}

/// Blocks of lines that are not empty, without comments.
fn stanzas(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let blocks = lines
        .split(|line| line.trim().is_empty())
        .filter(|block| !block.is_empty())
        .map(<[&str]>::to_vec)
        .collect::<Vec<_>>();
    blocks.into_iter()
}

fn names_suite(line: &str, suite: &str) -> bool {
    line.strip_prefix("Suites:")
        .is_some_and(|suites| suites.split_whitespace().any(|word| word == suite))
}

fn rewrite(line: &str, suite: &str) -> String {
    if line.starts_with("Suites:") {
        format!("Suites: {suite}")
    } else if line.starts_with("Types:") {
        "Types: deb".to_owned()
    } else {
        line.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STANZAS: &str = "Types: deb deb-src\n# a note\nURIs: http://mirror/debian\nSuites: bookworm bookworm-updates\n\
        Components: main\nSigned-By: /usr/share/keyrings/some.gpg\n\n\
        Types: deb\nURIs: http://mirror/debian-security\nSuites: bookworm-security\nComponents: main\n";

    fn apt(name: &str, text: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("sources.list.d")).unwrap();
        std::fs::write(dir.path().join(name), text).unwrap();
        dir
    }

    #[test]
    fn a_stanza_keeps_its_mirror_and_key() {
        let apt = apt("sources.list.d/debian.sources", STANZAS);
        let source = missing_source(apt.path(), "bookworm").unwrap().unwrap();
        assert!(source.path.ends_with("machinist-backports.sources"));
        assert_eq!(
            source.text,
            "Types: deb\nURIs: http://mirror/debian\nSuites: bookworm-backports\n\
             Components: main\nSigned-By: /usr/share/keyrings/some.gpg\n"
        );
    }

    #[test]
    fn a_line_keeps_its_options() {
        let text = "# deb http://old bookworm main\ndeb [signed-by=/k.gpg] http://mirror/debian bookworm main contrib\n";
        let apt = apt("sources.list", text);
        let source = missing_source(apt.path(), "bookworm").unwrap().unwrap();
        assert_eq!(
            source.text,
            "deb [signed-by=/k.gpg] http://mirror/debian bookworm-backports main\n"
        );
    }

    #[test]
    fn nothing_is_added_twice() {
        let apt = apt(
            "sources.list",
            "deb http://mirror bookworm-backports main\n",
        );
        assert_eq!(missing_source(apt.path(), "bookworm").unwrap(), None);
    }

    #[test]
    fn a_machine_without_sources_is_told() {
        let apt = apt("sources.list", "");
        assert!(missing_source(apt.path(), "bookworm").is_err());
    }
}
