//! Arguments as Python's argparse reads them.
//!
//! Users of `nixos-test-driver` rely on its ways: options that take any number of values, long
//! options cut short, a positional argument anywhere. clap has other ways, so this is ours.

mod usage;

use std::ffi::{OsStr, OsString};
use std::iter::Peekable;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

pub use usage::{help, usage};

/// What an option takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// Nothing: that it is there says it all.
    Nothing,
    /// One value, shown in the help under this name.
    One(&'static str),
    /// All that follows up to the next option.
    Any(&'static str),
}

/// An option.
#[derive(Debug)]
pub struct Spec {
    /// How it is written: `-o`, `--output`.
    pub flags: &'static [&'static str],
    /// What it takes.
    pub takes: Takes,
    /// What it is for; none: it is not shown.
    pub help: Option<&'static str>,
}

impl Spec {
    /// As error messages call it.
    pub fn name(&self) -> String {
        self.flags.join("/")
    }
}

/// An option that was given.
#[derive(Debug, PartialEq, Eq)]
pub struct Given {
    /// Its index in the table.
    pub option: usize,
    /// As it was written, in full.
    pub flag: &'static str,
    /// What it was given.
    pub values: Vec<OsString>,
}

/// What was given.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    /// Options, in their order.
    pub options: Vec<Given>,
    /// The positional argument.
    pub positional: Option<OsString>,
    /// What nobody knows what to do with.
    pub unknown: Vec<OsString>,
}

