//! The ways into a builder and out of it: Nix's, that of builds that download something, and SSH.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use machinist_tests::wait_until;

use crate::Case;
use crate::rig::Rig;
use crate::web::Web;

pub const CASES: &[Case] = &[
    Case {
        name: "ways::out_for_what_is_fixed_and_for_nothing_else",
        run: network,
    },
    Case {
        name: "ways::ends_of_one_direction_are_passed_on",
        run: ends,
    },
    Case {
        name: "ways::ssh_with_keys_of_its_own",
        run: ssh,
    },
];

/// How clients of Nix's daemon begin, and how it answers.
const HELLO: &[u8] = b"cxin\0\0\0\0";
const ANSWER: &[u8] = b"oixd\0\0\0\0";

fn network(rig: &Rig) -> Result<()> {
    let web = Web::open()?;
    let download = web.derivation("127.0.0.1");
    for name in ["b", "lone"] {
        let options: &[&str] = if name == "lone" {
            &["--no-network"]
        } else {
            &[]
        };
        rig.create(name, options)?;
        rig.builder(&["start", name]).run()?.exits(0)?;
    }
    let with = format!(
        "{download}
machines b
cat $(build download.nix)
derive free 'exec 3<> /dev/tcp/127.0.0.1/{port} && echo reached > $out' ''
build free.nix && exit 1
echo done
",
        port = web.port
    );
    rig.client(&with)?
        .exits(0)?
        .says("from the host")?
        .says("done")?
        .complains("onnection refused")?;
    ensure!(web.served() == 1, "{} requests", web.served());
    let without = format!("{download}\nmachines lone\nbuild download.nix && exit 1\ntrue\n");
    rig.client(&without)?.exits(0)?;
    ensure!(web.served() == 1, "{} requests", web.served());
    rig.end("b")?;
    rig.end("lone")
}

fn ends(rig: &Rig) -> Result<()> {
    rig.create("b", &[])?;
    rig.builder(&["start", "b"]).run()?.exits(0)?;
    // The client says no more: what Nix answers to that still arrives, and then the end.
    let mut connect = rig.connect("b")?;
    let mut said = Vec::new();
    if let Some(mut stdin) = connect.stdin.take() {
        stdin.write_all(HELLO)?;
    }
    if let Some(stdout) = &mut connect.stdout {
        stdout.read_to_end(&mut said)?;
    }
    ensure!(said.starts_with(ANSWER), "{said:?}");
    ensure!(connect.wait()?.success());
    // Nix ends, for it does not understand a word, while the client would go on.
    let mut connect = rig.connect("b")?;
    let mut stdin = connect.stdin.take().context("it has no input")?;
    stdin.write_all(b"nonsense")?;
    let ended = wait_until(Duration::from_secs(60), || {
        connect.try_wait().ok().flatten()
    });
    ensure!(ended.is_some(), "it does not end");
    drop(stdin);
    let free = wait_until(Duration::from_secs(60), || {
        (rig.status("b").ok()?["sessions"] == 0).then_some(())
    });
    free.context("a session is left")?;
    rig.end("b")
}

fn ssh(rig: &Rig) -> Result<()> {
    rig.create("b", &[])?;
    let config = rig.builder(&["ssh", "b"]).run()?.exits(0)?.stdout;
    let ssh = Ssh::new(rig, &config)?;
    // The first connection starts the machine, and its daemon trusts whoever has the key.
    let output = ssh.run("id -un; nix store info 2>&1")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success() && said.starts_with("root\n") && said.contains("Trusted: 1"),
        "{output:?}"
    );
    ensure!(ssh.greeting()? == ANSWER);

    let port = config
        .lines()
        .find_map(|line| line.trim().strip_prefix("Port "));
    let port = port.context("no port")?;
    let line = rig.builder(&["ssh", "b", "--machine-line"]).run()?;
    let line = line.exits(0)?.stdout;
    ensure!(
        line.starts_with(&format!("ssh-ng://root@127.0.0.1:{port} x86_64-linux ")),
        "{line}"
    );
    nix_by_ssh(rig, port.parse()?, &line)?;
    nobody_else(rig, &ssh, &config)?;
    rig.end("b")?;
    // Nobody listens when its service has ended.
    ensure!(TcpStream::connect(format!("127.0.0.1:{port}")).is_err());
    Ok(())
}

