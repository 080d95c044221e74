//! What goes over the socket: frames of one byte that says what, four bytes of length (big endian), and
//! as many bytes.

use std::io::{self, Read};

use tokio::io::{AsyncRead, AsyncReadExt};

/// The most bytes in one frame; nobody makes longer ones.
pub(super) const LARGEST: usize = 1 << 20;
/// What is asked for may be longer: it has the whole closure.
const LONGEST_QUESTION: usize = 64 << 20;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    /// To the service, and the first: what is to be built, as JSON.
    Asked(Vec<u8>),
    /// To the service: a piece of the archive of the build's directory. No bytes end it.
    Files(Vec<u8>),
    /// From the service: a piece of the log.
    Log(Vec<u8>),
    /// From the service: an output begins, with this name in the store.
    Output(String),
    /// From the service: the archive of the build's directory begins.
    Directory,
    /// From the service: a piece of what has begun. No bytes end it.
    Data(Vec<u8>),
    /// From the service: what is going on, for people.
    Note(String),
    /// From the service, and the last: the build's exit code.
    Exit(i32),
    /// From the service, and the last: the signal that killed the build.
    Signal(i32),
    /// From the service, and the last: why it could not be built.
    Failed(String),
}

impl Frame {
    pub(super) fn encode(&self) -> Vec<u8> {
        let number;
        let (kind, body): (u8, &[u8]) = match self {
            Self::Asked(bytes) => (0, bytes),
            Self::Files(bytes) => (1, bytes),
            Self::Log(bytes) => (2, bytes),
            Self::Output(name) => (3, name.as_bytes()),
            Self::Directory => (4, &[]),
            Self::Data(bytes) => (5, bytes),
            Self::Note(text) => (6, text.as_bytes()),
            Self::Exit(code) => {
                number = code.to_be_bytes();
                (7, &number)
            }
            Self::Signal(signal) => {
                number = signal.to_be_bytes();
                (8, &number)
            }
            Self::Failed(text) => (9, text.as_bytes()),
        };
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
        let mut bytes = Vec::with_capacity(5 + body.len());
        bytes.push(kind);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(body);
        bytes
    }

    fn decode(kind: u8, body: Vec<u8>) -> io::Result<Self> {
        let text = |body: Vec<u8>| String::from_utf8_lossy(&body).into_owned();
        let number = |body: &[u8]| body.try_into().map(i32::from_be_bytes);
        Ok(match kind {
            0 => Self::Asked(body),
            1 => Self::Files(body),
            2 => Self::Log(body),
            3 => Self::Output(text(body)),
            4 => Self::Directory,
            5 => Self::Data(body),
            6 => Self::Note(text(body)),
            7 => Self::Exit(number(&body).map_err(|_| nonsense())?),
            8 => Self::Signal(number(&body).map_err(|_| nonsense())?),
            9 => Self::Failed(text(body)),
            _ => return Err(nonsense()),
        })
    }

    /// Reads one.
    pub(super) fn read(from: &mut impl Read) -> io::Result<Self> {
        let mut head = [0; 5];
        from.read_exact(&mut head)?;
        let mut body = vec![0; length(head)?];
        from.read_exact(&mut body)?;
        Self::decode(head[0], body)
    }

    /// Reads one.
    pub(super) async fn next(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Self> {
        let mut head = [0; 5];
        from.read_exact(&mut head).await?;
        let mut body = vec![0; length(head)?];
        from.read_exact(&mut body).await?;
        Self::decode(head[0], body)
    }
}

fn length(head: [u8; 5]) -> io::Result<usize> {
    let [kind, length @ ..] = head;
    let length = u32::from_be_bytes(length) as usize;
    let most = if kind == 0 { LONGEST_QUESTION } else { LARGEST };
    if length <= most {
        Ok(length)
    } else {
        Err(nonsense())
    }
}

fn nonsense() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "no frame of an external build")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back() {
        let all = [
            Frame::Asked(b"{}".to_vec()),
            Frame::Files(Vec::new()),
            Frame::Log(vec![0, 255]),
            Frame::Output("a".into()),
            Frame::Directory,
            Frame::Data(vec![1; LARGEST]),
            Frame::Note("a".into()),
            Frame::Exit(-1),
            Frame::Signal(9),
            Frame::Failed("why".into()),
        ];
        let bytes: Vec<u8> = all.iter().flat_map(Frame::encode).collect();
        let mut rest = bytes.as_slice();
        for frame in all {
            assert_eq!(Frame::read(&mut rest).unwrap(), frame);
        }
        assert!(rest.is_empty());
        for broken in [
            &[10, 0, 0, 0, 0][..],
            &[5, 255, 0, 0, 0],
            &[7, 0, 0, 0, 1, 0],
            &[2, 0],
        ] {
            assert!(Frame::read(&mut &*broken).is_err(), "{broken:?}");
        }
    }
}