/// An argument, before it is known what takes it.
#[derive(Debug)]
enum Word {
    /// An option, and the value that is written right behind it.
    Option(usize, &'static str, Option<OsString>),
    /// Looks like an option, and is none.
    Unknown(OsString),
    /// `--`
    Dashes,
    /// Anything else.
    Value(OsString),
}

/// Reads arguments (without the program's name).
///
/// # Errors
/// The message says what is wrong with them.
pub fn parse(options: &[Spec], args: Vec<OsString>) -> Result<Parsed, String> {
    let mut words = Vec::new();
    let mut dashes = false;
    for arg in args {
        words.push(if dashes {
            Word::Value(arg)
        } else if arg == "--" {
            dashes = true;
            Word::Dashes
        } else {
            word(options, arg)?
        });
    }
    let mut words = words.into_iter().peekable();
    let mut parsed = Parsed::default();
    while let Some(word) = words.next() {
        let (option, flag) = match word {
            Word::Dashes => continue,
            Word::Value(arg) if parsed.positional.is_none() => {
                parsed.positional = Some(arg);
                continue;
            }
            Word::Unknown(arg) | Word::Value(arg) => {
                parsed.unknown.push(arg);
                continue;
            }
            Word::Option(option, flag, None) => (option, flag),
            Word::Option(option, flag, Some(value)) => {
                match attached(options, option, flag, value, &mut parsed.options)? {
                    Some(last) => last,
                    None => continue,
                }
            }
        };
        let values = following(&options[option], &mut words)?;
        parsed.options.push(Given {
            option,
            flag,
            values,
        });
    }
    Ok(parsed)
}

/// The values that an option takes from the words behind it, up to a `--`.
fn following(
    spec: &Spec,
    words: &mut Peekable<impl Iterator<Item = Word>>,
) -> Result<Vec<OsString>, String> {
    let mut value = || match words.next_if(|word| matches!(word, Word::Value(_))) {
        Some(Word::Value(value)) => Some(value),
        _ => None,
    };
    match spec.takes {
        Takes::Nothing => Ok(Vec::new()),
        Takes::Any(_) => Ok(std::iter::from_fn(value).collect()),
        Takes::One(_) => {
            let missing = || format!("argument {}: expected one argument", spec.name());
            Ok(vec![value().ok_or_else(missing)?])
        }
    }
}

/// What an argument is.
fn word(options: &[Spec], arg: OsString) -> Result<Word, String> {
    let bytes = arg.as_bytes();
    if bytes.len() < 2 || bytes[0] != b'-' {
        return Ok(Word::Value(arg));
    }
    let (name, value) = match bytes.iter().position(|byte| *byte == b'=') {
        Some(at) => (
            &bytes[..at],
            Some(OsString::from_vec(bytes[at + 1..].to_vec())),
        ),
        None => (bytes, None),
    };
    let mut matching = matching(options, name, bytes, value);
    // Two ways to write the same option leave no doubt.
    matching.dedup_by_key(|(option, ..)| *option);
    match matching.len() {
        1 => {
            let (option, flag, value) = matching.into_iter().next().unwrap_or_default();
            Ok(Word::Option(option, flag, value))
        }
        0 if is_negative_number(bytes) || bytes.contains(&b' ') => Ok(Word::Value(arg)),
        0 => Ok(Word::Unknown(arg)),
        _ => {
            let flags: Vec<_> = matching.iter().map(|(_, flag, _)| *flag).collect();
            let given = OsStr::from_bytes(bytes).display();
            Err(format!(
                "ambiguous option: {given} could match {}",
                flags.join(", ")
            ))
        }
    }
}

type Match = (usize, &'static str, Option<OsString>);

/// The options that an argument may mean: the one that it is, or all that it is the beginning of.
fn matching(options: &[Spec], name: &[u8], bytes: &[u8], value: Option<OsString>) -> Vec<Match> {
    if let Some((at, flag)) = flags(options).find(|(_, flag)| flag.as_bytes() == name) {
        return vec![(at, flag, value)];
    }
    if !bytes.starts_with(b"--") {
        // `-ofile`, `-KI`.
        let short = flags(options).find(|(_, flag)| flag.as_bytes() == &bytes[..2]);
        let rest = || Some(OsString::from_vec(bytes[2..].to_vec()));
        return short
            .map(|(at, flag)| (at, flag, rest()))
            .into_iter()
            .collect();
    }
    let long = flags(options).filter(|(_, flag)| flag.as_bytes().starts_with(name));
    long.map(|(at, flag)| (at, flag, value.clone())).collect()
}

/// An option with its value right behind it, or with further options in one word. The last of those
/// has nothing behind it, and is given back.
fn attached(
    options: &[Spec],
    mut option: usize,
    mut flag: &'static str,
    mut value: OsString,
    given: &mut Vec<Given>,
) -> Result<Option<(usize, &'static str)>, String> {
    loop {
        let spec = &options[option];
        if spec.takes != Takes::Nothing {
            given.push(Given {
                option,
                flag,
                values: vec![value],
            });
            return Ok(None);
        }
        let letters = value.as_bytes().to_vec();
        let next = letters.first().filter(|_| !flag.starts_with("--"));
        let next = next.and_then(|letter| {
            let mut flags = flags(options);
            flags.find(|(_, flag)| flag.as_bytes() == [b'-', *letter])
        });
        let Some(next) = next else {
            let (name, value) = (spec.name(), value.display());
            return Err(format!(
                "argument {name}: ignored explicit argument '{value}'"
            ));
        };
        given.push(Given {
            option,
            flag,
            values: Vec::new(),
        });
        (option, flag) = next;
        if letters.len() == 1 {
            return Ok(Some(next));
        }
        value = OsString::from_vec(letters[1..].to_vec());
    }
}

/// All ways to write all options.
fn flags(options: &[Spec]) -> impl Iterator<Item = (usize, &'static str)> {
    let each = options.iter().enumerate();
    each.flat_map(|(at, spec)| spec.flags.iter().map(move |flag| (at, *flag)))
}

fn is_negative_number(bytes: &[u8]) -> bool {
    let digits = &bytes[1..];
    let number = digits
        .iter()
        .all(|byte| byte.is_ascii_digit() || *byte == b'.');
    number && digits.iter().any(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) const OPTIONS: &[Spec] = &[
        Spec {
            flags: &["-K", "--keep-it", "--keep-that"],
            takes: Takes::Nothing,
            help: Some("keep it"),
        },
        Spec {
            flags: &["-I", "--interactive", "--no-interactive"],
            takes: Takes::Nothing,
            help: Some("by hand"),
        },
        Spec {
            flags: &["-o", "--output_directory"],
            takes: Takes::One("DIR"),
            help: Some("where to"),
        },
        Spec {
            flags: &["--vm-names"],
            takes: Takes::Any("NAME"),
            help: Some("names"),
        },
        Spec {
            flags: &["--vm-start-scripts"],
            takes: Takes::Any("SCRIPT"),
            help: None,
        },
    ];

    /// What is read, written in one line.
    fn read(line: &str) -> String {
        let args = line.split(' ').filter(|word| !word.is_empty());
        let args = args.map(|word| word.replace('_', " ").into()).collect();
        match parse(OPTIONS, args) {
            Err(error) => error,
            Ok(parsed) => {
                let mut text = String::new();
                for given in parsed.options {
                    text += &format!("{}{:?} ", given.flag, given.values);
                }
                text += &format!("<{}>", parsed.positional.unwrap_or_default().display());
                for unknown in parsed.unknown {
                    text += &format!(" ?{}", unknown.display());
                }
                text
            }
        }
    }

    #[test]
    fn values_are_taken_in_every_way() {
        assert_eq!(read("-o a s"), r#"-o["a"] <s>"#);
        assert_eq!(read("s -oa"), r#"-o["a"] <s>"#);
        assert_eq!(read("-o=a s"), r#"-o["a"] <s>"#);
        assert_eq!(read("--outp=a=b s"), r#"--output_directory["a=b"] <s>"#);
        assert_eq!(read("--outp a s"), r#"--output_directory["a"] <s>"#);
        assert_eq!(read("--outp= s"), r#"--output_directory[""] <s>"#);
    }

    #[test]
    fn lists_end_at_the_next_option() {
        assert_eq!(
            read("--vm-names a b -K s"),
            r#"--vm-names["a", "b"] -K[] <s>"#
        );
        assert_eq!(read("--vm-names -K s"), r"--vm-names[] -K[] <s>");
        assert_eq!(read("s --vm-names a b"), r#"--vm-names["a", "b"] <s>"#);
        assert_eq!(read("--vm-names=a s"), r#"--vm-names["a"] <s>"#);
        // As in argparse, a list takes what is meant for the positional argument.
        assert_eq!(read("--vm-names a s"), r#"--vm-names["a", "s"] <>"#);
    }

    #[test]
    fn options_can_be_cut_short_where_that_says_which() {
        assert_eq!(read("--k s"), "--keep-it[] <s>");
        assert_eq!(read("--vm-n a -K s"), r#"--vm-names["a"] -K[] <s>"#);
        assert_eq!(
            read("--vm a"),
            "ambiguous option: --vm could match --vm-names, --vm-start-scripts"
        );
        assert_eq!(read("--no s"), "--no-interactive[] <s>");
    }

    #[test]
    fn letters_share_a_dash() {
        assert_eq!(read("-KI s"), "-K[] -I[] <s>");
        assert_eq!(read("-KIoa s"), r#"-K[] -I[] -o["a"] <s>"#);
        assert_eq!(
            read("-Kx s"),
            "argument -K/--keep-it/--keep-that: ignored explicit argument 'x'"
        );
        assert_eq!(
            read("--keep-it=1 s"),
            "argument -K/--keep-it/--keep-that: ignored explicit argument '1'"
        );
        assert_eq!(
            read("-Ko"),
            "argument -o/--output_directory: expected one argument"
        );
    }

    #[test]
    fn what_is_missing_or_unknown_is_told() {
        assert_eq!(
            read("-o"),
            "argument -o/--output_directory: expected one argument"
        );
        assert_eq!(
            read("-o -K s"),
            "argument -o/--output_directory: expected one argument"
        );
        assert_eq!(read("--foo a b"), "<a> ?--foo ?b");
        assert_eq!(read("-x s"), "<s> ?-x");
    }

    #[test]
    fn dashes_end_the_options() {
        assert_eq!(read("-- -K"), "<-K>");
        assert_eq!(read("-K -- --vm-names x"), "-K[] <--vm-names> ?x");
        assert_eq!(read("--vm-names a -- s"), r#"--vm-names["a"] <s>"#);
        assert_eq!(
            read("-o -- -x s"),
            "argument -o/--output_directory: expected one argument"
        );
    }

    #[test]
    fn not_all_that_begins_with_a_dash_is_an_option() {
        assert_eq!(read("-"), "<->");
        assert_eq!(read("-o -1 s"), r#"-o["-1"] <s>"#);
        assert_eq!(read("-o -.5 s"), r#"-o["-.5"] <s>"#);
        assert_eq!(read("-x_y"), "<-x y>");
    }

    /// argparse, with the options above, saying what it reads as [`read`] does.
    const ARGPARSE: &str = r#"
import argparse, sys
class Given(argparse.Action):
    def __call__(self, parser, namespace, values, flag=None):
        values = values if isinstance(values, list) else [values]
        quoted = ", ".join('"%s"' % value for value in values)
        namespace.text += "%s[%s] " % (full(flag), quoted)
FLAGS = [["-K", "--keep-it"], ["-I", "--interactive", "--no-interactive"],
         ["-o", "--output_directory"], ["--vm-names"], ["--vm-start-scripts"]]
def full(flag):
    known = [name for names in FLAGS for name in names]
    return flag if flag in known else [name for name in known if name.startswith(flag)][0]
class Stop(Exception):
    pass
class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise Stop(message)
parser = Parser(add_help=False)
for names, nargs in zip(FLAGS, [0, 0, None, "*", "*"]):
    parser.add_argument(*names, nargs=nargs, action=Given)
parser.add_argument("script", nargs="?", default=None)
for line in sys.stdin.read().splitlines():
    words = [word.replace("_", " ") for word in line.split(" ") if word]
    # One positional argument that must be there, but whose absence is told elsewhere.
    parser._get_positional_actions()[0].nargs = None
    parser._get_positional_actions()[0].required = False
    try:
        known, unknown = parser.parse_known_args(words, argparse.Namespace(text=""))
        # A stray `--` is left over there, and nothing here.
        unknown = [word for word in unknown if word != "--"]
        print(known.text + "<%s>" % (known.script or "") + "".join(" ?" + word for word in unknown))
    except Stop as stop:
        print(stop)
"#;

    #[test]
    fn argparse_reads_the_same() {
        use std::io::Write;
        use std::process::{Command, Stdio};

        let pieces = [
            "-K",
            "-I",
            "--keep-it",
            "--k",
            "--no",
            "-o",
            "-oa",
            "-o=a",
            "--outp",
            "--outp=a=b",
            "--outp=",
            "--vm-names",
            "--vm-n=a",
            "--vm",
            "--vm-start-scripts",
            "-KI",
            "-KIoa",
            "-Ko",
            "a",
            "b",
            "-",
            "-1",
            "-.5",
            "-x",
            "--foo",
            "-x_y",
        ];
        let mut lines: Vec<String> = Vec::new();
        for one in pieces {
            for two in pieces {
                lines.push(format!("{one} {two}"));
                lines.push(format!("{one} {two} -- -s"));
                for three in ["a", "-K", "--vm-names", "-1"] {
                    lines.push(format!("{one} {two} {three}"));
                    lines.push(format!("{three} {one} {two} s"));
                }
            }
        }
        let mut python = Command::new("python3")
            .args(["-c", ARGPARSE])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = python.stdin.take().unwrap();
        let text = lines.join("\n");
        let writing = std::thread::spawn(move || stdin.write_all(text.as_bytes()).unwrap());
        let output = python.wait_with_output().unwrap();
        writing.join().unwrap();
        let output = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.lines().count(), lines.len());
        for (line, theirs) in lines.iter().zip(output.lines()) {
            assert_eq!(read(line), theirs, "{line:?}");
        }
    }
}
