//! Looking at a VM and typing into it.

use anyhow::{Result, ensure};
use machinist_tests::{Bench, Need};

use crate::Case;
use crate::stage::Stage;

pub const CASES: &[Case] = &[
    Case {
        name: "a_vm_is_read_and_typed_into",
        needs: &[Need::Vm, Need::Python, Need::Ocr],
        run: typed,
    },
    Case {
        name: "qemu_is_asked_and_tells",
        needs: &[Need::Vm, Need::Python],
        run: asked,
    },
];

/// A root shell on the first text console, and every character that can be typed into it.
const TYPED: &str = r#"
import string

m.succeed(
    "systemd-run -p StandardInput=tty-force -p StandardOutput=tty -p TTYPath=/dev/tty1 "
    "-p TTYReset=yes env PS1='ready here: ' bash --norc -i"
)
m.wait_until_tty_matches("1", "ready here:", timeout=200)
m.wait_for_text("ready here", timeout=200)
with t.assertRaisesRegex(RequestedAssertionFailed, "^action timed out after "):
    m.wait_until_tty_matches("1", "no such text", timeout=0.5)

typed = "".join(c for c in string.printable if c not in string.whitespace)
m.send_chars("cat > /tmp/typed\n")
m.send_chars(typed + "\n")
m.send_key("ctrl-d")
m.wait_until_succeeds("test -s /tmp/typed")
t.assertEqual(m.succeed("cat /tmp/typed"), typed + "\n")
assert "cat > /tmp/typed" in m.get_tty_text("1")
m.send_key("no-such-key")
m.screenshot("screen")
m.screenshot(f"{driver.out_dir}/other.picture")
m.dump_tty_contents("1")

# Its terminal echoes what is typed.
m.send_console("typed at the console\n")
m.wait_for_console_text("typed at the console", timeout=200)
"#;

fn typed(bench: &Bench) -> Result<()> {
    let stage = Stage::new(bench).vm_with("m", 1, &[], |mut script| {
        // One that is started unpacked is not told of the screen that the firmware has set up.
        script.system.kernel.set_file_name("vmlinuz");
        script
    })?;
    let ran = stage.driver(&[], TYPED)?.run()?.exits(0)?;
    ensure!(
        ran.stderr.contains("m: sendkey no-such-key: "),
        "QEMU's answer to a wrong key is not told: {ran}"
    );
    for name in ["out/screen.png", "out/other.picture"] {
        let picture = std::fs::read(bench.path().join(name))?;
        ensure!(picture.starts_with(b"\x89PNG\r\n\x1a\n"), "{name}");
    }
    Ok(())
}

const ASKED: &str = r#"
import datetime
from test_driver.machine.qmp import QMPAPIError

m.start()
assert m.qmp_client is not None
t.assertEqual(m.qmp_client.send("query-status")["return"]["running"], True)
with t.assertRaises(QMPAPIError) as refused:
    m.qmp_client.send("this-command-does-not-exist")
t.assertEqual(refused.exception.class_name, "CommandNotFound")
assert refused.exception.description and refused.exception.transaction_id is None
m.succeed("true")
assert "VNC" in m.send_monitor_command("help") or "vnc" in m.send_monitor_command("help")

m.qmp_client.send("stop")
m.qmp_client.send("cont")
# What happened before is not lost.
stopped = m.wait_for_qmp_event(lambda event: event["event"] == "STOP", timeout=200)
t.assertEqual(m.wait_for_qmp_event(lambda _: True)["event"], "RESUME")
with t.assertRaises(TimeoutError):
    soon = datetime.timedelta(seconds=0.2)
    m.wait_for_qmp_event(lambda event: event["event"] == "NEVER", timeout=soon)

m.succeed("echo of the first start > /dev/ttyS0")
m.wait_for_console_text("of the first start")
m.crash()
assert not m.booted and m.pid is None and m.process is None
m.start()
m.succeed("echo of the second start > /dev/ttyS0")
m.wait_for_console_text("of the second start")
# NixOS' driver looks at lines run together, and scripts read the console by themselves, too.
m.succeed("printf 'first line\\nsecond line\\nthird line\\n' > /dev/ttyS0")
m.wait_for_console_text("first.*second", timeout=300)
t.assertEqual(m.last_lines.get(timeout=300), "third line")
assert "third line" in m.full_console_log
m.succeed("echo an error >&2; (sleep 0.5; echo a late error >&2) >&2 &")
m.wait_for_console_text("an error", timeout=300)
m.wait_for_console_text("a late error", timeout=300)
log = m.get_console_log()
assert "of the second start" in log and "of the first start" not in log, log
assert m.process.poll() is None
"#;

fn asked(bench: &Bench) -> Result<()> {
    let stage = Stage::new(bench).vm("m", 1, &[])?;
    stage.driver(&[], ASKED)?.run()?.exits(0)?;
    Ok(())
}
