//! A web server of the host's, for what builds download.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};

/// What it answers, whatever it is asked for.
const PAGE: &str = "from the host\n";

/// It listens on the loopback interface as long as the process lives.
pub struct Web {
    pub port: u16,
    served: Arc<AtomicUsize>,
}

impl Web {
    pub fn open() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen")?;
        let port = listener.local_addr()?.port();
        let served = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&served);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if answer(client).is_ok() {
                    counter.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        Ok(Self { port, served })
    }

    /// The script that writes `download.nix`, which fetches the page from this server, to the client
    /// known as `host`. Its hash is right.
    pub fn derivation(&self, host: &str) -> String {
        let port = self.port;
        format!(
            r#"
hash=$(printf '{PAGE}' | sha256sum | cut -d' ' -f1)
cat > download.nix <<END
derivation {{
  name = "download"; system = "x86_64-linux"; builder = "builtin:fetchurl"; url = "http://{host}:{port}/page";
  outputHash = "$hash"; outputHashAlgo = "sha256"; outputHashMode = "flat";
}}
END
"#
        )
    }

    /// How many requests it has answered.
    pub fn served(&self) -> usize {
        self.served.load(Ordering::SeqCst)
    }
}

fn answer(client: TcpStream) -> std::io::Result<()> {
    let mut client = BufReader::new(client);
    let mut line = String::new();
    while client.read_line(&mut line)? > 2 {
        line.clear();
    }
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{PAGE}",
        PAGE.len()
    );
    client.get_mut().write_all(answer.as_bytes())
}
