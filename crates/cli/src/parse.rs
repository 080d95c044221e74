//! Values of options, read by the lab file's own rules, so that both say the same.

use std::str::FromStr;

use machinist_lab::SyntaxError;

/// Reads a value as the lab file does. For clap's `value_parser`.
pub fn lab_value<T: FromStr<Err = SyntaxError>>(text: &str) -> Result<T, String> {
    text.parse()
        .map_err(|error: SyntaxError| format!("{error}; {}", error.help()))
}

/// A duration as the lab file writes it.
pub fn duration(text: &str) -> Result<std::time::Duration, String> {
    machinist_lab::parse_duration(text).map_err(|error| format!("{error}; {}", error.help()))
}

/// A factor for times: more than nothing, and not endless.
pub fn factor(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(factor) if factor.is_finite() && factor > 0.0 => Ok(factor),
        _ => Err("not a number above 0".into()),
    }
}

/// `NAME=VALUE`, or `NAME` for the value that it has here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvArg {
    /// The variable.
    pub name: String,
    /// Its value; none: that of our own environment.
    pub value: Option<String>,
}

impl FromStr for EnvArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text, None),
        };
        if name.is_empty() || name.contains('\0') {
            return Err("a variable needs a name".into());
        }
        Ok(Self {
            name: name.to_owned(),
            value,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables() {
        let parsed: EnvArg = "A=b=c".parse().unwrap();
        assert_eq!(
            (parsed.name.as_str(), parsed.value.as_deref()),
            ("A", Some("b=c"))
        );
        assert_eq!("A".parse::<EnvArg>().unwrap().value, None);
        assert!("=x".parse::<EnvArg>().is_err());
    }

    #[test]
    fn factors() {
        assert!(factor("1.5").is_ok());
        for bad in ["0", "-1", "inf", "nan", "x"] {
            assert!(factor(bad).is_err(), "{bad}");
        }
    }
}
