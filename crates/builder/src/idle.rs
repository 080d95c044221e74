//! How long a builder runs with nothing to do.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How long a builder runs with nothing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum IdleTimeout {
    /// For ever.
    Never,
    /// So long; no time at all: it stops with the last build.
    After(Duration),
}

/// What is no [`IdleTimeout`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no idle timeout: `90` is minutes, `30s`, `2h` are durations, `0` and `never` are for ever, `0s` is at once"
)]
pub struct NoIdleTimeout(String);

impl IdleTimeout {
    /// As a duration; `None`: for ever.
    #[must_use]
    pub fn duration(self) -> Option<Duration> {
        match self {
            Self::Never => None,
            Self::After(duration) => Some(duration),
        }
    }
}

impl Default for IdleTimeout {
    fn default() -> Self {
        Self::After(Duration::from_secs(180 * 60))
    }
}

impl FromStr for IdleTimeout {
    type Err = NoIdleTimeout;

    fn from_str(text: &str) -> Result<Self, NoIdleTimeout> {
        let wrong = || NoIdleTimeout(text.to_owned());
        match text {
            "never" => return Ok(Self::Never),
            "0s" => return Ok(Self::After(Duration::ZERO)),
            _ => {}
        }
        if let Ok(minutes) = text.parse::<u32>() {
            return Ok(match minutes {
                0 => Self::Never,
                minutes => Self::After(Duration::from_secs(u64::from(minutes) * 60)),
            });
        }
        let parsed = machinist_lab::parse_duration(text);
        parsed.map(Self::After).map_err(|_| wrong())
    }
}

impl fmt::Display for IdleTimeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Never => f.write_str("never"),
            Self::After(duration) => f.write_str(&machinist_lab::format_duration(*duration)),
        }
    }
}

impl From<IdleTimeout> for String {
    fn from(timeout: IdleTimeout) -> Self {
        timeout.to_string()
    }
}

impl TryFrom<String> for IdleTimeout {
    type Error = NoIdleTimeout;

    fn try_from(text: String) -> Result<Self, NoIdleTimeout> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minutes_durations_and_never() {
        let after = |seconds| IdleTimeout::After(Duration::from_secs(seconds));
        for (text, expected, shown) in [
            ("0", IdleTimeout::Never, "never"),
            ("never", IdleTimeout::Never, "never"),
            ("0s", after(0), "0s"),
            ("90", after(5400), "1h30m"),
            ("45s", after(45), "45s"),
        ] {
            let timeout: IdleTimeout = text.parse().unwrap();
            assert_eq!(timeout, expected, "{text}");
            assert_eq!(timeout.to_string(), shown);
            assert_eq!(shown.parse(), Ok(timeout));
        }
        for bad in ["", "-1", "1.5", "soon", "5000000000"] {
            assert!(bad.parse::<IdleTimeout>().is_err(), "{bad}");
        }
    }
}
