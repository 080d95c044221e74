//! Numbers, as Boost's `lexical_cast` takes them from a text.

/// Jobs: an unsigned number of 32 bits, with `+` before it if somebody likes.
pub(super) fn unsigned(text: &str) -> Option<u32> {
    let digits = text.strip_prefix('+').unwrap_or(text);
    let only_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    only_digits.then(|| digits.parse().ok()).flatten()
}

/// A speed: a float, which may be `inf` or `nan`.
pub(super) fn float(text: &str) -> Option<f32> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let value = not_a_digit(digits).or_else(|| decimal(digits))?;
    Some(if negative { -value } else { value })
}

/// `nan`, `nan(...)`, `inf` and `infinity`, in letters of any size.
fn not_a_digit(text: &str) -> Option<f32> {
    let text = text.to_ascii_lowercase();
    if let Some(rest) = text.strip_prefix("nan") {
        let noted = rest.len() >= 2 && rest.starts_with('(') && rest.ends_with(')');
        return (rest.is_empty() || noted).then_some(f32::NAN);
    }
    (text == "inf" || text == "infinity").then_some(f32::INFINITY)
}

/// Digits with at most one point and an exponent. What is too large is refused, what is too small is 0.
fn decimal(text: &str) -> Option<f32> {
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let points = mantissa.bytes().filter(|byte| *byte == b'.').count();
    let digits = mantissa.bytes().filter(u8::is_ascii_digit).count();
    if points > 1 || digits == 0 || points + digits != mantissa.len() {
        return None;
    }
    if let Some(exponent) = exponent {
        let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
    }
    text.parse::<f32>().ok().filter(|value| value.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs() {
        assert_eq!(unsigned("04"), Some(4));
        assert_eq!(unsigned("+4"), Some(4));
        assert_eq!(unsigned("0"), Some(0));
        assert_eq!(unsigned("4294967295"), Some(u32::MAX));
        for wrong in [
            "-1",
            "4.0",
            "0x4",
            "1,2",
            "4294967296",
            "99999999999",
            "+",
            "++4",
            "+-4",
        ] {
            assert_eq!(unsigned(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn speeds() {
        for (text, value) in [
            ("1", 1.0),
            ("1.5", 1.5),
            ("1e2", 100.0),
            ("+2", 2.0),
            (".5", 0.5),
            ("5.", 5.0),
            ("-1", -1.0),
            ("1e-100", 0.0),
            ("inf", f32::INFINITY),
            ("-Infinity", f32::NEG_INFINITY),
        ] {
            assert_eq!(float(text), Some(value), "{text}");
        }
        assert!(float("nan").is_some_and(f32::is_nan));
        assert!(float("NaN(x)").is_some_and(f32::is_nan));
        for wrong in [
            "1.5f", "1,5", "0x4", ".", "1e", "1e+", "1.2.3", "1e100", "+-1", "in", "nan(",
        ] {
            assert_eq!(float(wrong), None, "{wrong}");
        }
    }
}
