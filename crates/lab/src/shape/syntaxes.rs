//! The syntaxes of strings in the lab file.

use super::Syntax;
use crate::types::{
    CdiName, Device, MachineName, Publish, Ready, Source, VlanId, Volume, WaitFor,
    check_guest_path, check_regex,
};
use crate::{Bytes, SyntaxError};

/// The check of a syntax is its parser.
fn parses<T: std::str::FromStr<Err = SyntaxError>>(text: &str) -> Result<(), SyntaxError> {
    text.parse::<T>().map(|_| ())
}

const fn syntax(
    what: &'static str,
    check: fn(&str) -> Result<(), SyntaxError>,
    examples: &'static [&'static str],
) -> Syntax {
    Syntax {
        what,
        check,
        examples,
    }
}

pub(super) static SIZE: Syntax = syntax("a size", parses::<Bytes>, &["512M", "2G", "1GiB"]);
pub(super) static SOURCE: Syntax = syntax(
    "a source",
    parses::<Source>,
    &["debian:bookworm", "host", "dir:PATH", "tar:PATH"],
);
pub(super) static IMAGE_REF: Syntax = syntax(
    "a source or an image",
    image_ref,
    &["debian:bookworm", "host", "dir:PATH", "tar:PATH"],
);
pub(super) static IMAGE_NAME: Syntax = syntax("the name of an image", image_name, &["app"]);
pub(super) static MACHINE_NAME: Syntax =
    syntax("the name of a machine", parses::<MachineName>, &["web"]);
pub(super) static VLAN_ID: Syntax = syntax("the number of a VLAN", parses::<VlanId>, &["1", "2"]);
pub(super) static READY: Syntax = syntax(
    "when it is ready",
    parses::<Ready>,
    &[
        "system",
        "agent",
        "unit:nginx.service",
        "command:test -e /ok",
    ],
);
pub(super) static PUBLISH: Syntax = syntax(
    "ports",
    parses::<Publish>,
    &["8080:80", "0.0.0.0:8080:80", "80"],
);
pub(super) static DEVICE: Syntax = syntax("a device node", parses::<Device>, &["/dev/fuse"]);
pub(super) static CDI: Syntax = syntax(
    "a CDI device",
    parses::<CdiName>,
    &["nvidia.com/gpu=0", "vendor.com/class=name"],
);
pub(super) static VOLUME_TEXT: Syntax = syntax(
    "a volume",
    parses::<Volume>,
    &["./site:/srv/site", "./data:/data:rw"],
);
pub(super) static WAIT: Syntax = syntax(
    "what to wait for",
    parses::<WaitFor>,
    &["port:80", "unit:nginx.service", "file:/run/ok"],
);
pub(super) static GUEST_PATH: Syntax =
    syntax("a path in the machine", check_guest_path, &["/etc/motd"]);
pub(super) static REGEX: Syntax = syntax("a regular expression", check_regex, &["^ok$"]);
pub(super) static PACKAGE: Syntax = syntax("the name of a package", package, &["nginx", "curl"]);
pub(super) static ENV_NAME: Syntax = syntax("the name of a variable", env_name, &["LANG"]);
pub(super) static MODE: Syntax = syntax(
    "permission bits",
    |text| parse_mode(text).map(|_| ()),
    &["0644", "0755"],
);

fn image_ref(text: &str) -> Result<(), SyntaxError> {
    if Source::looks_like(text) {
        parses::<Source>(text)
    } else {
        image_name(text)
    }
}

fn image_name(text: &str) -> Result<(), SyntaxError> {
    let usable = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if text == "host" {
        let message = "`host` cannot be the name of an image: it is a source";
        return Err(SyntaxError::new(message, "choose another name"));
    }
    if text.is_empty() || text.starts_with(['.', '-']) || !text.chars().all(usable) {
        let message = format!("`{text}` cannot be the name of an image");
        return Err(SyntaxError::new(
            message,
            "letters, digits, `-`, `_` and `.`",
        ));
    }
    Ok(())
}

fn package(text: &str) -> Result<(), SyntaxError> {
    let usable = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.:".contains(c);
    let begins = text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    if text.len() < 2 || !begins || !text.chars().all(usable) {
        let message = format!("`{text}` is not the name of a Debian package");
        return Err(SyntaxError::new(
            message,
            "lower-case letters, digits, `+`, `-` and `.`",
        ));
    }
    Ok(())
}

fn env_name(text: &str) -> Result<(), SyntaxError> {
    let usable = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if text.is_empty()
        || text.starts_with(|c: char| c.is_ascii_digit())
        || !text.chars().all(usable)
    {
        let message = format!("`{text}` cannot be the name of a variable");
        return Err(SyntaxError::new(message, "letters, digits and `_`"));
    }
    Ok(())
}

/// Permission bits, in octal.
pub(crate) fn parse_mode(text: &str) -> Result<u32, SyntaxError> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| {
            *mode <= 0o7777 && text.len() >= 3 && text.bytes().all(|b| b.is_ascii_digit())
        })
        .ok_or_else(|| {
            let message = format!("`{text}` are no permission bits");
            SyntaxError::new(message, "write them in octal, such as \"0644\"")
        })
}
