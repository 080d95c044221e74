//! Text without what terminals would take for commands.
//!
//! What guests print must never reach a terminal as it is: it could move the cursor, set the
//! title, or answer questions on the user's behalf.

use std::borrow::Cow;

/// Text without escape sequences and other control characters. Line ends and tabs stay. A carriage
/// return begins the line anew, as on a terminal: of a progress display the last state is left.
#[must_use]
pub fn plain(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unwanted) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    let mut first = true;
    for line in text.split('\n') {
        if !first {
            plain.push('\n');
        }
        first = false;
        append(line.trim_end_matches('\r'), &mut plain);
    }
    Cow::Owned(plain)
}

/// As [`plain`], in one line: ends of lines become spaces.
#[must_use]
pub fn plain_line(text: &str) -> Cow<'_, str> {
    match plain(text) {
        text if text.contains('\n') => Cow::Owned(text.replace('\n', " ")),
        text => text,
    }
}

/// A line that a program printed, as [`plain`] text without its end. What is not UTF-8 becomes
/// U+FFFD.
#[must_use]
pub fn printed_line(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    plain(text.trim_end_matches(['\n', '\r'])).into_owned()
}

/// Control characters, and marks that turn the direction of text around, which hide what a line
/// really says.
fn is_unwanted(c: char) -> bool {
    let turns = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    turns || (c.is_control() && c != '\n' && c != '\t')
}

/// Appends what of a line is plain.
fn append(line: &str, plain: &mut String) {
    let begin = plain.len();
    let mut rest = line.chars();
    while let Some(next) = rest.next() {
        match next {
            '\x1b' => skip_escape(&mut rest),
            // CSI and the string introducers in their one-character forms.
            '\u{9b}' => skip_until(&mut rest, is_final),
            '\u{90}' | '\u{98}' | '\u{9d}' | '\u{9e}' | '\u{9f}' => {
                skip_until(&mut rest, is_string_end);
            }
            '\r' => plain.truncate(begin),
            other if is_unwanted(other) => {}
            other => plain.push(other),
        }
    }
}

fn skip_escape(rest: &mut std::str::Chars<'_>) {
    match rest.next() {
        Some('[') => skip_until(rest, is_final),
        Some(']' | 'P' | 'X' | '^' | '_') => {
            skip_until(rest, is_string_end);
            // The end is BEL, or ESC and a backslash.
            let mut ahead = rest.clone();
            if ahead.next() == Some('\\') {
                *rest = ahead;
            }
        }
        // Intermediate characters, then one final: charset choices and the like.
        Some(' '..='/') => skip_until(rest, |next| ('0'..='~').contains(&next)),
        _ => {}
    }
}

fn skip_until(rest: &mut std::str::Chars<'_>, end: impl Fn(char) -> bool) {
    for next in rest.by_ref() {
        if end(next) {
            return;
        }
    }
}

fn is_final(next: char) -> bool {
    ('@'..='~').contains(&next)
}

fn is_string_end(next: char) -> bool {
    matches!(next, '\x07' | '\x1b' | '\u{9c}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn colours_titles_and_cursor_moves_go() {
        assert_eq!(printed_line(b"\x1b[1;32mOK\x1b[0m\tdone\r\n"), "OK\tdone");
        assert_eq!(printed_line(b"\x1b]0;title\x07a\x1b]8;;x\x1b\\b"), "ab");
        assert_eq!(printed_line(b"\x1b(Bx\x1b=y\x1b[?25h\x07"), "xy");
        assert_eq!(printed_line(b" 10%\r 50%\r100%"), "100%");
        assert_eq!(printed_line("a\u{9b}31mb\u{202e}c".as_bytes()), "abc");
        assert_eq!(printed_line(b"\xff!"), "\u{fffd}!");
        assert_eq!(printed_line(b"\x1b["), "");
    }

    #[test]
    fn lines_stay_or_become_one() {
        assert_eq!(plain("a\r\nb\x1b[0m\n"), "a\nb\n");
        assert_eq!(plain_line("a\nb"), "a b");
        assert!(matches!(plain("nothing to do\n"), Cow::Borrowed(_)));
    }

    proptest! {
        #[test]
        fn nothing_unwanted_is_left(text in ".*|[\\PC\x1b\x07\r\n\\[\\]\\\\0-9;a-z]*") {
            prop_assert!(!plain(&text).chars().any(is_unwanted));
            prop_assert!(!plain_line(&text).contains('\n'));
        }
    }
}