/// Nix builds by the machine line as it stands. Its network is not the host's: what it connects to leads
/// there by a socket in a directory that both see.
fn nix_by_ssh(rig: &Rig, port: u16, line: &str) -> Result<()> {
    let relay = rig.file("relay");
    let listener = UnixListener::bind(&relay).context("cannot listen")?;
    // It ends with this process.
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            if let Ok(door) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
                join(client, door);
            }
        }
    });
    let script = format!(
        r#"
ip link set lo up
python3 - <<'END' &
{RELAY}
END
echo '{line}' > /etc/nix/machines
until grep -q ' 0A ' /proc/net/tcp; do sleep 0.05; done
echo from the client > input
derive range 'echo in the log; echo "map: $(</proc/self/uid_map)"; echo "$(<$input)" > $out' \
    'input = ./input; requiredSystemFeatures = [ "uid-range" ];'
cat $(build range.nix)
derive fails 'echo no; exit 7' ''
build fails.nix && exit 1
true
"#,
        RELAY = RELAY.replace("PORT", &port.to_string()),
        line = line.trim(),
    );
    rig.client(&script)?
        .exits(0)?
        .says("from the client")?
        .complains("range> in the log")?
        .complains("872415232      65536")?
        .complains("exit code 7")?;
    fs::remove_file(relay)?;
    Ok(())
}

/// Connections to a port lead to a socket.
const RELAY: &str = r"
import socket, threading
def carry(source, target):
    while data := source.recv(65536):
        target.sendall(data)
    target.shutdown(socket.SHUT_WR)
server = socket.create_server(('127.0.0.1', PORT))
while True:
    client = server.accept()[0]
    host = socket.socket(socket.AF_UNIX)
    host.connect('/rig/relay')
    for pair in (client, host), (host, client):
        threading.Thread(target=carry, args=pair, daemon=True).start()
";

/// Carries bytes both ways.
fn join(client: UnixStream, door: TcpStream) {
    let (Ok(mut from_client), Ok(mut to_door)) = (client.try_clone(), door.try_clone()) else {
        return;
    };
    thread::spawn(move || {
        drop(std::io::copy(&mut from_client, &mut to_door));
        drop(to_door.shutdown(Shutdown::Write));
    });
    let (mut from_door, mut to_client) = (door, client);
    thread::spawn(move || {
        drop(std::io::copy(&mut from_door, &mut to_client));
        drop(to_client.shutdown(Shutdown::Write));
    });
}

/// Keys are private; nobody else comes in, and nobody else is taken for it.
fn nobody_else(rig: &Rig, ssh: &Ssh, config: &str) -> Result<()> {
    let keys = rig.builders().join("b/ssh");
    for name in ["key", "host_key"] {
        let mode = fs::metadata(keys.join(name))?.mode() & 0o777;
        ensure!(mode == 0o600, "{name}: {mode:o}");
    }
    fs::write(&ssh.config, config.replace("/ssh/key\"", "/ssh/host_key\""))?;
    ssh.refuses("Permission denied")?;
    fs::write(&ssh.config, config)?;
    let known = keys.join("known_hosts");
    let right = fs::read_to_string(&known)?;
    let other = fs::read_to_string(keys.join("key.pub"))?;
    fs::write(&known, format!("machinist-b {other}"))?;
    ssh.refuses("Host key verification failed")?;
    fs::write(&known, right)?;
    ensure!(ssh.run("true")?.status.success());
    Ok(())
}

/// `ssh` with a builder's configuration.
struct Ssh {
    config: PathBuf,
}

impl Ssh {
    fn new(rig: &Rig, config: &str) -> Result<Self> {
        let file = rig.file("ssh_config");
        fs::write(&file, config)?;
        Ok(Self { config: file })
    }

    fn command(&self, script: &str) -> Command {
        let mut command = Command::new("ssh");
        command
            .args(["-o", "BatchMode=yes", "-F"])
            .arg(&self.config)
            .args(["machinist-b", script])
            .stdin(Stdio::null());
        command
    }

    fn run(&self, script: &str) -> Result<Output> {
        let ran = self.command(script).output();
        ran.context("cannot run ssh")
    }

    fn refuses(&self, why: &str) -> Result<()> {
        let output = self.run("true")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success() && said.contains(why), "{output:?}");
        Ok(())
    }

    /// How Nix's daemon answers by it.
    fn greeting(&self) -> Result<Vec<u8>> {
        let mut daemon = self
            .command("nix-daemon --stdio")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // It complains of our leaving.
            .stderr(Stdio::null())
            .spawn()?;
        // It takes the end of its input for the end of everything.
        let mut stdin = daemon.stdin.take().context("it has no input")?;
        stdin.write_all(HELLO)?;
        let mut answer = vec![0; ANSWER.len()];
        if let Some(stdout) = &mut daemon.stdout {
            stdout.read_exact(&mut answer)?;
        }
        drop(stdin);
        daemon.wait()?;
        Ok(answer)
    }
}
