//! Lines from a console.

use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes of a line that are kept: a guest must not fill the host's memory by one.
const LONGEST: usize = 64 * 1024;

/// Cuts what comes from a console into lines.
pub(super) struct Lines<T> {
    io: T,
    buffer: Vec<u8>,
    /// Bytes of `buffer` that were looked at.
    seen: usize,
}

impl<T: AsyncRead + Unpin> Lines<T> {
    pub(super) fn new(io: T) -> Self {
        Self {
            io,
            buffer: Vec::new(),
            seen: 0,
        }
    }

    /// The next line, without its end; none when there are no more. What is read is not lost when
    /// this is dropped half-way.
    pub(super) async fn next(&mut self) -> Option<String> {
        loop {
            let fresh = &self.buffer[self.seen..];
            if let Some(at) = fresh.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=self.seen + at).collect();
                self.seen = 0;
                let line = String::from_utf8_lossy(&line);
                return Some(line.trim_end_matches(['\r', '\n']).to_owned());
            }
            self.seen = self.buffer.len();
            if self.seen > LONGEST {
                self.buffer.clear();
                self.seen = 0;
            }
            let count = self.io.read_buf(&mut self.buffer).await.unwrap_or(0);
            if count == 0 {
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_come_whole_and_long_ones_go() {
        let text = [
            b"one\r\ntw".as_slice(),
            b"o\n\xff\n",
            &[b'x'; 3 * LONGEST],
            b"\nend\n",
        ]
        .concat();
        let mut lines = Lines::new(text.as_slice());
        assert_eq!(lines.next().await.as_deref(), Some("one"));
        assert_eq!(lines.next().await.as_deref(), Some("two"));
        assert_eq!(lines.next().await.as_deref(), Some("\u{fffd}"));
        let rest = lines.next().await.unwrap();
        assert!(rest.len() <= LONGEST);
        assert_eq!(lines.next().await.as_deref(), Some("end"));
        assert_eq!(lines.next().await, None);
    }
}
