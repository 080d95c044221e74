//! A Unix socket that wakes us for what comes, and for nothing else.
//!
//! tokio's own wakes whenever the other end has read something, too: for each command that would be
//! a thread more that wakes, on a processor that the command could have.

use std::io::{self, Read};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::net::SendFlags;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

/// A connected Unix socket.
#[derive(Debug)]
pub struct Socket {
    reading: AsyncFd<UnixStream>,
    /// Another handle of it, while something waits for room.
    writing: Option<AsyncFd<UnixStream>>,
}

impl Socket {
    /// To be called within a tokio runtime.
    ///
    /// # Errors
    /// The runtime cannot watch it.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            reading: watch(stream, Interest::READABLE)?,
            writing: None,
        })
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.reading.poll_read_ready(cx))?;
            let room = buffer.initialize_unfilled();
            let wanted = room.len();
            match ready.get_inner().read(room) {
                Ok(count) => {
                    // Less than there was room for is all that was there: what comes from now on
                    // makes it ready anew.
                    if 0 < count && count < wanted {
                        ready.clear_ready();
                    }
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => ready.clear_ready(),
                    io::ErrorKind::Interrupted => {}
                    _ => return Poll::Ready(Err(error)),
                },
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            if let Some(writing) = &self.writing {
                let mut ready = ready!(writing.poll_write_ready(cx))?;
                ready.clear_ready();
            }
            match send(self.reading.get_ref(), bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.writing.is_none() {
                        let stream = self.reading.get_ref().try_clone()?;
                        self.writing = Some(watch(stream, Interest::WRITABLE)?);
                    }
                }
                done => {
                    self.writing = None;
                    return Poll::Ready(done);
                }
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.reading.get_ref().shutdown(Shutdown::Write))
    }
}

#[expect(
    deprecated,
    reason = "its successor is unsafe for the sake of types that lie about their descriptor; UnixStream does not"
)]
fn watch(stream: UnixStream, interest: Interest) -> io::Result<AsyncFd<UnixStream>> {
    AsyncFd::with_interest(stream, interest)
}

/// As much as there is room for.
fn send(stream: &UnixStream, bytes: &[u8]) -> io::Result<usize> {
    #[cfg(target_os = "linux")]
    let flags = SendFlags::NOSIGNAL;
    // Elsewhere the socket itself says so, as the standard library makes it.
    #[cfg(not(target_os = "linux"))]
    let flags = SendFlags::empty();
    Ok(rustix::net::send(stream, bytes, flags)?)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn all_arrives_also_where_there_is_no_room_for_it() {
        let (one, other) = UnixStream::pair().unwrap();
        let (mut one, mut other) = (Socket::new(one).unwrap(), Socket::new(other).unwrap());
        let sent: Vec<u8> = (0..4_000_000_u32).map(|at| (at >> 3) as u8).collect();
        let mut received = Vec::new();
        let writing = async {
            one.write_all(&sent).await.unwrap();
            one.shutdown().await.unwrap();
            let mut answer = [0; 6];
            one.read_exact(&mut answer).await.unwrap();
            answer
        };
        let reading = async {
            other.read_to_end(&mut received).await.unwrap();
            other.write_all(b"answer").await.unwrap();
        };
        let (answer, ()) = tokio::join!(writing, reading);
        assert_eq!(&answer, b"answer");
        assert!(received == sent);
        drop(other);
        assert_eq!(one.read(&mut [0; 8]).await.unwrap(), 0);
        let error = one.write_all(b"more").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
