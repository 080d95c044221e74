//! Numbers for people.

use std::time::SystemTime;

/// A size.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["B", "KiB", "MiB", "GiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.0} {}", UNITS[unit])
}

/// How long ago something was used.
pub fn age(last_used: SystemTime, in_use: bool) -> String {
    if in_use {
        return "in use".to_owned();
    }
    let seconds = last_used.elapsed().unwrap_or_default().as_secs();
    match seconds {
        0..120 => "now".to_owned(),
        120..7200 => format!("{} min ago", seconds / 60),
        7200..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

/// A text as one line of a table, with an ellipsis where it goes on.
pub fn line(text: &str) -> String {
    const MOST: usize = 40;
    let line = text.lines().next().unwrap_or_default();
    if line == text && line.chars().count() <= MOST {
        return line.to_owned();
    }
    let mut short: String = line.chars().take(MOST - 1).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn sizes_have_a_unit() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(240 << 20), "240 MiB");
        assert_eq!(size(5 << 40), "5120 GiB");
    }

    #[test]
    fn texts_are_cut_to_a_line() {
        assert_eq!(line(""), "");
        assert_eq!(line("unit:nginx.service"), "unit:nginx.service");
        assert_eq!(line("command:set -e\nmkdir /srv"), "command:set -e…");
        assert_eq!(line(&"x".repeat(40)).chars().count(), 40);
        assert_eq!(line(&"é".repeat(41)), "é".repeat(39) + "…");
    }

    #[test]
    fn ages_are_rough() {
        let before = |seconds| SystemTime::now() - Duration::from_secs(seconds);
        assert_eq!(age(before(3), false), "now");
        assert_eq!(age(before(600), false), "10 min ago");
        assert_eq!(age(before(3 * 86_400), false), "3 days ago");
        assert_eq!(age(before(3), true), "in use");
    }
}
