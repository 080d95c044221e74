//! Displays of containers: windows, pictures and reading them, and VNC.

use anyhow::{Result, ensure};
use machinist_tests::{Bench, Need};

use crate::Case;

pub const CASES: &[Case] = &[Case {
    name: "displays::of_an_x_server_in_a_container",
    needs: &[Need::Container, Need::Python, Need::Ocr],
    run: x_server,
}];

const LAB: &str = r#"
[image.x]
source = "debian:bookworm"
packages = ["fonts-dejavu-core", "x11-utils", "x11vnc", "xterm", "xvfb"]
[machine.m]
kind = "container"
image = "x"
[[test]]
name = "t"
script = "t.py"
"#;

const SCRIPT: &str = r##"
# A server begins anew when the last of its clients has gone, and who comes just then is sent away.
m.spawn("Xvfb :0 -screen 0 800x600x24 -noreset")
m.wait_for_x(timeout=200)
# Its socket is there a moment before it listens.
m.wait_until_succeeds("DISPLAY=:0 xwininfo -root", timeout=200)
with t.assertRaises(RequestedAssertionFailed):
    m.wait_for_window("nobody", timeout=0.1)
m.spawn("DISPLAY=:0 xterm -fa 'DejaVu Sans Mono' -fs 24 -title words -e 'echo this is a machine; sleep 1000'")
m.wait_for_window("wor[d]s", timeout=200)
assert "words" in m.get_window_names()
m.wait_for_text("a machine", timeout=200)
assert len(m.get_screen_text_variants()) == 3
m.screenshot("words")
import socket
with socket.socket(socket.AF_UNIX) as viewer:
    viewer.connect(str(m.vnc_socket()))
    assert viewer.recv(4) == b"RFB "

# As an interactive session of the NixOS driver does it, with a viewer that only looks who is there.
from machinist._viewer import show
program = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); open('seen', 'wb').write(s.recv(4))"
with open("viewer", "w") as file:
    file.write(f"#!/usr/bin/env python3\n{program}\n")
os.chmod("viewer", 0o755)
os.environ["DISPLAY"] = ":99"
viewers = {"vnc": {"kind": "vnc", "executable": os.path.abspath("viewer")}}
assert show(m) is None
driver.job["displays"] = {"m": {"display_targets": [{"backend": "x11"}], "display_viewers": viewers}}
show(m).join(60)
assert open("seen", "rb").read() == b"RFB "
m.wait_until_fails("grep -q x11vnc /proc/[0-9]*/comm", timeout=200)
"##;

fn x_server(bench: &Bench) -> Result<()> {
    bench.write("lab.toml", LAB)?;
    bench.write("t.py", SCRIPT)?;
    bench.machinist(&["test"]).run()?.exits(0)?;
    let picture = std::fs::read(bench.path().join("words.png"))?;
    ensure!(picture.starts_with(b"\x89PNG\r\n\x1a\n"));
    // Width and height are the first two numbers of the first chunk.
    ensure!(picture[16..24] == [0, 0, 3, 32, 0, 0, 2, 88]);
    Ok(())
}
