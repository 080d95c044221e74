//! The control protocol of `vde_switch`, as far as a client needs it to get a port.
//!
//! A client connects to the stream socket `ctl` in the switch's directory and says once where its
//! datagram socket is bound ([`Request`]); the switch binds one for it and answers with that one's
//! address ([`answer`]). From then on every datagram is a frame, and the stream says one thing only:
//! when it is closed, the port is gone. All numbers are in the machine's own byte order.
//!
//! | bytes | request |
//! |---|---|
//! | 4 | the magic number |
//! | 4 | the version, 3 |
//! | 4 | the kind (8 bits), and the number of the port that is wished for (24 bits) |
//! | 110 | `struct sockaddr_un`: where the client's datagram socket is |
//! | the rest | a description for people, without an end: what comes at once with the others |

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What every request begins with.
pub const MAGIC: u32 = 0xfeed_face;
/// The version of requests that is spoken since 2005.
pub const VERSION: u32 = 3;
/// The longest path of a Unix socket, in bytes; one more is for the zero at its end.
pub const LONGEST_PATH: usize = 107;
/// The longest path of a directory for clients, in bytes. In it they bind sockets with names like
/// `/.1234567-00001`, and cut what is longer without a word.
pub const LONGEST_DIRECTORY: usize = LONGEST_PATH - "/.1234567-00001".len();

/// Bytes of a `struct sockaddr_un`.
const ADDRESS: usize = 2 + LONGEST_PATH + 1;
/// `AF_UNIX`
const FAMILY: u16 = 1;
/// Bytes of a request before its description.
const FIXED: usize = 12 + ADDRESS;
/// Descriptions have up to 128 bytes, and who has more to say is cut.
const ROOM: usize = FIXED + 256;

/// A client that wants a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Where its datagram socket is bound.
    pub path: PathBuf,
    /// Who it says it is.
    pub description: String,
}

/// Why a client gets no port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Something else than a VDE client.
    #[error("it begins with {magic:#010x}: this is no VDE client")]
    Magic {
        /// What is in the place of [`MAGIC`].
        magic: u32,
    },
    /// A client older or newer than all that are known.
    #[error("it asks in version {version} of the protocol, and only {VERSION} is spoken here")]
    Version {
        /// What it asked for.
        version: u32,
    },
    /// A request for something that is no port.
    #[error("it asks for something of the unknown kind {kind}")]
    Kind {
        /// What it asked for.
        kind: u8,
    },
    /// A socket that frames cannot be sent to.
    #[error("its own socket has no absolute path")]
    Address,
}

/// Takes bytes as they come, until they are a request.
#[derive(Debug)]
pub struct RequestReader {
    memory: Box<[u8; ROOM]>,
    filled: usize,
}

impl Default for RequestReader {
    fn default() -> Self {
        Self {
            memory: Box::new([0; ROOM]),
            filled: 0,
        }
    }
}

impl RequestReader {
    /// The room for bytes to come; not empty while [`RequestReader::request`] has found none.
    pub fn room(&mut self) -> &mut [u8] {
        &mut self.memory[self.filled..]
    }

    /// Says that `count` bytes have been put into [`RequestReader::room`].
    pub fn fill(&mut self, count: usize) {
        self.filled = ROOM.min(self.filled.saturating_add(count));
    }

    /// The request, once all of it is here but perhaps the end of its description.
    ///
    /// # Errors
    /// As soon as it is plain that this will be none that is known.
    pub fn request(&self) -> Result<Option<Request>, RequestError> {
        let word = |at: usize| -> Option<u32> {
            let here = &self.memory[..self.filled];
            Some(u32::from_ne_bytes(*here.get(at..)?.first_chunk()?))
        };
        if let Some(magic) = word(0).filter(|magic| *magic != MAGIC) {
            return Err(RequestError::Magic { magic });
        }
        if let Some(version) = word(4).filter(|version| *version != VERSION) {
            return Err(RequestError::Version { version });
        }
        if let Some(kind) = word(8).map(|kind| kind.to_ne_bytes()[LOWEST]) {
            // The second is a port for managing a switch, and like any other to us. Which number a
            // port is wished to have does not matter here, either.
            if !matches!(kind, 0 | 1) {
                return Err(RequestError::Kind { kind });
            }
        }
        let Some((fixed, description)) = self.memory[..self.filled].split_at_checked(FIXED) else {
            return Ok(None);
        };
        Ok(Some(Request {
            path: read_path(&fixed[12..])?,
            description: text(description),
        }))
    }
}

/// Which byte of a number is its lowest one.
const LOWEST: usize = if cfg!(target_endian = "little") { 0 } else { 3 };

/// Reads the path in a `struct sockaddr_un`.
fn read_path(address: &[u8]) -> Result<PathBuf, RequestError> {
    let (family, path) = address.split_first_chunk().ok_or(RequestError::Address)?;
    let path = path.split(|byte| *byte == 0).next().unwrap_or_default();
    let path = Path::new(OsStr::from_bytes(path));
    if u16::from_ne_bytes(*family) != FAMILY || !path.is_absolute() {
        return Err(RequestError::Address);
    }
    Ok(path.to_owned())
}

