//! How much memory all processes below this one use.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Result;

/// A look takes some milliseconds of processor time for a hundred processes.
const EVERY: Duration = Duration::from_millis(100);

/// Does something, and tells the most bytes that the processes below this one had meanwhile: their
/// proportional set sizes, so that what they share counts once.
pub fn peak(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut peak = 0;
            while !done.load(Ordering::Relaxed) {
                peak = peak.max(below(std::process::id()));
                thread::sleep(EVERY);
            }
            peak
        });
        let worked = work();
        done.store(true, Ordering::Relaxed);
        let peak = watch.join().unwrap_or_default();
        worked?;
        #[expect(clippy::cast_precision_loss, reason = "a measurement")]
        Ok(peak as f64)
    })
}

/// Bytes of all processes below `top`: their proportional set sizes.
pub fn below(top: u32) -> u64 {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        // It may have ended meanwhile, here and below.
        if let (Some(pid), Some(parent)) = (pid, parent(&entry.path())) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let (mut total, mut left) = (0, vec![top]);
    while let Some(pid) = left.pop() {
        for child in children.remove(&pid).unwrap_or_default() {
            total += proportional(child).unwrap_or_default();
            left.push(child);
        }
    }
    total
}

fn parent(process: &Path) -> Option<u32> {
    let stat = std::fs::read_to_string(process.join("stat")).ok()?;
    // The name before it may contain anything.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

fn proportional(pid: u32) -> Option<u64> {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn children_are_counted() {
        let most = peak(|| {
            let mut child = Command::new("cat").stdin(Stdio::piped()).spawn()?;
            thread::sleep(EVERY * 3);
            drop(child.stdin.take());
            child.wait()?;
            Ok(())
        });
        assert!(most.unwrap() > 10_000.0);
    }
}
