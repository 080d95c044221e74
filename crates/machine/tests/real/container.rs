//! Containers.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use libtest_mimic::Failed;
use machinist_image::{Source, Want};
use machinist_machine::devices::{Asked, Devices, Places};
use machinist_machine::{
    Attach, Kind, MachineError, NicSpec, Publish, Refused, Report, StartOptions, State, Verdicts,
    Volume,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::lab::{Bench, LONG, check, container_spec, failure, image, processes_with, run, spec};

pub fn life() -> Result<(), Failed> {
    run(async {
        let bench = Bench::new(container_spec()?)?;
        let machine = &bench.machine;
        check(machine.agent().is_err(), "an agent before the start")?;
        machine.start(StartOptions::default()).await?;
        check(bench.sh("hostname").await? == "probe", "hostname")?;
        machine.ready(LONG).await?;
        let found = bench
            .sh("systemctl is-system-running; cat /etc/machine-id")
            .await?;
        check(found == "running\n0123456789abcdef0123456789abcdef", found)?;
        // A second start of what runs is no start.
        machine.start(StartOptions::default()).await?;
        let asked = Instant::now();
        machine.shutdown(LONG).await?;
        check(asked.elapsed() < LONG / 3, asked.elapsed())?;
        check(
            matches!(machine.agent(), Err(MachineError::Off { .. })),
            "an agent after the end",
        )?;
        let reports = bench.reports();
        check(
            matches!(
                reports[..],
                [
                    Report::Starting {
                        backend: "nspawn",
                        accel: None
                    },
                    Report::Up { .. },
                    Report::Ready { .. },
                    Report::Stopped,
                ]
            ) || matches!(reports.first(), Some(Report::Starting { .. }))
                && reports.iter().any(|r| matches!(r, Report::Warning { .. })),
            &reports,
        )?;
        // And once more, from nothing.
        machine.start(StartOptions::default()).await?;
        check(bench.sh("echo again").await? == "again", "again")?;
        machine.crash().await?;
        check(machine.status().borrow().state == State::Off, "off")
    })
}

pub fn restarts() -> Result<(), Failed> {
    run(async {
        let bench = Bench::new(container_spec()?)?;
        let machine = &bench.machine;
        machine.start(StartOptions::default()).await?;
        machine.ready(LONG).await?;
        bench
            .sh("echo kept > /var/kept; echo lost > /run/lost")
            .await?;
        machine.reboot().await?;
        let found = bench.sh("cat /var/kept; test ! -e /run/lost").await?;
        check(found == "kept", found)?;
        machine.ready(LONG).await?;
        // Who waits for its end sees that, though it is started again before he looks.
        let mut end = pin!(machine.wait_for_shutdown(LONG));
        check(end.as_mut().now_or_never().is_none(), "it runs")?;
        // Where it may not restart, a restart is its end.
        machine.crash().await?;
        machine.start(StartOptions { may_restart: false }).await?;
        end.await?;
        machine.ready(LONG).await?;
        bench.sh("systemctl reboot --no-block").await?;
        machine.wait_for_shutdown(LONG).await?;
        Ok(())
    })
}

pub fn off_by_itself() -> Result<(), Failed> {
    run(async {
        let bench = Bench::new(container_spec()?)?;
        bench.machine.start(StartOptions::default()).await?;
        bench.machine.ready(LONG).await?;
        bench.sh("systemctl poweroff --no-block").await?;
        bench.machine.wait_for_shutdown(LONG).await?;
        check(
            bench.reports().last() == Some(&Report::Stopped),
            bench.reports(),
        )?;
        let refused = bench.machine.reboot().await;
        check(
            matches!(
                refused,
                Err(MachineError::Refused {
                    why: Refused::NotRunning,
                    ..
                })
            ),
            refused,
        )
    })
}

pub fn init_exits() -> Result<(), Failed> {
    run(async {
        let bench = Bench::new(container_spec()?)?;
        bench.machine.start(StartOptions::default()).await?;
        bench.machine.ready(LONG).await?;
        // A systemd that re-executes itself into nothing good ends with a status.
        bench
            .sh("systemctl --force exit 7 --no-block || true")
            .await?;
        let asked = Instant::now();
        let (reason, words) = failure(bench.machine.wait_for_shutdown(LONG).await)?;
        check(reason.contains("its init exited"), &reason)?;
        check(asked.elapsed() < LONG / 2, asked.elapsed())?;
        check(!words.is_empty(), words)?;
        // It can be started again.
        bench.machine.start(StartOptions::default()).await?;
        bench.machine.crash().await?;
        Ok(())
    })
}

pub fn killed() -> Result<(), Failed> {
    run(async {
        let bench = Bench::new(container_spec()?)?;
        bench.machine.start(StartOptions::default()).await?;
        let found = processes_with("--directory=/run/machinist/root");
        check(!found.is_empty(), "no nspawn")?;
        let ours = found
            .iter()
            .filter_map(|line| line.split(' ').next()?.parse::<u32>().ok())
            .find(|pid| cgroup_of(*pid) == own_cgroup(&bench));
        let pid = ours.ok_or("our nspawn is not there")?;
        kill(pid);
        let (reason, _) = failure(bench.machine.wait_for_shutdown(LONG).await)?;
        check(reason == "systemd-nspawn was killed by signal 9", reason)?;
        let lost = bench.machine.agent();
        check(matches!(lost, Err(MachineError::Failed { .. })), lost)?;
        check(!own_cgroup_dir(&bench).exists(), "the cgroup is left")
    })
}

/// A network that takes its time.
struct Slow(std::sync::Mutex<std::sync::mpsc::Receiver<()>>);

impl Attach for Slow {
    fn vm_port(&self, _machine: &str, _nic: &NicSpec) -> std::io::Result<std::path::PathBuf> {
        Err(std::io::Error::other("no VM here"))
    }

    fn container_ports(&self, _machine: &str, _nics: &[NicSpec], _pid: u32) -> std::io::Result<()> {
        // Until the test ends.
        drop(self.0.lock().map(|end| end.recv()));
        Ok(())
    }

    fn detach(&self, _machine: &str) {}
}

pub fn stuck() -> Result<(), Failed> {
    let (end, ended) = std::sync::mpsc::channel();
    let mut spec = container_spec()?;
    let mut hasty = spec.clone();
    hasty.start_within = Duration::from_secs(2);
    spec.start_within = LONG;
    run(async move {
        // Dropped at the end, however that comes: the runtime waits for who waits for it.
        let _end = end;
        let slow = Arc::new(Slow(ended.into()));
        let bench = Bench::on(hasty, slow.clone(), Verdicts::forgetful())?;
        let start = bench.machine.start(StartOptions::default());
        let (reason, _) = failure(start.await)?;
        check(reason == "it could not be launched within 2 s", reason)?;

        let bench = Bench::on(spec, slow, Verdicts::forgetful())?;
        let machine = bench.machine.clone();
        let start = tokio::spawn(async move { machine.start(StartOptions::default()).await });
        let mut status = bench.machine.status();
        status.wait_for(|s| s.state == State::Starting).await?;
        let asked = Instant::now();
        bench.machine.crash().await?;
        check(asked.elapsed() < LONG / 3, asked.elapsed())?;
        check(status.borrow().state == State::Off, "off")?;
        check(start.await?.is_err(), "the start went well")
    })
}

fn kill(pid: u32) {
    drop(
        std::process::Command::new("kill")
            .args(["-9", &pid.to_string()])
            .status(),
    );
}

fn own_cgroup_dir(bench: &Bench) -> std::path::PathBuf {
    std::fs::read_to_string(bench.dir.join("cgroup"))
        .unwrap_or_default()
        .into()
}

fn own_cgroup(bench: &Bench) -> Option<String> {
    let dir = own_cgroup_dir(bench);
    Some(dir.file_name()?.to_str()?.to_owned())
}

/// The machine's part of the cgroup of a process.
fn cgroup_of(pid: u32) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    line.split('/')
        .find(|part| part.starts_with("machinist-"))
        .map(str::to_owned)
}

