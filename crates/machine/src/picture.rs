//! Pictures: from the format that every QEMU writes to the one that everybody reads.

use std::io::Write;

use flate2::Compression;
use flate2::Crc;
use flate2::write::ZlibEncoder;

const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

/// Makes a PNG of a PPM with one byte for each colour. None where it is something else.
pub(crate) fn png_of_ppm(ppm: &[u8]) -> Option<Vec<u8>> {
    let mut rest = ppm.strip_prefix(b"P6")?;
    let mut number = || {
        let (value, after) = number(rest)?;
        rest = after;
        Some(value)
    };
    let (width, height, most) = (number()?, number()?, number()?);
    // One white space stands between the header and the pixels.
    let pixels = rest.get(1..)?;
    let row = usize::try_from(width).ok()?.checked_mul(3)?;
    let rows = usize::try_from(height).ok()?;
    if most != 255 || row == 0 || rows == 0 || pixels.len() != row.checked_mul(rows)? {
        return None;
    }
    let mut packer = ZlibEncoder::new(Vec::new(), Compression::fast());
    for line in pixels.chunks_exact(row) {
        // Without a filter.
        packer.write_all(&[0]).ok()?;
        packer.write_all(line).ok()?;
    }
    let mut header = Vec::new();
    header.extend_from_slice(&width.to_be_bytes());
    header.extend_from_slice(&height.to_be_bytes());
    // Eight bits, true colour, and the only methods there are.
    header.extend_from_slice(&[8, 2, 0, 0, 0]);
    let mut png = SIGNATURE.to_vec();
    chunk(&mut png, *b"IHDR", &header);
    chunk(&mut png, *b"IDAT", &packer.finish().ok()?);
    chunk(&mut png, *b"IEND", &[]);
    Some(png)
}

/// A number behind white space and comments, and what stands after it.
fn number(text: &[u8]) -> Option<(u32, &[u8])> {
    let mut rest = text;
    loop {
        match rest.first()? {
            b'#' => {
                let end = rest.iter().position(|&byte| byte == b'\n')?;
                rest = &rest[end..];
            }
            byte if byte.is_ascii_whitespace() => rest = &rest[1..],
            _ => break,
        }
    }
    let end = rest
        .iter()
        .position(|byte| !byte.is_ascii_digit())
        .unwrap_or(rest.len());
    let value = std::str::from_utf8(&rest[..end]).ok()?.parse().ok()?;
    Some((value, &rest[end..]))
}

fn chunk(png: &mut Vec<u8>, kind: [u8; 4], data: &[u8]) {
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    png.extend_from_slice(&length.to_be_bytes());
    let mut crc = Crc::new();
    crc.update(&kind);
    crc.update(data);
    png.extend_from_slice(&kind);
    png.extend_from_slice(data);
    png.extend_from_slice(&crc.sum().to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_keeps_its_pixels() {
        let ppm = b"P6\n# by QEMU\n2 1\n255\n\x01\x02\x03\x0a\x0b\x0c";
        let png = png_of_ppm(ppm).unwrap();
        assert!(png.starts_with(SIGNATURE));
        assert_eq!(&png[12..16], b"IHDR");
        assert_eq!(&png[16..29], [0, 0, 0, 2, 0, 0, 0, 1, 8, 2, 0, 0, 0]);
        let at = png.windows(4).position(|it| it == b"IDAT").unwrap();
        let mut unpacked = Vec::new();
        let mut reader = flate2::read::ZlibDecoder::new(&png[at + 4..]);
        std::io::Read::read_to_end(&mut reader, &mut unpacked).unwrap();
        assert_eq!(unpacked, b"\x00\x01\x02\x03\x0a\x0b\x0c");
        assert!(png.ends_with(b"IEND\xae\x42\x60\x82"));
    }

    #[test]
    fn what_is_no_picture_gives_none() {
        for wrong in [
            b"".as_slice(),
            b"P5 1 1 255 x",
            b"P6 1 1 255 xx",
            b"P6 1 1 65535 xxxxxx",
            b"P6 0 0 255 ",
            b"P6 99999999999 1 255 ",
            b"P6 4294967295 4294967295 255 x",
        ] {
            assert_eq!(png_of_ppm(wrong), None, "{wrong:?}");
        }
    }
}
