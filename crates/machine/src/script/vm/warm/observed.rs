//! What a script has started, as far as a snapshot of it depends on that.
//!
//! What a script does is known when it is done: the QEMU that runs then, its command line and its
//! disks. A snapshot keeps that of the machine that was saved, and a QEMU that waits to be given
//! its state is compared with it first.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::named;
use crate::qemu::qmp::Qmp;
use crate::script::ScriptSpec;

/// A QEMU that a script started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Observed {
    /// Its program: a path whose contents never change, or the hash of them.
    program: String,
    /// Its arguments, ours not among them; places of this run are called by what they are for.
    arguments: Vec<String>,
    /// The files that it uses and that can change, with the hashes of their contents.
    files: BTreeMap<PathBuf, String>,
    /// Whether it uses KVM.
    pub(super) kvm: bool,
    /// Bytes of memory that the guest starts with.
    pub(super) memory: u64,
}

/// What is looked at by whoever observes.
pub(super) struct Look<'a> {
    pub(super) spec: &'a ScriptSpec,
    pub(super) qmp: &'a Qmp,
    /// The process.
    pub(super) pid: u32,
    /// The arguments that we added.
    pub(super) ours: &'a [OsString],
    /// The hash of a file's contents.
    pub(super) digest: &'a (dyn Fn(&Path) -> Result<String, String> + Sync),
}

impl Observed {
    /// Looks at a QEMU that runs, or waits; tells also the files that it may write to. `Err` says
    /// in one sentence why no snapshot can be made of it.
    pub(super) async fn of(look: &Look<'_>) -> Result<(Self, BTreeSet<PathBuf>), String> {
        let words = command_line(look.pid).map_err(|error| error.to_string())?;
        let own = without(&words, look.ours)
            .ok_or("its script does not hand on its arguments as they are")?;
        if let Some(word) = own.iter().find_map(|word| unfit(&word.to_string_lossy())) {
            return Err(word);
        }
        let ask = async |command| {
            let answer = look.qmp.query(command).await;
            answer.map_err(|error| crate::error::chain(&error))
        };
        let memory = ask("query-memory-size-summary").await?["base-memory"].as_u64();
        let memory = memory.ok_or("QEMU does not tell how much memory it has")?;
        let kvm = ask("query-kvm").await?["enabled"].as_bool();
        let cwd = fs::read_link(format!("/proc/{}/cwd", look.pid)).unwrap_or_default();
        let (mut used, written) = disks(&ask("query-block").await?, &cwd, &look.spec.state_dir)?;
        for word in &own {
            used.extend(named::files(&word.to_string_lossy()));
        }
        used.retain(|path| {
            !named::is_fixed(path)
                && !path.starts_with(&look.spec.state_dir)
                && !path.starts_with(&look.spec.shared_dir)
        });
        let hash = |path: PathBuf| Ok((path.clone(), (look.digest)(&path)?));
        let observed = Self {
            program: program(look.pid, look.digest)?,
            arguments: own
                .iter()
                .map(|word| general(&word.to_string_lossy(), look.spec))
                .collect(),
            files: used.into_iter().map(hash).collect::<Result<_, String>>()?,
            kvm: kvm.unwrap_or_default(),
            memory,
        };
        Ok((observed, written))
    }

    /// In what another, which was saved, differs from this one.
    pub(super) fn difference(&self, saved: &Self) -> Option<String> {
        if self.program != saved.program {
            return Some("its QEMU is another".to_owned());
        }
        if self.kvm != saved.kvm {
            let word = if self.kvm { "with" } else { "without" };
            return Some(format!("it runs {word} KVM this time"));
        }
        if self.arguments != saved.arguments {
            let pairs = self.arguments.iter().zip(&saved.arguments);
            let at = pairs.take_while(|(ours, theirs)| ours == theirs).count();
            let word = |list: &[String]| list.get(at).cloned().unwrap_or_default();
            let (ours, theirs) = (word(&self.arguments), word(&saved.arguments));
            return Some(format!(
                "QEMU's arguments are others: {ours:?} instead of {theirs:?}"
            ));
        }
        if self.files != saved.files {
            let changed = |(path, hash): &(&PathBuf, &String)| saved.files.get(*path) != Some(hash);
            let path = self.files.iter().find(changed).map(|(path, _)| path);
            let path = path.or_else(|| saved.files.keys().next());
            return Some(format!(
                "{} has changed",
                path.map_or_else(String::new, |path| path.display().to_string())
            ));
        }
        (self.memory != saved.memory).then(|| "it has another size of memory".to_owned())
    }
}

