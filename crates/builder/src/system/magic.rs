//! What a file that is to be a kernel or an initrd really is, by its first bytes.
//!
//! bzImage: the kernel's `Documentation/arch/x86/boot.rst`; arm64: `Documentation/arch/arm64/booting.rst`.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// What is read of a file to know it.
const HEAD: u64 = 64 * 1024;

/// What a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sort {
    /// A kernel of this processor (as Nix calls it), with its version where the file tells it.
    Kernel {
        arch: &'static str,
        version: Option<String>,
    },
    /// An initrd, packed so.
    Initrd(&'static str),
    /// Something else, for people.
    Other(&'static str),
}

/// How an initrd may begin.
const PACKED: [(&[u8], &str); 8] = [
    (b"070701", "cpio"),
    (b"070702", "cpio"),
    (b"\x1f\x8b", "gzip"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x02\x21\x4c\x18", "lz4"),
    (b"\x5d\0\0", "lzma"),
    (b"BZh", "bzip2"),
];

/// What the file is.
///
/// # Errors
/// It cannot be read.
pub(super) fn of(path: &Path) -> io::Result<Sort> {
    let mut file = File::open(path)?;
    let mut head = Vec::new();
    Read::by_ref(&mut file).take(HEAD).read_to_end(&mut head)?;
    Ok(match known(&head) {
        // Uncompressed, it has its version somewhere inside.
        Sort::Kernel {
            arch: arch @ "aarch64",
            ..
        } => Sort::Kernel {
            arch,
            version: banner(&mut file)?,
        },
        sort => sort,
    })
}

/// What begins with `head`.
fn known(head: &[u8]) -> Sort {
    if head.get(0x202..0x206) == Some(b"HdrS") {
        return Sort::Kernel {
            arch: "x86_64",
            version: version(head),
        };
    }
    if head.get(0x38..0x3c) == Some(b"ARM\x64")
        || (head.starts_with(b"MZ") && head.get(4..8) == Some(b"zimg"))
    {
        return Sort::Kernel {
            arch: "aarch64",
            version: None,
        };
    }
    // Between an initrd's parts there may be zeros, not before the first.
    let packed = PACKED.iter().find(|(magic, _)| head.starts_with(magic));
    if let Some((_, name)) = packed {
        return Sort::Initrd(name);
    }
    Sort::Other(match head {
        [] => "empty",
        [0x7f, b'E', b'L', b'F', ..] => "an ELF file (such as an unpacked vmlinux)",
        [b'M', b'Z', ..] => "a program for EFI",
        [b'#', b'!', ..] => "a script",
        _ => "something else",
    })
}

/// A bzImage's version, as `uname -r` will say: the first word of the text that the header points to.
fn version(head: &[u8]) -> Option<String> {
    let at = u16::from_le_bytes(*head.get(0x20e..)?.first_chunk()?);
    let text = head.get(usize::from(at).checked_add(0x200)?..)?;
    word(text)
}

/// The first word of a text that ends with a zero.
fn word(text: &[u8]) -> Option<String> {
    let end = text.iter().position(|byte| matches!(byte, 0 | b' '))?;
    let word = std::str::from_utf8(&text[..end]).ok()?;
    (!word.is_empty()).then(|| word.to_owned())
}

/// The version in the greeting that each kernel has inside, where it is not packed.
fn banner(file: &mut File) -> io::Result<Option<String>> {
    const GREETING: &[u8] = b"Linux version ";
    file.seek(SeekFrom::Start(0))?;
    let mut image = Vec::new();
    file.read_to_end(&mut image)?;
    let mut windows = image.windows(GREETING.len());
    let found = windows.position(|window| window == GREETING);
    Ok(found.and_then(|at| word(&image[at + GREETING.len()..])))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The first bytes of a bzImage of this version.
    pub(crate) fn bzimage(version: &str) -> Vec<u8> {
        let mut image = vec![0; 0x300];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x20e] = 0x20;
        image.truncate(0x220);
        image.extend(version.as_bytes());
        image.extend(b" (builder@host) #1 SMP\0");
        image
    }

    #[test]
    fn kernels_and_initrds_are_known() {
        let kernel = |arch, version: Option<&str>| Sort::Kernel {
            arch,
            version: version.map(str::to_owned),
        };
        assert_eq!(known(&bzimage("6.12.9")), kernel("x86_64", Some("6.12.9")));
        // The text lies beyond what there is.
        let cut = &bzimage("6.12.9")[..0x210];
        assert_eq!(known(cut), kernel("x86_64", None));
        let mut arm = vec![0; 64];
        arm[0x38..0x3c].copy_from_slice(b"ARM\x64");
        assert_eq!(known(&arm), kernel("aarch64", None));
        assert_eq!(known(b"MZ\0\0zimg"), kernel("aarch64", None));
        for (magic, name) in PACKED {
            assert_eq!(known(magic), Sort::Initrd(name));
        }
        assert_eq!(known(b""), Sort::Other("empty"));
        assert!(matches!(known(b"\x7fELF\x02\x01"), Sort::Other(_)));
        assert!(matches!(known(b"#!/bin/sh"), Sort::Other("a script")));
    }

    #[test]
    fn an_unpacked_kernel_tells_its_version() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("Image");
        let mut image = vec![0; 4096];
        image[0x38..0x3c].copy_from_slice(b"ARM\x64");
        image.extend(b"Linux version 6.6.31 (nixbld@localhost) #1");
        std::fs::write(&path, image).unwrap();
        let version = Some("6.6.31".to_owned());
        let arch = "aarch64";
        assert_eq!(of(&path).unwrap(), Sort::Kernel { arch, version });
    }
}
