//! Where a machine's store is: the first column of an entry.

use std::fmt;
use std::net::Ipv6Addr;

use super::url::{self, Query, Url};

/// Words that stand for stores without being URIs.
const WORDS: [&str; 3] = ["auto", "daemon", "local"];

/// Which characters of parameters need no percent sign.
const IN_QUERY: &str = ":@/?";

/// A store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreUri {
    place: Place,
    params: Query,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Word(&'static str),
    /// The second is authority and path.
    Url(String, String),
}

/// It is no store's URI.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Nix can make no store of '{0}'")]
pub struct UriError(String);

impl StoreUri {
    /// As it stands in an entry: a host alone is reached by `ssh`, a path is a store in a directory.
    ///
    /// # Errors
    /// Nix could not read it.
    pub fn parse(text: &str) -> Result<Self, UriError> {
        let special = |word: &&str| {
            let rest = text.strip_prefix(*word);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('?'))
        };
        let whole = text.contains('/') || text.starts_with('?') || WORDS.iter().any(special);
        let text = if whole {
            text.to_owned()
        } else {
            format!("ssh://{text}")
        };
        Self::of_reference(&text).ok_or(UriError(text))
    }

    /// One of a scheme, an authority with a path, and parameters.
    #[must_use]
    pub fn new(scheme: &str, authority: &str, params: &[(&str, &str)]) -> Self {
        let owned = |(key, value): &(&str, &str)| ((*key).into(), (*value).into());
        Self {
            place: Place::Url(scheme.to_owned(), authority.to_owned()),
            params: params.iter().map(owned).collect(),
        }
    }

    /// The part before `://`, if it has one.
    #[must_use]
    pub fn scheme(&self) -> Option<&str> {
        match &self.place {
            Place::Word(_) => None,
            Place::Url(scheme, _) => Some(scheme),
        }
    }

    /// What is between `://` and the parameters.
    #[must_use]
    pub fn authority(&self) -> &str {
        match &self.place {
            Place::Word(word) => word,
            Place::Url(_, authority) => authority,
        }
    }

    /// A parameter, without percent signs, if it is UTF-8.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&str> {
        let value = self.params.get(name.as_bytes())?;
        std::str::from_utf8(value).ok()
    }

    /// Whether Nix reaches it by running `ssh`.
    #[must_use]
    pub fn is_ssh(&self) -> bool {
        matches!(self.scheme(), Some("ssh" | "ssh-ng")) && self.authority() != "localhost"
    }

    /// The program that Nix runs in the place of `ssh`, if this is a machine that is reached so.
    #[must_use]
    pub fn local_program(&self) -> Option<&str> {
        let local = matches!(self.scheme(), Some("ssh" | "ssh-ng"));
        (local && self.authority() == "localhost")
            .then(|| self.param("remote-program"))
            .flatten()
    }

    fn of_reference(text: &str) -> Option<Self> {
        if let Some(url) = url::parse(text) {
            return Some(Self::of_url(url));
        }
        let (base, query) = match text.split_once('?') {
            Some((base, query)) => (base, url::decode_query(query)?),
            None => (text, Query::new()),
        };
        let place = match base {
            "" | "auto" => Place::Word("auto"),
            "daemon" if query.is_empty() => Place::Word("daemon"),
            "daemon" => Place::Url("unix".into(), String::new()),
            "local" if query.is_empty() => Place::Word("local"),
            "local" => Place::Url("local".into(), String::new()),
            path if path.contains('/') && !path.contains("://") => {
                Place::Url("local".into(), url::encode_path(&canonical(path)))
            }
            other => bare_ipv6(other)?,
        };
        Some(Self {
            place,
            params: query,
        })
    }

    fn of_url(url: Url) -> Self {
        Self {
            place: Place::Url(url.scheme, url.authority + &url.path),
            params: url.query,
        }
    }
}

/// What Nix calls it: in its messages, and in the names of its slots.
impl fmt::Display for StoreUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Word(word) => f.write_str(word)?,
            Place::Url(scheme, authority) => write!(f, "{scheme}://{authority}")?,
        }
        for (number, (key, value)) in self.params.iter().enumerate() {
            let before = if number == 0 { '?' } else { '&' };
            let (key, value) = (url::encode(key, IN_QUERY), url::encode(value, IN_QUERY));
            write!(f, "{before}{key}={value}")?;
        }
        Ok(())
    }
}

/// An address without brackets, or with a zone after a bare `%`, as older versions took them.
fn bare_ipv6(text: &str) -> Option<Place> {
    let (scheme, authority) = text.split_once(':')?;
    let authority = authority.strip_prefix("//").unwrap_or(authority);
    let (user, host) = match authority.split_once('@') {
        Some((user, host)) => (format!("{user}@"), host),
        None => (String::new(), authority),
    };
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let (address, zone) = match bare.unwrap_or(host).split_once('%') {
        Some((address, zone)) => (address, format!("%25{zone}")),
        None => (bare.unwrap_or(host), String::new()),
    };
    address.parse::<Ipv6Addr>().ok()?;
    Some(Place::Url(
        scheme.to_owned(),
        format!("{user}[{address}{zone}]"),
    ))
}

/// A path from `/` on, where the build hook is, without `.`, `..` and double slashes.
fn canonical(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}
