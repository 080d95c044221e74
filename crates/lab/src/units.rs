//! Sizes and durations, as people write them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::SyntaxError;

/// A number of bytes. Written with a binary unit: `512M`, `2G`, `1GiB`, `64KiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

impl Bytes {
    /// So many MiB.
    #[must_use]
    pub const fn mebibytes(n: u64) -> Self {
        Self(n << 20)
    }
}

const SIZES: [(&str, u32); 4] = [("K", 10), ("M", 20), ("G", 30), ("T", 40)];
const SIZE_HELP: &str = "sizes are whole numbers with a binary unit: `64K`, `512M`, `2G`, `1GiB`";

impl FromStr for Bytes {
    type Err = SyntaxError;

    fn from_str(text: &str) -> Result<Self, SyntaxError> {
        let wrong = || SyntaxError::new(format!("`{text}` is not a size"), SIZE_HELP);
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let unit = unit.trim_start().to_ascii_uppercase();
        if unit.is_empty() {
            let help = format!("say the unit: `{number}M` or `{number}G`");
            return Err(SyntaxError::new(format!("`{text}` has no unit"), help));
        }
        let unit = unit.strip_suffix("IB").unwrap_or(&unit);
        let (_, shift) = SIZES
            .into_iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(wrong)?;
        number
            .checked_mul(1 << shift)
            .filter(|bytes| i64::try_from(*bytes).is_ok())
            .map(Self)
            .ok_or_else(|| SyntaxError::new(format!("`{text}` is too much"), SIZE_HELP))
    }
}

/// With the largest unit that leaves a whole number.
impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, shift) in SIZES.into_iter().rev() {
            if self.0 >> shift != 0 && self.0.trailing_zeros() >= shift {
                return write!(f, "{}{name}", self.0 >> shift);
            }
        }
        write!(f, "{} bytes", self.0)
    }
}

const DURATIONS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];
const DURATION_HELP: &str = "durations are numbers with units: `30s`, `5m`, `1h30m`, `250ms`";

/// Reads `30s`, `5m`, `1h30m`, `250ms`: whole numbers with the units d, h, m, s, ms, the larger
/// first.
///
/// # Errors
/// Anything else, no duration at all, and more than a year.
pub fn parse_duration(text: &str) -> Result<Duration, SyntaxError> {
    let wrong = || SyntaxError::new(format!("`{text}` is not a duration"), DURATION_HELP);
    let mut rest = text;
    let mut total: u64 = 0;
    let mut units = DURATIONS.iter();
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, after) = rest.split_at(letters);
        rest = after;
        // The iterator goes on where the last unit was found: units only become smaller.
        let (_, factor) = units.find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        total = number
            .checked_mul(*factor)
            .and_then(|part| part.checked_add(total))
            .ok_or_else(wrong)?;
    }
    check_duration(Duration::from_millis(total), text)
}

/// Refuses no time at all, and more than a year.
pub(crate) fn check_duration(duration: Duration, text: &str) -> Result<Duration, SyntaxError> {
    const YEAR: Duration = Duration::from_secs(366 * 86_400);
    if duration.is_zero() || duration > YEAR {
        let message = format!("`{text}` is not a usable duration");
        return Err(SyntaxError::new(
            message,
            "more than nothing, and less than a year",
        ));
    }
    Ok(duration)
}

/// As [`parse_duration`] reads it; parts of a millisecond are dropped.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    use fmt::Write as _;
    let mut rest = duration.as_millis();
    let mut text = String::new();
    for (name, factor) in DURATIONS {
        let factor = u128::from(factor);
        if rest >= factor {
            // Writing to a String cannot fail.
            _ = write!(text, "{}{name}", rest / factor);
            rest %= factor;
        }
    }
    if text.is_empty() {
        "0s".to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_that_people_write() {
        for (text, bytes) in [
            ("64K", 64 << 10),
            ("512M", 512 << 20),
            ("512m", 512 << 20),
            ("2G", 2 << 30),
            ("1GiB", 1 << 30),
            ("1 GiB", 1 << 30),
            ("1T", 1 << 40),
        ] {
            assert_eq!(text.parse::<Bytes>().unwrap(), Bytes(bytes), "{text}");
        }
        for text in [
            "",
            "M",
            "512",
            "1.5G",
            "512MB",
            "-1G",
            "99999999999T",
            "1 G B",
        ] {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
        }
    }

    #[test]
    fn durations_that_people_write() {
        for (text, millis) in [
            ("30s", 30_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("250ms", 250),
            ("1m1s1ms", 61_001),
        ] {
            assert_eq!(parse_duration(text).unwrap().as_millis(), millis, "{text}");
        }
        for text in [
            "", "30", "s", "30m1h", "1s1s", "1.5s", "0s", "999999d", "5 m", "5min",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn sizes_round_trip(number in 1_u64..4096, unit in 0..SIZES.len()) {
            let size = Bytes(number << SIZES[unit].1);
            prop_assert_eq!(size.to_string().parse::<Bytes>().unwrap(), size);
        }

        #[test]
        fn durations_round_trip(millis in 1_u64..31_000_000_000) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse_duration(&format_duration(duration)).unwrap(), duration);
        }

        #[test]
        fn no_text_panics(text in ".*") {
            drop(text.parse::<Bytes>());
            drop(parse_duration(&text));
        }
    }
}