fn text(description: &[u8]) -> String {
    let text = description.split(|byte| *byte == 0).next();
    String::from_utf8_lossy(text.unwrap_or_default()).into_owned()
}

/// The answer to a request: the address of the datagram socket that is for this client. `None`
/// where the path is longer than [`LONGEST_PATH`].
#[must_use]
pub fn answer(path: &Path) -> Option<[u8; ADDRESS]> {
    let mut address = [0; ADDRESS];
    let (family, room) = address.split_at_mut(2);
    family.copy_from_slice(&FAMILY.to_ne_bytes());
    let path = path.as_os_str().as_bytes();
    if path.len() > LONGEST_PATH {
        return None;
    }
    room[..path.len()].copy_from_slice(path);
    Some(address)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A request as libvdeplug writes it.
    fn request(kind: u32, path: &[u8], description: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(MAGIC.to_ne_bytes());
        bytes.extend(VERSION.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(FAMILY.to_ne_bytes());
        bytes.extend(path);
        bytes.resize(FIXED, 0);
        bytes.extend(description);
        bytes
    }

    /// Gives `bytes` in pieces, and stops as the switch does: at a request or an error.
    fn read(bytes: &[u8], piece: usize) -> Result<Option<Request>, RequestError> {
        let mut reader = RequestReader::default();
        for piece in bytes.chunks(piece) {
            let count = piece.len().min(reader.room().len());
            reader.room()[..count].copy_from_slice(&piece[..count]);
            reader.fill(count);
            if let Some(request) = reader.request()? {
                return Ok(Some(request));
            }
            assert!(!reader.room().is_empty());
        }
        Ok(None)
    }

    fn place() -> impl Strategy<Value = String> {
        "/[a-z0-9./-]{0,106}"
    }

    proptest! {
        #[test]
        fn requests_are_read_in_one_piece_and_in_many(
            path in place(), description in "[ -~]{0,128}", port in 0..1000_u32, piece in 1..300_usize,
        ) {
            let bytes = request(port << 8, path.as_bytes(), description.as_bytes());
            let whole = read(&bytes, usize::MAX).unwrap().unwrap();
            prop_assert_eq!(&whole.path, Path::new(&path));
            prop_assert_eq!(&whole.description, &description);
            let pieces = read(&bytes, piece).unwrap().unwrap();
            prop_assert_eq!(&pieces.path, Path::new(&path));
            prop_assert!(description.starts_with(&pieces.description));
            for length in 0..FIXED {
                prop_assert_eq!(read(&bytes[..length], piece), Ok(None));
            }
        }

        /// Requests with some bytes changed: what is still a request has an absolute path, and
        /// nothing goes wrong in any.
        #[test]
        fn changed_requests_do_no_harm(
            path in place(),
            changes in prop::collection::vec((0..200_usize, any::<u8>()), 1..8),
            piece in 1..300_usize,
        ) {
            let mut bytes = request(0, path.as_bytes(), b"QEMU");
            for (at, byte) in changes {
                if let Some(place) = bytes.get_mut(at) {
                    *place = byte;
                }
            }
            if let Ok(Some(request)) = read(&bytes, piece) {
                prop_assert!(request.path.is_absolute());
                prop_assert!(answer(&request.path).is_some() || bytes[FIXED - 1] != 0);
            }
        }

        #[test]
        fn any_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..600), piece in 1..600_usize) {
            drop(read(&bytes, piece));
        }

        #[test]
        fn an_answer_is_an_address(path in place()) {
            let address = answer(Path::new(&path)).unwrap();
            prop_assert_eq!(read_path(&address), Ok(PathBuf::from(path)));
        }
    }

    #[test]
    fn what_is_no_request_is_known_early() {
        let magic = read(b"GET / HTTP/1.1\r\n\r\n", 4).unwrap_err();
        assert!(magic.to_string().contains("no VDE client"), "{magic}");
        let mut bytes = request(0, b"/run/x", b"");
        bytes[4..8].copy_from_slice(&2_u32.to_ne_bytes());
        assert_eq!(
            read(&bytes[..8], 1),
            Err(RequestError::Version { version: 2 })
        );
        let kind = read(&request(2, b"/run/x", b""), 200);
        assert_eq!(kind, Err(RequestError::Kind { kind: 2 }));
    }

    #[test]
    fn only_absolute_paths_are_taken() {
        for path in [&b""[..], b"run/x", b"\0abstract"] {
            assert_eq!(
                read(&request(0, path, b"x"), 200),
                Err(RequestError::Address)
            );
        }
        let mut family = request(1, b"/run/x", b"");
        assert!(matches!(read(&family, 200), Ok(Some(_))));
        family[12..14].copy_from_slice(&2_u16.to_ne_bytes());
        assert_eq!(read(&family, 200), Err(RequestError::Address));
    }

    #[test]
    fn a_path_that_is_too_long_has_no_answer() {
        let longest = format!("/{}", "x".repeat(LONGEST_PATH - 1));
        assert!(answer(Path::new(&longest)).is_some());
        assert_eq!(answer(Path::new(&(longest + "x"))), None);
    }
}
