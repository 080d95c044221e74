//! mmdebstrap(1), which makes Debian roots: with apt of the host, in a quarter of debootstrap's time.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use super::Tool;

/// The first suite whose archive files may be older than they say: a testing suite that a mirror
/// has frozen would be refused otherwise.
const NO_VALID_UNTIL: &[&str] = &["forky", "testing", "sid", "unstable"];

/// How much of Debian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Variant<'a> {
    /// A root that boots: essential packages, apt, and what is included.
    MinBase,
    /// A copy of such a root, to which only what is included is added.
    CopyOf(&'a Path),
    /// The included packages and what they depend on, unpacked and never configured.
    Extract,
}

/// What to make.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) variant: Variant<'a>,
    pub(crate) suite: &'a str,
    pub(crate) packages: &'a [String],
    /// Where from; mmdebstrap's own choice for the suite where `None`.
    pub(crate) mirror: Option<&'a str>,
    /// The directory to make.
    pub(crate) target: &'a Path,
}

/// The tool for it.
pub(crate) fn tool(request: &Request<'_>) -> Tool {
    Tool {
        program: "mmdebstrap",
        package: "mmdebstrap",
        args: args(request),
        // It leaves its keyring's directory behind when it is killed.
        temporary: request.target.parent().map(Path::to_owned),
        isolated: true,
        hint,
    }
}

fn args(request: &Request<'_>) -> Vec<OsString> {
    let variant = match request.variant {
        Variant::MinBase => "minbase",
        Variant::CopyOf(_) => "custom",
        Variant::Extract => "extract",
    };
    let mut args: Vec<OsString> = vec![
        // Said, not guessed: it runs as root, of the host or of a user namespace.
        "--mode=root".into(),
        "--format=directory".into(),
        format!("--variant={variant}").into(),
        format!("--include={}", request.packages.join(",")).into(),
    ];
    if let Variant::CopyOf(root) = request.variant {
        args.push(copying(root));
    }
    if NO_VALID_UNTIL.contains(&request.suite) {
        args.push("--aptopt=Acquire::Check-Valid-Until \"false\"".into());
    }
    // Where there is no network this says so in seconds, not in minutes.
    args.push("--aptopt=Acquire::Retries \"2\"".into());
    args.push(request.suite.into());
    args.push(request.target.into());
    args.extend(request.mirror.map(OsString::from));
    args
}

/// The option that has a shell copy `root` before any package comes: by a hook, since a target with
/// device files in it is refused.
fn copying(root: &Path) -> OsString {
    let mut hook = b"--setup-hook=cp --archive --reflink=auto '".to_vec();
    for &byte in root.as_os_str().as_bytes() {
        match byte {
            b'\'' => hook.extend(br"'\''"),
            _ => hook.push(byte),
        }
    }
    hook.extend(br#"'/. "$1""#);
    OsString::from_vec(hook)
}

/// What mmdebstrap does, from a line of its output: `I: ` and a sentence. Its remarks about what it
/// chose are none of the user's concern.
pub(crate) fn step(line: &str) -> Option<&str> {
    let step = line.strip_prefix("I: ")?.trim_end_matches('.');
    if step.starts_with("running --setup-hook ") {
        return Some("copying the same without packages");
    }
    let doing = [
        "running ",
        "downloading ",
        "extracting ",
        "installing ",
        "cleaning ",
    ];
    doing
        .iter()
        .any(|word| step.starts_with(word))
        .then_some(step)
}

fn hint(said: &[String]) -> Option<String> {
    let has = |text: &str| said.iter().any(|line| line.contains(text));
    let unknown = said
        .iter()
        .find_map(|line| line.strip_prefix("E: Unable to locate package "));
    if let Some(package) = unknown {
        return Some(format!("this suite has no package {package:?}"));
    }
    if has("does not have a Release file") {
        return Some("is there a suite of that name?".to_owned());
    }
    if has("Could not resolve")
        || has("Temporary failure resolving")
        || has("Could not connect")
        || has("Connection timed out")
        || has("Network is unreachable")
    {
        return Some("the mirror cannot be reached: is there a network?".to_owned());
    }
    if has("NO_PUBKEY") || has("is not signed") {
        return Some("apt-get install debian-archive-keyring, or a newer one".to_owned());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(request: &Request<'_>) -> String {
        let words = args(request);
        let words = words.iter().map(|word| word.to_str().unwrap());
        words.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_root() {
        insta::assert_snapshot!(line(&Request {
            variant: Variant::MinBase,
            suite: "bookworm",
            packages: &["systemd".to_owned(), "nginx".to_owned()],
            mirror: None,
            target: Path::new("/cache/tmp/1/root"),
        }), @r#"
        --mode=root
        --format=directory
        --variant=minbase
        --include=systemd,nginx
        --aptopt=Acquire::Retries "2"
        bookworm
        /cache/tmp/1/root
        "#);
    }

    #[test]
    fn packages_for_a_root_that_is_there() {
        insta::assert_snapshot!(line(&Request {
            variant: Variant::CopyOf(Path::new("/it's/root")),
            suite: "bookworm",
            packages: &["nginx".to_owned()],
            mirror: None,
            target: Path::new("/cache/tmp/1/root"),
        }), @r#"
        --mode=root
        --format=directory
        --variant=custom
        --include=nginx
        --setup-hook=cp --archive --reflink=auto '/it'\''s/root'/. "$1"
        --aptopt=Acquire::Retries "2"
        bookworm
        /cache/tmp/1/root
        "#);
    }

    #[test]
    fn a_kernel_of_a_testing_suite_from_a_mirror() {
        insta::assert_snapshot!(line(&Request {
            variant: Variant::Extract,
            suite: "forky",
            packages: &["linux-image-amd64".to_owned()],
            mirror: Some("http://mirror.example/debian"),
            target: Path::new("/cache/tmp/1/tree"),
        }), @r#"
        --mode=root
        --format=directory
        --variant=extract
        --include=linux-image-amd64
        --aptopt=Acquire::Check-Valid-Until "false"
        --aptopt=Acquire::Retries "2"
        forky
        /cache/tmp/1/tree
        http://mirror.example/debian
        "#);
    }

    #[test]
    fn steps_are_what_it_does() {
        assert_eq!(
            step("I: downloading packages with apt..."),
            Some("downloading packages with apt")
        );
        assert_eq!(
            step("I: running --setup-hook in shell: sh -c 'cp --archive /x \"$1\"' exec /y"),
            Some("copying the same without packages")
        );
        assert_eq!(step("I: automatically chosen mode: root"), None);
        assert_eq!(step("E: mmdebstrap failed to run"), None);
    }

    #[test]
    fn hints() {
        let hint = |line: &str| hint(&[line.to_owned(), "E: mmdebstrap failed to run".to_owned()]);
        assert_eq!(
            hint("E: Unable to locate package ngnix").unwrap(),
            "this suite has no package \"ngnix\""
        );
        assert!(
            hint("E: Failed to fetch x  Could not connect to y")
                .unwrap()
                .contains("network")
        );
        assert!(
            hint("E: The repository 'x bookwurm Release' does not have a Release file.")
                .unwrap()
                .contains("suite")
        );
        assert_eq!(hint("E: something else"), None);
    }
}
