//! The stream of a command: what a connection carries after a `shell` request.
//!
//! Frames in both directions: one byte that says what, four bytes of length (big endian), and as
//! many bytes. Frames instead of bare bytes because a terminal changes its size, and because the
//! exit status has to come out at the end.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The most bytes in one frame.
pub const LARGEST: usize = 256 * 1024;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// To the engine: input; no bytes mean its end. Type 0.
    Input(Vec<u8>),
    /// From the engine: standard output, or the terminal's. Type 1.
    Output(Vec<u8>),
    /// From the engine: standard error; never with a terminal. Type 2.
    Error(Vec<u8>),
    /// To the engine: the terminal's new size, rows and columns as two bytes each. Type 3.
    Resize {
        /// Lines.
        rows: u16,
        /// Characters in a line.
        cols: u16,
    },
    /// To the engine: a signal for the command's process group, as one byte. Type 4.
    Signal(u8),
    /// From the engine, and the last: the exit status, as four bytes. Type 5.
    Exit(i32),
    /// From the engine, and the last: what went wrong, as text. Type 6.
    Failed(String),
}

impl Frame {
    /// The frame as bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let resize;
        let exit;
        let signal;
        let (kind, body): (u8, &[u8]) = match self {
            Self::Input(bytes) => (0, bytes),
            Self::Output(bytes) => (1, bytes),
            Self::Error(bytes) => (2, bytes),
            Self::Resize { rows, cols } => {
                resize = [rows.to_be_bytes(), cols.to_be_bytes()].concat();
                (3, &resize)
            }
            Self::Signal(number) => {
                signal = [*number];
                (4, &signal)
            }
            Self::Exit(status) => {
                exit = status.to_be_bytes();
                (5, &exit)
            }
            Self::Failed(message) => (6, message.as_bytes()),
        };
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
        let mut bytes = Vec::with_capacity(5 + body.len());
        bytes.push(kind);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(body);
        bytes
    }

    fn decode(kind: u8, body: Vec<u8>) -> Option<Self> {
        Some(match (kind, body.as_slice()) {
            (0, _) => Self::Input(body),
            (1, _) => Self::Output(body),
            (2, _) => Self::Error(body),
            (3, &[r0, r1, c0, c1]) => Self::Resize {
                rows: u16::from_be_bytes([r0, r1]),
                cols: u16::from_be_bytes([c0, c1]),
            },
            (4, &[number]) => Self::Signal(number),
            (5, &[a, b, c, d]) => Self::Exit(i32::from_be_bytes([a, b, c, d])),
            (6, _) => Self::Failed(String::from_utf8_lossy(&body).into_owned()),
            _ => return None,
        })
    }
}

/// Writes one frame.
///
/// # Errors
/// The connection fails.
pub async fn write<W: AsyncWrite + Unpin>(to: &mut W, frame: &Frame) -> io::Result<()> {
    to.write_all(&frame.encode()).await
}

/// Reads one frame; `None` at the end of the stream.
///
/// # Errors
/// The connection fails or ends inside a frame, or the bytes are no frame.
pub async fn read<R: AsyncRead + Unpin>(from: &mut R) -> io::Result<Option<Frame>> {
    let mut head = [0_u8; 5];
    match from.read_exact(&mut head[..1]).await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    };
    from.read_exact(&mut head[1..]).await?;
    let [kind, a, b, c, d] = head;
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if length > LARGEST {
        return Err(not_a_frame());
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body).await?;
    Frame::decode(kind, body).map(Some).ok_or_else(not_a_frame)
}

fn not_a_frame() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "not a frame of a command's stream",
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn block_on<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(future)
    }

    fn frames() -> impl Strategy<Value = Frame> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..100);
        prop_oneof![
            bytes().prop_map(Frame::Input),
            bytes().prop_map(Frame::Output),
            bytes().prop_map(Frame::Error),
            (any::<u16>(), any::<u16>()).prop_map(|(rows, cols)| Frame::Resize { rows, cols }),
            any::<u8>().prop_map(Frame::Signal),
            any::<i32>().prop_map(Frame::Exit),
            ".*".prop_map(Frame::Failed),
        ]
    }

    proptest! {
        #[test]
        fn frames_come_back(frames in proptest::collection::vec(frames(), 0..8)) {
            let bytes: Vec<u8> = frames.iter().flat_map(Frame::encode).collect();
            let mut rest = bytes.as_slice();
            block_on(async {
                for frame in frames {
                    assert_eq!(read(&mut rest).await.unwrap(), Some(frame));
                }
                assert_eq!(read(&mut rest).await.unwrap(), None);
            });
        }

        #[test]
        fn nonsense_is_an_error_or_frames(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut rest = bytes.as_slice();
            block_on(async { while let Ok(Some(_)) = read(&mut rest).await {} });
        }
    }
}