pub fn sees() -> Result<(), Failed> {
    run(async {
        let shared = tempfile::tempdir()?;
        std::fs::write(shared.path().join("from-host"), "hello")?;
        let odd = shared.path().join("a:b,c");
        std::fs::create_dir(&odd)?;
        let mut spec = container_spec()?;
        spec.volumes = vec![
            Volume {
                source: shared.path().to_owned(),
                target: "/mnt/shared".into(),
                writable: true,
            },
            Volume {
                source: odd,
                target: "/mnt/odd".into(),
                writable: false,
            },
        ];
        let mut asked = Asked::default();
        if std::path::Path::new("/dev/fuse").exists() {
            asked.nodes.push("/dev/fuse".into());
        }
        let places = Places {
            cdi: &[],
            search: "".as_ref(),
        };
        let devices = machinist_machine::devices::find(&asked, places)?;
        spec.kind = Kind::Container { devices };
        spec.hosts = vec![machinist_machine::HostLine {
            address: "192.168.1.2".parse()?,
            names: vec!["db".into()],
        }];
        let bench = Bench::new(spec)?;
        bench.machine.start(StartOptions::default()).await?;
        bench.sh("echo back > /mnt/shared/from-machine").await?;
        let back = std::fs::read_to_string(shared.path().join("from-machine"))?;
        check(back == "back\n", back)?;
        check(
            bench.sh("cat /mnt/shared/from-host").await? == "hello",
            "volume",
        )?;
        bench.sh("! touch /mnt/odd/x 2>/dev/null").await?;
        check(
            bench
                .sh("getent hosts db")
                .await?
                .starts_with("192.168.1.2"),
            "/etc/hosts",
        )?;
        bench.sh("test ! -e /dev/fuse || test -c /dev/fuse").await?;
        // Its network is its own to change, and the host's processes are not to be seen.
        bench.sh("echo 1 > /proc/sys/net/ipv4/ip_forward").await?;
        let one = bench.sh("cat /proc/1/comm").await?;
        check(one == "systemd", one)
    })
}

