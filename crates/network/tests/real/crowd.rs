//! A switch whose process has no descriptors left. The process is this test binary, run again.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use libtest_mimic::Failed;
use machinist_network::Vlan;
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::cases::vms::until;
use crate::lab::Sockets;
use crate::plug::Plug;

const VERB: &str = "__crowd";

/// The other process: serves VDE clients in the directory that is named to it, says so, and stays.
pub fn dispatch() -> Option<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    if arguments.next()? != VERB {
        return None;
    }
    let few = Rlimit {
        current: Some(30),
        maximum: Some(30),
    };
    setrlimit(Resource::Nofile, few).unwrap();
    let vlan = Vlan::new(1).unwrap();
    let _door = vlan.listen_vde(Path::new(&arguments.next()?)).unwrap();
    println!("listening");
    loop {
        std::thread::park();
    }
}

pub fn crowded() -> Result<(), Failed> {
    let sockets = Sockets::new();
    let directory = sockets.path(1);
    let mut child = Command::new(std::env::current_exe()?)
        .arg(VERB)
        .arg(&directory)
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line)?;
    assert_eq!(line, "listening\n");
    let connect = || UnixStream::connect(directory.join("ctl"));
    // Clients until there is no room for another, and then some more who say nothing.
    let mut clients: Vec<Plug> = Vec::new();
    while let Some(client) = Plug::try_new(&directory) {
        clients.push(client);
    }
    assert!((5..15).contains(&clients.len()), "{}", clients.len());
    let silent: Vec<UnixStream> = (0..40).map(|_| connect().unwrap()).collect();
    let before = ticks(child.id());
    std::thread::sleep(Duration::from_millis(500));
    let spent = ticks(child.id()) - before;
    assert!(
        spent < 10,
        "the switch used {spent} of 50 ticks doing nothing"
    );
    drop(silent);
    clients.pop();
    clients.pop();
    until("room for another", || Plug::try_new(&directory).is_some());
    child.kill()?;
    child.wait()?;
    Ok(())
}

/// The processor time of a process, in ticks of 10 ms.
fn ticks(process: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields = stat.rsplit(')').next().unwrap().split_whitespace();
    // utime and stime are fields 14 and 15, of which two are before the last parenthesis.
    let numbers = fields.skip(11).take(2);
    numbers.map(|field| field.parse::<u64>().unwrap()).sum()
}
