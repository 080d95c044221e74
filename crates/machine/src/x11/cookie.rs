//! Keys to displays, as they lie in files called `.Xauthority`.

/// A key: the name of its kind, and its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cookie {
    pub(super) name: Vec<u8>,
    pub(super) data: Vec<u8>,
}

/// The kind of key that every server knows.
const KIND: &[u8] = b"MIT-MAGIC-COOKIE-1";

/// The keys in `files` (one or more, one after another) that are for `display`, or for any. What
/// makes no sense ends the list.
pub(super) fn for_display(files: &[u8], display: u32) -> Vec<Cookie> {
    let number = display.to_string();
    let mut rest = files;
    let mut cookies = Vec::new();
    while let Some((entry, after)) = entry(rest) {
        rest = after;
        let ours = entry.number.is_empty() || entry.number == number.as_bytes();
        let cookie = Cookie {
            name: entry.name.to_vec(),
            data: entry.data.to_vec(),
        };
        if ours && cookie.name == KIND && !cookies.contains(&cookie) {
            cookies.push(cookie);
        }
    }
    cookies
}

struct Entry<'a> {
    number: &'a [u8],
    name: &'a [u8],
    data: &'a [u8],
}

/// An entry is a family of two bytes, and four strings: address, display number, name, data.
fn entry(bytes: &[u8]) -> Option<(Entry<'_>, &[u8])> {
    let rest = bytes.get(2..)?;
    let (_address, rest) = counted(rest)?;
    let (number, rest) = counted(rest)?;
    let (name, rest) = counted(rest)?;
    let (data, rest) = counted(rest)?;
    Some((Entry { number, name, data }, rest))
}

/// A string behind its length of two bytes, the higher one first.
fn counted(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = u16::from_be_bytes([*bytes.first()?, *bytes.get(1)?]);
    let rest = &bytes[2..];
    (rest.len() >= length.into()).then(|| rest.split_at(length.into()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(number: &str, name: &[u8], data: &[u8]) -> Vec<u8> {
        let mut bytes = vec![1, 0];
        for part in [b"host", number.as_bytes(), name, data] {
            bytes.extend(u16::try_from(part.len()).unwrap().to_be_bytes());
            bytes.extend(part);
        }
        bytes
    }

    #[test]
    fn keys_of_the_display_are_found() {
        let mut file = entry("1", KIND, b"other");
        file.extend(entry("0", b"XDM-AUTHORIZATION-1", b"strange"));
        file.extend(entry("0", KIND, b"key"));
        file.extend(entry("", KIND, b"any"));
        file.extend(entry("0", KIND, b"key"));
        let found = for_display(&file, 0);
        let data: Vec<_> = found.iter().map(|cookie| cookie.data.as_slice()).collect();
        assert_eq!(data, [b"key", b"any"]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes: Vec<u8>) {
            for_display(&bytes, 0);
        }
    }
}
