//! Showing options as argparse shows them.

use super::{Spec, Takes};

/// `usage: PROGRAM [-h] ...`, wrapped as argparse does it.
pub fn usage(program: &str, options: &[Spec], positional: &str) -> String {
    let mut parts = vec!["[-h]".to_owned()];
    for spec in options.iter().filter(|spec| spec.help.is_some()) {
        parts.push(match spec.takes {
            Takes::Nothing => format!("[{}]", spec.flags.join(" | ")),
            Takes::One(name) => format!("[{} {name}]", spec.flags[0]),
            Takes::Any(name) => format!("[{} [{name} ...]]", spec.flags[0]),
        });
    }
    parts.push(positional.to_owned());
    let begin = format!("usage: {program} ");
    let indent = " ".repeat(begin.len());
    let mut lines = vec![begin.trim_end().to_owned()];
    for part in parts {
        let last = lines.last_mut().filter(|line| line.len() + part.len() < 79);
        match last {
            Some(line) => {
                line.push(' ');
                line.push_str(&part);
            }
            None => lines.push(format!("{indent}{part}")),
        }
    }
    lines.join("\n") + "\n"
}

/// The options and what they are for.
pub fn help(options: &[Spec]) -> String {
    let mut text = String::from("  -h, --help\n          show this help message and exit\n");
    for spec in options {
        let Some(help) = spec.help else { continue };
        let value = match spec.takes {
            Takes::Nothing => String::new(),
            Takes::One(name) => format!(" {name}"),
            Takes::Any(name) => format!(" [{name} ...]"),
        };
        let flags = spec.flags.join(", ");
        text.push_str(&format!("  {flags}{value}\n          {help}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::tests::OPTIONS;
    use super::*;

    #[test]
    fn usage_is_wrapped() {
        let text = usage("program", OPTIONS, "testscript");
        assert_eq!(
            text,
            "usage: program [-h] [-K | --keep-it | --keep-that]\n\
             \x20              [-I | --interactive | --no-interactive] [-o DIR]\n\
             \x20              [--vm-names [NAME ...]] testscript\n"
        );
        assert!(!help(OPTIONS).contains("scripts"));
    }
}
