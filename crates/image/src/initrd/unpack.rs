//! What kernels and their modules are compressed with.

use std::io::{Cursor, Read};

/// The largest thing that we unpack, in bytes: far beyond any kernel.
const LIMIT: u64 = 1 << 30;

/// Something cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// Nothing that we know.
    #[error("unknown compression (it begins with {0:02x?})")]
    Unknown([u8; 6]),
    /// Damaged.
    #[error("damaged {format} data: {message}")]
    Damaged {
        /// The compression.
        format: &'static str,
        /// What its decoder says.
        message: String,
    },
    /// A gigabyte or more.
    #[error("too large when unpacked")]
    TooLarge,
}

/// Unpacks `data`, which may be xz, zstd, gzip, or lz4 in the kernel's old frame. ELF passes as it
/// is. What follows the end of the data (the kernel appends its size) is no error.
pub(crate) fn unpack(data: &[u8]) -> Result<Vec<u8>, UnpackError> {
    let unpacked = match data {
        [0x7f, b'E', b'L', b'F', ..] => data.to_vec(),
        [0x1f, 0x8b, ..] => drain("gzip", flate2::read::GzDecoder::new(data))?,
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
            drain("xz", lzma_rust2::XzReader::new(data, false))?
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let decoder = ruzstd::decoding::StreamingDecoder::new(data)
                .map_err(|error| damaged("zstd", error))?;
            drain("zstd", decoder)?
        }
        [0x02, 0x21, 0x4c, 0x18, ..] => lz4_legacy(&data[4..])?,
        _ => {
            let mut first = [0; 6];
            for (to, from) in first.iter_mut().zip(data) {
                *to = *from;
            }
            return Err(UnpackError::Unknown(first));
        }
    };
    Ok(unpacked)
}

fn damaged(format: &'static str, error: impl std::fmt::Display) -> UnpackError {
    UnpackError::Damaged {
        format,
        message: error.to_string(),
    }
}

fn drain(format: &'static str, reader: impl Read) -> Result<Vec<u8>, UnpackError> {
    let mut out = Vec::new();
    let count = reader
        .take(LIMIT)
        .read_to_end(&mut out)
        .map_err(|error| damaged(format, error))?;
    if count as u64 == LIMIT {
        return Err(UnpackError::TooLarge);
    }
    Ok(out)
}

/// lz4's legacy frame (`lz4_Frame_format.md`, "Legacy frame"): blocks of up to 8 MiB unpacked, each
/// after its packed size. All but the last are full, so the first that is not ends it.
fn lz4_legacy(data: &[u8]) -> Result<Vec<u8>, UnpackError> {
    const BLOCK: usize = 8 << 20;
    let mut input = Cursor::new(data);
    let mut out = Vec::new();
    let mut block = vec![0; BLOCK];
    loop {
        let mut size = [0; 4];
        if input.read_exact(&mut size).is_err() {
            return Ok(out);
        }
        let from = usize::try_from(input.position()).unwrap_or(usize::MAX);
        let size = u32::from_le_bytes(size) as usize;
        let packed = data
            .get(from..)
            .and_then(|rest| rest.get(..size))
            .ok_or_else(|| damaged("lz4", "it ends inside of a block"))?;
        let count = lz4_flex::block::decompress_into(packed, &mut block)
            .map_err(|error| damaged("lz4", error))?;
        out.extend_from_slice(&block[..count]);
        if out.len() as u64 > LIMIT {
            return Err(UnpackError::TooLarge);
        }
        if count < BLOCK {
            return Ok(out);
        }
        input.set_position((from + size) as u64);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn gzip_with_something_after_it() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(b"a kernel").unwrap();
        let mut packed = encoder.finish().unwrap();
        packed.extend([8, 0, 0, 0]);
        assert_eq!(unpack(&packed).unwrap(), b"a kernel");
    }

    #[test]
    fn lz4_of_several_blocks() {
        let data: Vec<u8> = (0..9_000_000u32)
            .flat_map(u32::to_le_bytes)
            .take(9_000_000)
            .collect();
        let mut packed = vec![0x02, 0x21, 0x4c, 0x18];
        for block in data.chunks(8 << 20) {
            let block = lz4_flex::block::compress(block);
            packed.extend(u32::try_from(block.len()).unwrap().to_le_bytes());
            packed.extend(block);
        }
        packed.extend(9_000_000u32.to_le_bytes());
        assert!(unpack(&packed).unwrap() == data);
    }

    proptest! {
        #[test]
        fn rubbish_is_an_error_and_no_panic(
            start in prop::sample::select(vec![&[0x1f, 0x8b][..], b"\xfd7zXZ\0", &[0x28, 0xb5, 0x2f, 0xfd], &[2, 0x21, 0x4c, 0x18], &[]]),
            rest in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let data = [start, &rest].concat();
            // Any answer will do.
            drop(unpack(&data));
        }
    }
}
