//! The task that moves bytes between the channel and the shared state.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::alive;
use crate::error::ChannelError;
use crate::link::Shared;

const READ: usize = 64 * 1024;

/// Runs until the channel ends or nobody holds it any more. For `patience` see [`alive::watch`].
pub(crate) async fn drive<T: AsyncRead + AsyncWrite + Unpin>(
    mut io: T,
    shared: Shared,
    patience: Duration,
) {
    let mut buffer = vec![0; READ];
    tokio::select! {
        () = std::future::poll_fn(|cx| poll(&mut io, &shared, &mut buffer, cx)) => {}
        () = alive::watch(&shared, patience) => {}
    }
}

fn poll<T: AsyncRead + AsyncWrite + Unpin>(
    io: &mut T,
    shared: &Shared,
    buffer: &mut [u8],
    cx: &mut Context<'_>,
) -> Poll<()> {
    shared.lock().set_driver(cx.waker());
    loop {
        let wrote = poll_output(io, shared, cx);
        let read = poll_input(io, shared, buffer, cx);
        let error = match (wrote, read) {
            (Poll::Ready(Err(error)), _) | (_, Poll::Ready(Err(error))) => error,
            // Reading may have made something to write: that is looked at in the next round.
            (_, Poll::Ready(Ok(()))) => continue,
            (Poll::Ready(Ok(true)), Poll::Pending) => continue,
            (_, Poll::Pending) => {
                return match shared.lock().is_over() {
                    true => Poll::Ready(()),
                    false => Poll::Pending,
                };
            }
        };
        let reason = match error.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset => ChannelError::Closed,
            _ => ChannelError::Io(Arc::new(error)),
        };
        shared.lock().die(reason);
        return Poll::Ready(());
    }
}

/// Writes what there is to write; says whether anything was.
fn poll_output<T: AsyncWrite + Unpin>(
    io: &mut T,
    shared: &Shared,
    cx: &mut Context<'_>,
) -> Poll<io::Result<bool>> {
    let mut any = false;
    loop {
        let mut state = shared.lock();
        if state.endpoint.output().is_empty() {
            if any {
                state.wake_writers();
                drop(state);
                ready!(Pin::new(io).poll_flush(cx))?;
            }
            return Poll::Ready(Ok(any));
        }
        match Pin::new(&mut *io).poll_write(cx, state.endpoint.output()) {
            Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            Poll::Ready(Ok(count)) => state.endpoint.written(count),
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => {
                state.wake_writers();
                return Poll::Pending;
            }
        }
        any = true;
    }
}

/// Reads once.
fn poll_input<T: AsyncRead + Unpin>(
    io: &mut T,
    shared: &Shared,
    buffer: &mut [u8],
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    if shared.lock().is_over() {
        return Poll::Pending;
    }
    let mut buffer = ReadBuf::new(buffer);
    ready!(Pin::new(io).poll_read(cx, &mut buffer))?;
    if buffer.filled().is_empty() {
        return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
    }
    shared.lock().receive(buffer.filled());
    Poll::Ready(Ok(()))
}