fn command_line(pid: u32) -> std::io::Result<Vec<OsString>> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline"))?;
    let words = bytes.split(|&byte| byte == 0);
    let mut words: Vec<_> = words
        .map(|word| OsString::from_vec(word.to_vec()))
        .collect();
    words.pop();
    Ok(words)
}

/// The words without the first, which is the program, and without ours, which stand together.
fn without(words: &[OsString], ours: &[OsString]) -> Option<Vec<OsString>> {
    let words = words.get(1..)?;
    let at = words.windows(ours.len()).position(|some| some == ours)?;
    let mut rest = words[..at].to_vec();
    rest.extend_from_slice(&words[at + ours.len()..]);
    Some(rest)
}

/// Why a QEMU with this word among its own arguments cannot be saved or restored.
fn unfit(word: &str) -> Option<String> {
    let reason = match word {
        _ if word.contains("vhost-user") => {
            "by vhost-user (virtiofs) another process has a hand on its memory"
        }
        _ if word.starts_with("vfio") => "it has a device of the host",
        _ if word.starts_with("usb-host") => "it has an USB device of the host",
        "-mem-path" => "its script says where its memory is",
        "-incoming" | "-loadvm" => "its script restores it from something else",
        "-snapshot" => "its script puts its disks where nobody finds them",
        "-icount" => "its clock counts instructions",
        _ => return None,
    };
    Some(reason.to_owned())
}

/// An argument without what is of this run alone.
fn general(word: &str, spec: &ScriptSpec) -> String {
    let mut word = word.to_owned();
    let mut replace = |path: &Path, name: &str| {
        let path = path.to_string_lossy();
        if !path.is_empty() {
            word = word.replace(path.as_ref(), name);
        }
    };
    for (vlan, socket) in &spec.vlan_sockets {
        replace(socket, &format!("$QEMU_VDE_SOCKET_{vlan}"));
    }
    replace(&spec.shared_dir, "$SHARED_DIR");
    replace(&spec.state_dir, "$TMPDIR");
    word
}

fn program(
    pid: u32,
    digest: &(dyn Fn(&Path) -> Result<String, String> + Sync),
) -> Result<String, String> {
    let link = format!("/proc/{pid}/exe");
    let path = fs::read_link(&link).map_err(|error| format!("{link}: {error}"))?;
    if named::is_fixed(&path) {
        return Ok(path.display().to_string());
    }
    digest(&path)
}

/// The files that QEMU's disks are, and those below them; and those of them that it may write to.
/// These are in the state directory, or cannot be a part of a snapshot.
fn disks(
    blocks: &Value,
    cwd: &Path,
    state: &Path,
) -> Result<(BTreeSet<PathBuf>, BTreeSet<PathBuf>), String> {
    let (mut files, mut written) = (BTreeSet::new(), BTreeSet::new());
    for disk in blocks.as_array().into_iter().flatten() {
        let inserted = &disk["inserted"];
        let Some(name) = inserted["file"].as_str() else {
            continue;
        };
        let file = cwd.join(name);
        let writable = inserted["ro"] == false;
        let inside = fs::canonicalize(&file).is_ok_and(|file| {
            file.starts_with(fs::canonicalize(state).unwrap_or_else(|_| state.to_owned()))
        });
        if writable && !inside {
            return Err(format!(
                "its disk {name} is outside of its state directory, and can be written to"
            ));
        }
        if !file.is_file() {
            return Err(format!("its disk {name} is no file"));
        }
        if writable {
            written.insert(file.clone());
        }
        files.insert(file);
        below(&inserted["image"], cwd, &mut files);
    }
    Ok((files, written))
}

