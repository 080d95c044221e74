//! A shell in the agent's place. (Placeholder: serves nothing yet.)

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};

use super::{Break, Shell};

impl<T: AsyncRead + AsyncWrite + Send + 'static> Shell<T> {
    pub(super) async fn serve_plain(&mut self, channel: DuplexStream) -> Result<(), Break> {
        let gone = self.until_gone().await;
        drop(channel);
        gone
    }
}
