//! What has to hold before anything is written.

use std::io;
use std::path::{Path, PathBuf};

use super::{NixHost, RegisterError, Request};
use crate::machines_file::{self, Files, HostFiles, LintKind, Listed, Machine, expand, lint};

/// The longest name of a file.
const NAME_MAX: usize = 255;

/// The words of an entry have a meaning for Nix, so they have none of their own.
pub(super) fn words(name: &str, machine: &Machine) -> Result<(), RegisterError> {
    let plain = |word: &str| {
        let fine = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        !word.is_empty() && word != "-" && word.chars().all(fine)
    };
    let key = |path: &str| path.starts_with('/') && !path.contains([' ', '\t', '#', ';']);
    let lists = [&machine.systems, &machine.features, &machine.mandatory];
    let mut words = lists.into_iter().flatten().map(String::as_str);
    if !plain(name) {
        return Err(RegisterError::Word(name.to_owned()));
    }
    if let Some(word) = words.find(|word| !plain(word)) {
        return Err(RegisterError::Word(word.to_owned()));
    }
    if let Some(path) = machine.ssh_key.as_deref().filter(|path| !key(path)) {
        return Err(RegisterError::Word(path.to_owned()));
    }
    if machine.max_jobs == 0 {
        return Err(RegisterError::NoJobs);
    }
    let length = machine.slot_name_length();
    if length > NAME_MAX {
        return Err(RegisterError::TooLong {
            uri: machine.uri.to_string(),
            over: length - NAME_MAX,
        });
    }
    Ok(())
}

/// Whether Nix looks into the file at all.
pub(super) fn is_included(host: &NixHost, file: &Path) -> Result<(), RegisterError> {
    let conf = host.conf()?;
    let (builders, set_by) = conf.builders(&host.directory);
    let expanded = expand(&builders, "builders", &host.files)
        .map_err(|error| RegisterError::Broken(error.into()))?;
    let missing = expanded.missing.iter().map(|(path, _)| path);
    // Where Nix's build hook looks.
    let mut looked_at = expanded
        .read
        .iter()
        .chain(missing)
        .map(|it| Path::new("/").join(it));
    if looked_at.any(|path| path == file) {
        return Ok(());
    }
    Err(RegisterError::NotIncluded {
        file: file.to_owned(),
        builders,
        set_by,
    })
}

/// A host's files, one of which is as it would be.
struct Changed<'a> {
    host: &'a HostFiles,
    file: &'a Path,
    text: &'a [u8],
}

impl Files for Changed<'_> {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        if Path::new("/").join(path) == self.file {
            return Ok(self.text.to_vec());
        }
        self.host.read(path)
    }
}

/// Reads all machines as they would be: the one that is asked for is among them, once, and none of the
/// others makes Nix stumble. `others` is the file without it. Returns what the user should know.
pub(super) fn result(
    host: &NixHost,
    file: &Path,
    request: &Request,
    text: &[u8],
    others: &[u8],
) -> Result<Vec<String>, RegisterError> {
    let (builders, _) = host.conf()?.builders(&host.directory);
    let read = |text| {
        let files = Changed {
            host: &host.files,
            file,
            text,
        };
        machines_file::parse(&builders, "builders", &host.system, &files)
            .map_err(RegisterError::Broken)
    };
    let same = |it: &Listed| it.machine.uri == request.machine.uri;
    if let Some(other) = read(others)?.into_iter().find(same) {
        return Err(RegisterError::Twice {
            place: other.entry.place,
            entry: other.entry.text,
        });
    }
    let listed = read(text)?;
    if !listed.iter().any(|it| it.machine == request.machine) {
        return Err(RegisterError::NotRead(request.machine.entry()));
    }
    Ok(remarks(host, &listed, request))
}

fn remarks(host: &NixHost, listed: &[Listed], request: &Request) -> Vec<String> {
    let mut remarks = Vec::new();
    if let Some((builders, place)) = host.asked_for() {
        remarks.push(match builders.is_empty() {
            true => format!("{place} sets builders to nothing: your own builds go to no machine"),
            false => format!("{place} sets builders to '{builders}': if the daemon trusts you, your own builds go there instead"),
        });
    }
    let rivals = listed.iter().filter(|it| {
        let other = &it.machine;
        other.uri != request.machine.uri
            && !other.systems.is_disjoint(&request.machine.systems)
            && other.mandatory == request.machine.mandatory
    });
    for rival in rivals {
        remarks.push(format!(
            "{} has a machine for the same builds, which Nix shares among them: {}",
            rival.entry.place, rival.machine.uri
        ));
    }
    let expanded = machines_file::Expanded::default();
    for found in lint(&expanded, listed) {
        if !matches!(found.kind, LintKind::Duplicate(_)) {
            remarks.push(format!("{}: {}", found.place, found.kind));
        }
    }
    remarks
}

/// Whether a program may stand in an entry: Nix's daemon runs it as root, for years, by this path.
///
/// # Errors
/// It may not.
pub fn program(path: &Path, files: &HostFiles) -> Result<(), RegisterError> {
    let unfit = |why: String| RegisterError::Program {
        path: path.to_owned(),
        why,
    };
    let Some(text) = path.to_str() else {
        return Err(unfit("its path is no UTF-8".into()));
    };
    if !path.is_absolute() {
        return Err(unfit("its path is not absolute".into()));
    }
    if text.contains(|c: char| c.is_whitespace()) {
        return Err(unfit(
            "its path has a blank, at which Nix would take it apart".into(),
        ));
    }
    if path.starts_with("/nix/store") {
        return Err(unfit("Nix's garbage collection would remove it".into()));
    }
    if ["/tmp", "/var/tmp", "/run/user"]
        .iter()
        .any(|it| path.starts_with(it))
    {
        return Err(unfit("it lies among temporary files".into()));
    }
    let found: PathBuf = files.find(path);
    let runs = found.is_file() && rustix::fs::access(&found, rustix::fs::Access::EXEC_OK).is_ok();
    if !runs {
        return Err(unfit("it is no program".into()));
    }
    Ok(())
}
