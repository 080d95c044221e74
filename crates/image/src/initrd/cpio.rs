//! Writing cpio archives of the `newc` format, which is what the kernel unpacks as its first root.
//! The format: the kernel's `Documentation/driver-api/early-userspace/buffer-format.rst`.
//!
//! Owner root, time 0, numbers in order: the same input gives the same bytes.

use std::io::{self, Write};

/// What an entry is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Entry<'a> {
    /// A directory, mode 0755.
    Directory,
    /// A file with its permission bits.
    File(u32, &'a [u8]),
    /// A character device with its permission bits, major and minor number.
    CharDevice(u32, u32, u32),
}

/// Writes one archive.
#[derive(Debug)]
pub(crate) struct Writer<W> {
    out: W,
    inode: u32,
}

impl<W: Write> Writer<W> {
    /// Begins an archive.
    pub(crate) fn new(out: W) -> Self {
        Self { out, inode: 0 }
    }

    /// Adds an entry. `name` has no leading slash; the directories above it come first.
    pub(crate) fn add(&mut self, name: &str, entry: Entry<'_>) -> io::Result<()> {
        let (mode, data, major, minor): (u32, &[u8], u32, u32) = match entry {
            Entry::Directory => (0o040_755, &[], 0, 0),
            Entry::File(mode, data) => (0o100_000 | mode, data, 0, 0),
            Entry::CharDevice(mode, major, minor) => (0o020_000 | mode, &[], major, minor),
        };
        self.inode += 1;
        self.write(self.inode, name, mode, data, (major, minor))
    }

    /// Ends the archive.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.write(0, "TRAILER!!!", 0, &[], (0, 0))?;
        Ok(self.out)
    }

    fn write(
        &mut self,
        inode: u32,
        name: &str,
        mode: u32,
        data: &[u8],
        (major, minor): (u32, u32),
    ) -> io::Result<()> {
        let number = |length: usize| u32::try_from(length).map_err(io::Error::other);
        let links = 1;
        // ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
        let fields = [
            inode,
            mode,
            0,
            0,
            links,
            0,
            number(data.len())?,
            0,
            0,
            major,
            minor,
            number(name.len() + 1)?,
            0,
        ];
        write!(self.out, "070701")?;
        for field in fields {
            write!(self.out, "{field:08x}")?;
        }
        self.out.write_all(name.as_bytes())?;
        // The header has 110 bytes. Name and data each end on a multiple of four.
        self.pad(1, 110 + name.len() + 1)?;
        self.out.write_all(data)?;
        self.pad(0, data.len())
    }

    fn pad(&mut self, at_least: usize, length: usize) -> io::Result<()> {
        let zeros = at_least + length.next_multiple_of(4) - length;
        self.out.write_all(&[0; 4][..zeros])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A reader as the kernel's is, for what we write.
    fn read(mut bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut entries = Vec::new();
        loop {
            assert_eq!(&bytes[..6], b"070701");
            let field = |index: usize| {
                let digits = str::from_utf8(&bytes[6 + index * 8..][..8]).unwrap();
                usize::from_str_radix(digits, 16).unwrap()
            };
            let (mode, size, name_size) = (field(1), field(6), field(11));
            let name = str::from_utf8(&bytes[110..][..name_size - 1])
                .unwrap()
                .to_owned();
            assert_eq!(bytes[110 + name_size - 1], 0);
            let data = (110 + name_size).next_multiple_of(4);
            if name == "TRAILER!!!" {
                return entries;
            }
            entries.push((
                name,
                mode.try_into().unwrap(),
                bytes[data..][..size].to_vec(),
            ));
            bytes = &bytes[(data + size).next_multiple_of(4)..];
        }
    }

    proptest! {
        #[test]
        fn what_is_written_can_be_read(
            files in prop::collection::vec(("[a-z/]{1,9}", 0u32..0o7777, prop::collection::vec(any::<u8>(), 0..9)), 0..5)
        ) {
            let mut writer = Writer::new(Vec::new());
            for (name, mode, data) in &files {
                writer.add(name, Entry::File(*mode, data)).unwrap();
            }
            let bytes = writer.finish().unwrap();
            let expected: Vec<_> = files
                .into_iter()
                .map(|(name, mode, data)| (name, mode | 0o100_000, data))
                .collect();
            prop_assert_eq!(read(&bytes), expected);
        }
    }

    #[test]
    fn directories_and_devices() {
        let mut writer = Writer::new(Vec::new());
        writer.add("dev", Entry::Directory).unwrap();
        writer
            .add("dev/console", Entry::CharDevice(0o600, 5, 1))
            .unwrap();
        let entries = read(&writer.finish().unwrap());
        assert_eq!(entries[0].1, 0o040_755);
        assert_eq!(entries[1].1, 0o020_600);
    }
}
