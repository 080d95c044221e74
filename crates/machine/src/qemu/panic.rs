//! A kernel's panic, as its console tells it.

/// Begins the line that a kernel prints when it gives up.
const SIGN: &[u8] = b"Kernel panic - not syncing";

/// Looks for a panic in a stream of console bytes.
#[derive(Debug, Default)]
pub(crate) struct PanicFinder {
    line: Vec<u8>,
    found: bool,
}

impl PanicFinder {
    /// Takes the next bytes. Returns the reason, once, when its line is complete.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Option<String> {
        if self.found {
            return None;
        }
        for &byte in bytes {
            if byte == b'\n' {
                let reason = reason(&self.line);
                self.line.clear();
                if reason.is_some() {
                    self.found = true;
                    return reason;
                }
            } else if self.line.len() < 1024 {
                self.line.push(byte);
            }
        }
        None
    }
}

/// What the kernel says of its panic. The line is the kernel's own only if nothing but its time
/// stamp stands before: a program that quotes a panic is not one.
fn reason(line: &[u8]) -> Option<String> {
    let start = line.windows(SIGN.len()).position(|window| window == SIGN)?;
    let before = String::from_utf8_lossy(&line[..start]);
    let before = before.trim();
    let stamp = before.starts_with('[') && before.ends_with(']');
    if !stamp && !before.is_empty() {
        return None;
    }
    let after = String::from_utf8_lossy(&line[start + SIGN.len()..]);
    Some(format!("kernel panic{}", after.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_line_is_found() {
        let mut finder = PanicFinder::default();
        assert_eq!(
            finder.feed(b"[    9.1] sysrq: Trigger a crash\r\n[    9.2] Kernel pa"),
            None
        );
        assert_eq!(
            finder.feed(b"nic - not syncing: sysrq triggered crash\r\n[   9.3] CPU: 0\r\n"),
            Some("kernel panic: sysrq triggered crash".into())
        );
        assert_eq!(
            finder.feed(b"[ 1.0] Kernel panic - not syncing: again\n"),
            None
        );
    }

    #[test]
    fn a_quotation_is_no_panic() {
        let mut finder = PanicFinder::default();
        assert_eq!(finder.feed(b"grep: Kernel panic - not syncing: x\n"), None);
        assert_eq!(
            finder.feed(b"Kernel panic - not syncing: VFS: no root\n"),
            Some("kernel panic: VFS: no root".into())
        );
    }
}
