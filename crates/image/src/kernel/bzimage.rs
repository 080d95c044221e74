//! Taking the kernel out of a bzImage.
//!
//! Under emulation the kernel's own unpacking of itself takes a second of each boot. QEMU starts an
//! uncompressed kernel as well, where that has the PVH entry point (an ELF note).
//!
//! The format: the kernel's `Documentation/arch/x86/boot.rst`, "The Real-Mode Kernel Header". The
//! note: `include/xen/interface/elfnote.h`, `XEN_ELFNOTE_PHYS32_ENTRY`.

use crate::initrd::unpack::unpack;

/// The kernel as an ELF file that QEMU can start, or `None` where this is no bzImage, or packed in a
/// way that we do not know, or without the entry point.
pub(crate) fn vmlinux(image: &[u8]) -> Option<Vec<u8>> {
    let elf = unpack(payload(image)?).ok()?;
    has_pvh_entry(&elf).then_some(elf)
}

/// The packed kernel inside of a bzImage.
fn payload(image: &[u8]) -> Option<&[u8]> {
    /// Of the boot protocol, from which on the header says where the payload is.
    const PROTOCOL: u16 = 0x0208;
    if image.get(0x202..0x206)? != b"HdrS" || u16_at(image, 0x206)? < PROTOCOL {
        return None;
    }
    // Zero means four, for reasons of history.
    let sectors = match *image.get(0x1f1)? {
        0 => 4,
        count => usize::from(count),
    };
    let offset = u32_at(image, 0x248)?;
    let length = u32_at(image, 0x24c)?;
    image
        .get((sectors + 1) * 512..)?
        .get(offset..)?
        .get(..length)
}

/// Whether a 64-bit ELF file has the note with the PVH entry point.
fn has_pvh_entry(elf: &[u8]) -> bool {
    const SEGMENT_NOTE: usize = 4;
    let notes = || {
        if elf.get(..6)? != b"\x7fELF\x02\x01" {
            return None;
        }
        let table = u64_at(elf, 0x20)?;
        let size = usize::from(u16_at(elf, 0x36)?);
        let count = usize::from(u16_at(elf, 0x38)?);
        for index in 0..count {
            let header = elf.get(table.checked_add(index * size)?..)?;
            if u32_at(header, 0)? == SEGMENT_NOTE {
                let start = u64_at(header, 0x08)?;
                let length = u64_at(header, 0x20)?;
                return elf.get(start..)?.get(..length);
            }
        }
        None
    };
    notes().is_some_and(is_pvh_among)
}

/// Notes are: size of the name, size of the value, type, name, value; each padded to four bytes.
fn is_pvh_among(mut notes: &[u8]) -> bool {
    const PHYS32_ENTRY: usize = 18;
    let mut next = || {
        let name_size = u32_at(notes, 0)?;
        let value_size = u32_at(notes, 4)?;
        let kind = u32_at(notes, 8)?;
        let name = notes.get(12..)?.get(..name_size)?;
        let value = 12 + name_size.checked_next_multiple_of(4)?;
        let found = kind == PHYS32_ENTRY && name == b"Xen\0";
        let after = value.checked_add(value_size.checked_next_multiple_of(4)?)?;
        // The last note's padding may be missing.
        notes = notes.get(after..).unwrap_or_default();
        Some(found)
    };
    while let Some(found) = next() {
        if found {
            return true;
        }
    }
    false
}

fn u16_at(data: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*data.get(at..)?.first_chunk()?))
}

fn u32_at(data: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u32::from_le_bytes(*data.get(at..)?.first_chunk()?)).ok()
}

fn u64_at(data: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u64::from_le_bytes(*data.get(at..)?.first_chunk()?)).ok()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    /// The smallest ELF file with one note.
    fn elf(kind: u32) -> Vec<u8> {
        let mut elf = vec![0; 0x40];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[0x20] = 0x40;
        elf[0x36] = 0x38;
        elf[0x38] = 1;
        let mut header = [0; 0x38];
        header[0] = 4;
        header[0x08] = 0x78;
        header[0x20] = 20;
        elf.extend(header);
        for number in [4, 4, kind] {
            elf.extend(number.to_le_bytes());
        }
        elf.extend(b"Xen\0\0\0\0\x01");
        elf
    }

    fn bzimage(packed: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 5 * 512 + 7];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x206..0x208].copy_from_slice(&[0x0f, 0x02]);
        image[0x248] = 7;
        let length = u32::try_from(packed.len()).unwrap();
        image[0x24c..0x250].copy_from_slice(&length.to_le_bytes());
        image.extend(packed);
        image.extend([0xff; 9]);
        image
    }

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_kernel_with_the_entry_point_comes_out() {
        assert_eq!(vmlinux(&bzimage(&gzip(&elf(18)))), Some(elf(18)));
    }

    #[test]
    fn others_do_not() {
        assert_eq!(vmlinux(&bzimage(&gzip(&elf(17)))), None);
        assert_eq!(vmlinux(&bzimage(b"BZh91AY")), None);
        assert_eq!(vmlinux(&elf(18)), None);
        assert_eq!(vmlinux(b""), None);
    }

    proptest! {
        #[test]
        fn damage_is_no_panic(at in 0usize..400, byte: u8, cut in 0usize..400) {
            let mut elf = elf(18);
            let at = at % elf.len();
            elf[at] = byte;
            elf.truncate(elf.len() - cut % elf.len());
            has_pvh_entry(&elf);
            let mut image = bzimage(&elf);
            let at = 0x1f0 + at % 0x60;
            image[at] = byte;
            vmlinux(&image);
        }
    }
}