pub fn published() -> Result<(), Failed> {
    run(async {
        let mut spec = container_spec()?;
        spec.publish = vec![Publish {
            host: "127.0.0.1:0".parse()?,
            guest: 7777,
        }];
        let bench = Bench::new(spec)?;
        bench.machine.start(StartOptions::default()).await?;
        bench.machine.ready(LONG).await?;
        let address = bench.machine.status().borrow().published[0];
        bench
            .sh("cd /run/systemd/system
                 printf '[Socket]\\nListenStream=127.0.0.1:7777\\nAccept=yes\\n' > echo.socket
                 printf '[Service]\\nStandardInput=socket\\nExecStart=cat\\n' > echo@.service
                 systemctl daemon-reload
                 systemctl start echo.socket")
            .await?;
        let mut stream = tokio::net::TcpStream::connect(address).await?;
        stream.write_all(b"through the agent").await?;
        stream.shutdown().await?;
        let mut back = String::new();
        stream.read_to_string(&mut back).await?;
        check(back == "through the agent", back)
    })
}

/// A build sandbox may have `/dev/ptmx` and nothing on `/dev/pts`.
pub fn no_terminals() -> Result<(), Failed> {
    if std::env::var_os("MACHINIST_TEST_BARE").is_none() {
        let status = std::process::Command::new("unshare")
            .args([
                "--mount",
                "sh",
                "-c",
                "umount -l /dev/pts; umount -l /dev/pts; exec \"$@\"",
                "sh",
            ])
            .arg(std::env::current_exe()?)
            .args(["--exact", "container_without_a_terminal_on_the_host"])
            .env("MACHINIST_TEST_BARE", "1")
            .stdout(std::process::Stdio::null())
            .status()?;
        return check(status.success(), status);
    }
    run(async {
        let bench = Bench::new(container_spec()?)?;
        bench.machine.start(StartOptions::default()).await?;
        bench.machine.ready(LONG).await?;
        let seen = bench
            .machine
            .console()
            .wait_for(LONG, |line| line.contains("Welcome to"))
            .await;
        check(seen.is_some(), "the console is silent")
    })
}

pub fn on_host_root() -> Result<(), Failed> {
    run(async {
        let image = image(&Source::Host, Want::Container)?;
        let kind = Kind::Container {
            devices: Devices::default(),
        };
        let bench = Bench::new(spec(image, kind))?;
        bench.machine.start(StartOptions::default()).await?;
        // The host's files (not those below /tmp: a container has its own), to be changed without
        // harm.
        let marks = std::fs::read_to_string("/etc/os-release")?;
        let seen = bench
            .sh("echo x > /etc/machinist-was-here; cat /etc/os-release")
            .await?;
        check(seen.trim() == marks.trim(), seen)?;
        check(
            !std::path::Path::new("/etc/machinist-was-here").exists(),
            "the host was written to",
        )?;
        let hidden = crate::lab::cache();
        // Below /tmp it is not there at all: a container has its own.
        let script = format!("test ! -e {0} || ls -A {0}", hidden.display());
        let listed = bench.sh(&script).await?;
        check(listed.is_empty(), listed)?;
        bench.machine.shutdown(LONG).await?;
        Ok(())
    })
}

pub fn no_init() -> Result<(), Failed> {
    run(async {
        let root = tempfile::tempdir()?;
        for dir in ["usr", "etc"] {
            std::fs::create_dir(root.path().join(dir))?;
        }
        std::fs::write(root.path().join("etc/os-release"), "ID=nothing\n")?;
        let image = image(&Source::Dir(root.path().to_owned()), Want::Container)?;
        let kind = Kind::Container {
            devices: Devices::default(),
        };
        let bench = Bench::new(spec(image, kind))?;
        let asked = Instant::now();
        let started = bench.machine.start(StartOptions::default()).await;
        let (_, words) = failure(started)?;
        check(asked.elapsed() < LONG / 2, asked.elapsed())?;
        let told = words.join("\n");
        check(told.contains("init") || told.contains("execv"), told)
    })
}

/// A picture of an X server's display, taken with nothing in the container but that.
pub fn screenshot() -> Result<(), Failed> {
    run(async {
        let source = Source::Debian {
            suite: "bookworm".into(),
            packages: vec!["x11-xserver-utils".into(), "xauth".into(), "xvfb".into()],
        };
        let kind = Kind::Container {
            devices: Devices::default(),
        };
        let bench = Bench::new(spec(image(&source, Want::Container)?, kind))?;
        bench.machine.start(StartOptions::default()).await?;
        bench.machine.ready(LONG).await?;
        let blind = bench.machine.screenshot().await;
        let text = format!("{blind:?}");
        check(
            text.contains("it has no screen, and no X server runs in it"),
            text,
        )?;
        // One that lets in only who has the key; and the key is root's.
        bench
            .sh("xauth add :7 . 0123456789abcdef0123456789abcdef
                systemd-run --quiet Xvfb :7 -screen 0 320x200x24 -noreset -auth /root/.Xauthority >&2
                until test -e /tmp/.X11-unix/X7; do sleep 0.05; done
                DISPLAY=:7 xsetroot -solid '#123456'")
            .await?;
        let picture = bench.machine.screenshot().await?;
        check(picture.starts_with(b"\x89PNG"), "a PNG")?;
        check(
            picture[16..24] == [0, 0, 1, 64, 0, 0, 0, 200],
            &picture[16..24],
        )?;
        check(first_pixel(&picture)? == [0x12, 0x34, 0x56], "its colour")
    })
}

/// The first pixel of a PNG as we make them: one part, rows without filters.
fn first_pixel(png: &[u8]) -> Result<[u8; 3], Failed> {
    let at = png.windows(4).position(|it| it == b"IDAT");
    let mut reader = flate2::read::ZlibDecoder::new(&png[at.ok_or("no IDAT")? + 4..]);
    let mut bytes = [0; 4];
    std::io::Read::read_exact(&mut reader, &mut bytes)?;
    Ok([bytes[1], bytes[2], bytes[3]])
}
