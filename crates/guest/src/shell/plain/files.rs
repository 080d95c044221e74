//! A tree as the guest's shell prints it, made one as the agent would send it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use machinist_wire::Blob;
use machinist_wire::tree::{Entry, MAX_CHUNK, Meta, encode_entry};

/// Makes the records of a tree from the lines of [`super::script::get`]. None where they make no
/// sense. Whether the tree itself does, who unpacks it decides.
pub(super) fn records(printed: &[u8]) -> Option<Vec<u8>> {
    let mut records = Vec::new();
    for line in std::str::from_utf8(printed).ok()?.lines() {
        entry(line, &mut records)?;
    }
    records.extend(encode_entry(&Entry::End));
    Some(records)
}

fn entry(line: &str, records: &mut Vec<u8>) -> Option<()> {
    let (head, rest) = line.split_once(": ")?;
    let mut words = head.split(' ');
    let kind = words.next()?;
    let meta = Meta {
        mode: u32::from_str_radix(words.next()?, 8).ok()?,
        uid: words.next()?.parse().ok()?,
        gid: words.next()?.parse().ok()?,
        mtime: words.next()?.parse().ok()?,
        mtime_nanos: 0,
    };
    let path = Blob(STANDARD.decode(words.next().unwrap_or_default()).ok()?);
    let mut contents = STANDARD.decode(rest.trim()).ok()?;
    let entry = match kind {
        "d" => Entry::Directory { path, meta },
        "f" => Entry::File {
            path,
            meta,
            size: contents.len() as u64,
        },
        "l" => {
            // `readlink` ends it.
            contents.pop_if(|byte| *byte == b'\n');
            Entry::Link {
                path,
                meta,
                target: Blob(std::mem::take(&mut contents)),
            }
        }
        "s" => Entry::Special {
            path,
            kind: "special file".to_owned(),
        },
        _ => return None,
    };
    records.extend(encode_entry(&entry));
    let mut offset = 0;
    for piece in contents.chunks(MAX_CHUNK as usize) {
        let length = piece.len() as u32;
        records.extend(encode_entry(&Entry::Data { offset, length }));
        records.extend_from_slice(piece);
        offset += u64::from(length);
    }
    Some(())
}
