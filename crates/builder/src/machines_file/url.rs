//! URLs by RFC 3986, as Boost.URL takes them apart and Nix puts them together again: what may stand as
//! it is, and what gets a percent sign, is part of a machine's name.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

/// A URL whose parts are encoded as Nix encodes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Url {
    pub(super) scheme: String,
    /// Empty also where there is none.
    pub(super) authority: String,
    pub(super) path: String,
    /// Decoded.
    pub(super) query: Query,
}

/// Parameters by name, without percent signs. They need not be UTF-8.
pub(super) type Query = BTreeMap<Vec<u8>, Vec<u8>>;

const SUB_DELIMS: &str = "!$&'()*+,;=";

/// A whole URL, with a scheme. In queries, blanks and `"` may stand as they are.
pub(super) fn parse(text: &str) -> Option<Url> {
    let (base, query) = match text.split_once('?') {
        Some((base, query)) => (base, decode_query(query)?),
        None => (text, Query::new()),
    };
    let (scheme, rest) = base.split_once(':')?;
    let mut letters = scheme.bytes();
    if !letters.next()?.is_ascii_alphabetic()
        || !letters.all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
    {
        return None;
    }
    let (host, authority, path) = match rest.strip_prefix("//") {
        Some(rest) => {
            let end = rest.find('/').unwrap_or(rest.len());
            let (host, authority) = parse_authority(&rest[..end])?;
            (host, authority, &rest[end..])
        }
        None => (Vec::new(), String::new(), rest),
    };
    if !path
        .bytes()
        .all(|b| b == b'/' || b == b'%' || allowed(b, ":@"))
    {
        return None;
    }
    let segments = path.split('/').map(|it| Some(encode(&decode(it)?, ":@")));
    let mut path = segments.collect::<Option<Vec<_>>>()?.join("/");
    let transport = scheme.split_once('+').map_or(scheme, |(_, after)| after);
    if transport == "file" {
        if !host.is_empty() {
            return None;
        }
        if path.is_empty() {
            "/".clone_into(&mut path);
        }
    }
    Some(Url {
        scheme: scheme.to_owned(),
        authority,
        path,
        query,
    })
}

/// The host, and all of it as Nix writes it.
fn parse_authority(text: &str) -> Option<(Vec<u8>, String)> {
    let (user, rest) = match text.split_once('@') {
        Some((user, rest)) => (Some(user), rest),
        None => (None, text),
    };
    let mut written = String::new();
    if let Some(user) = user {
        let (name, password) = match user.split_once(':') {
            Some((name, password)) => (name, Some(password)),
            None => (user, None),
        };
        written += &encode(&decode_of(name, "")?, "");
        if let Some(password) = password {
            written.push(':');
            written += &encode(&decode_of(password, ":")?, "");
        }
        written.push('@');
    }
    let (host, port) = if let Some(inner) = rest.strip_prefix('[') {
        let (address, port) = inner.split_once(']')?;
        let host = parse_literal(address)?;
        written += &format!("[{}]", encode(&host, ":"));
        (host, port)
    } else {
        let end = rest.find(':').unwrap_or(rest.len());
        let host = decode_of(&rest[..end], "")?;
        written += &encode(&host, "");
        (host, &rest[end..])
    };
    if !port.is_empty() {
        let digits = port.strip_prefix(':')?;
        if !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        if !digits.is_empty() {
            let number = digits.parse::<u16>().ok().filter(|port| *port != 0)?;
            written += &format!(":{number}");
        }
    }
    Some((host, written))
}

/// What stands in brackets: an IPv6 address, which may have a zone, or one of a future version.
fn parse_literal(text: &str) -> Option<Vec<u8>> {
    if let Some(future) = text.strip_prefix(['v', 'V']) {
        let (version, address) = future.split_once('.')?;
        let hex = !version.is_empty() && version.bytes().all(|b| b.is_ascii_hexdigit());
        let fine = !address.is_empty() && address.bytes().all(|b| allowed(b, ":"));
        return (hex && fine).then(|| text.into());
    }
    let (address, zone) = match text.split_once("%25") {
        Some((address, zone)) => (address, Some(zone)),
        None => (text, None),
    };
    address.parse::<Ipv6Addr>().ok()?;
    match zone {
        None => Some(address.into()),
        Some("") => None,
        Some(zone) => {
            let mut host = [address.as_bytes(), b"%", &decode_of(zone, "")?].concat();
            // Boost leaves the place that percent signs took.
            host.resize(text.len(), 0);
            Some(host)
        }
    }
}

/// Parameters by name. The first of a name counts; one without `=` does not. None if there is a
/// character that may not be there.
pub(super) fn decode_query(text: &str) -> Option<Query> {
    let mut query = Query::new();
    if !text.bytes().all(|b| b == b'%' || allowed(b, ":@/?[] \"")) {
        return None;
    }
    for param in text.split('&') {
        // Also those that do not count must be well-formed.
        let decoded = param.split_once('=').map(|(k, v)| (decode(k), decode(v)));
        match decoded {
            None => drop(decode(param)?),
            Some((key, value)) => {
                let (key, value) = (key?, value?);
                query.entry(key).or_insert(value);
            }
        }
    }
    Some(query)
}

/// Whether a character may stand in any part, or in this one.
fn allowed(byte: u8, also: &str) -> bool {
    unreserved(byte) || SUB_DELIMS.as_bytes().contains(&byte) || also.as_bytes().contains(&byte)
}

fn unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

fn decode_of(text: &str, also: &str) -> Option<Vec<u8>> {
    let fine = text.bytes().all(|b| b == b'%' || allowed(b, also));
    fine.then(|| decode(text)).flatten()
}

/// Without percent signs.
fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, after @ ..] = rest {
        rest = after;
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let [high, low, after @ ..] = rest else {
            return None;
        };
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let value = digit(*high)? * 16 + digit(*low)?;
        rest = after;
        bytes.push(u8::try_from(value).ok()?);
    }
    Some(bytes)
}

/// With a percent sign for each byte that is neither unreserved nor one of `keep`.
pub(super) fn encode(text: &[u8], keep: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for &byte in text {
        if unreserved(byte) || keep.as_bytes().contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded += &format!("%{byte:02X}");
        }
    }
    encoded
}

/// A path of the file system as one of a URL.
pub(super) fn encode_path(path: &str) -> String {
    encode(path.as_bytes(), ":@/")
}