fn below(image: &Value, cwd: &Path, files: &mut BTreeSet<PathBuf>) {
    let backing = &image["backing-image"];
    if let Some(name) = backing["filename"].as_str() {
        files.insert(cwd.join(name));
        below(backing, cwd, files);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::script::ScriptKind;

    fn words(text: &str) -> Vec<OsString> {
        text.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn ours_are_taken_out_where_they_stand_together() {
        let ours = words("-qmp q -monitor m");
        let all = words("qemu -m 512 -qmp q -monitor m -cpu max");
        assert_eq!(without(&all, &ours), Some(words("-m 512 -cpu max")));
        let mangled = words("qemu -m 512 -monitor m -qmp q");
        assert_eq!(without(&mangled, &ours), None);
    }

    #[test]
    fn places_of_a_run_have_general_names() {
        let spec = ScriptSpec {
            name: "web".into(),
            kind: ScriptKind::Vm,
            command: "/bin/run-web-vm".into(),
            state_dir: "/tmp/s/vm-state-web".into(),
            shared_dir: "/tmp/s/shared-xchg".into(),
            keep_state: false,
            vlan_sockets: [(1, "/run/x/v0".into())].into(),
            display: false,
            start_within: Duration::from_secs(1),
            warm: false,
            variables: std::sync::Arc::default(),
        };
        let general = |word| general(word, &spec);
        assert_eq!(
            general("local,path=/tmp/s/vm-state-web/xchg,mount_tag=xchg"),
            "local,path=$TMPDIR/xchg,mount_tag=xchg"
        );
        assert_eq!(general("/tmp/s/shared-xchg"), "$SHARED_DIR");
        assert_eq!(general("vde,sock=/run/x/v0"), "vde,sock=$QEMU_VDE_SOCKET_1");
    }

    #[test]
    fn what_can_be_written_is_in_the_state_directory() {
        let state = tempfile::tempdir().unwrap();
        let base = tempfile::NamedTempFile::new().unwrap();
        fs::write(state.path().join("web.qcow2"), "").unwrap();
        let disk = |file: &str, ro: bool| {
            json!([{"device": "d"}, {"inserted": {"file": file, "ro": ro, "image": {
                "backing-image": {"filename": base.path()}}}}])
        };
        let (found, written) =
            disks(&disk("web.qcow2", false), state.path(), state.path()).unwrap();
        let own = state.path().join("web.qcow2");
        assert_eq!(found, [own.clone(), base.path().to_owned()].into());
        assert_eq!(written, [own].into());
        let outside = base.path().to_str().unwrap();
        assert!(disks(&disk(outside, true), state.path(), state.path()).is_ok());
        let error = disks(&disk(outside, false), state.path(), state.path()).unwrap_err();
        assert!(error.contains("outside of its state directory"), "{error}");
        let error = disks(&disk("nbd://x", true), state.path(), state.path()).unwrap_err();
        assert!(error.contains("is no file"), "{error}");
    }

    #[test]
    fn a_difference_is_named() {
        let saved = Observed {
            program: "q".into(),
            arguments: vec!["-m".into(), "512".into()],
            files: [("/a".into(), "1".into())].into(),
            kvm: false,
            memory: 1,
        };
        assert_eq!(saved.difference(&saved), None);
        let other = |change: fn(&mut Observed)| {
            let mut other = saved.clone();
            change(&mut other);
            other.difference(&saved).unwrap()
        };
        assert_eq!(other(|it| it.program = "r".into()), "its QEMU is another");
        assert_eq!(
            other(|it| it.arguments[1] = "1024".into()),
            "QEMU's arguments are others: \"1024\" instead of \"512\""
        );
        assert_eq!(
            other(|it| {
                it.files.insert("/a".into(), "2".into());
            }),
            "/a has changed"
        );
        assert_eq!(other(|it| it.files.clear()), "/a has changed");
        assert_eq!(other(|it| it.kvm = true), "it runs with KVM this time");
        assert_eq!(other(|it| it.memory = 2), "it has another size of memory");
    }
}
