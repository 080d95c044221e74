//! A process that is killed leaves nothing. The process is this test binary, run again.

use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use machinist_network::{NetNs, Vlan};
use machinist_sys::netlink::Netlink;

use crate::lab::attach;
use crate::traffic::PATIENCE;

const VERB: &str = "__hold";

/// The other process: attaches to the namespace that is named to it, says so, and stays.
pub fn dispatch() -> Option<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    if arguments.next()? != VERB {
        return None;
    }
    let netns = NetNs::open(Path::new(&arguments.next()?)).unwrap();
    let vlan = Vlan::new(1).unwrap();
    let _port = attach(&vlan, 1, &netns, None);
    println!("attached");
    loop {
        std::thread::park();
    }
}

pub fn killed() -> Result<(), Failed> {
    let netns = NetNs::new()?;
    let names = || -> Vec<String> {
        let links = netns.run(|| Netlink::open().unwrap().links().unwrap());
        links.unwrap().into_iter().map(|link| link.name).collect()
    };
    let fd = std::os::fd::AsFd::as_fd(&netns).as_raw_fd();
    let mut child = Command::new(std::env::current_exe()?)
        .args([VERB, &format!("/proc/{}/fd/{fd}", std::process::id())])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line)?;
    assert_eq!(line, "attached\n");
    assert_eq!(names(), ["lo", "eth1"]);
    child.kill()?;
    child.wait()?;
    // The kernel takes namespaces apart in its own time.
    let begun = Instant::now();
    while names() != ["lo"] {
        assert!(begun.elapsed() < PATIENCE, "{:?} are left", names());
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
