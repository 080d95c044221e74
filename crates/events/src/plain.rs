//! Text of a guest, made harmless for a terminal.
//!
//! A guest can print whatever it likes, and a terminal obeys escape sequences: they move the
//! cursor, set the title, answer questions on the user's behalf. None of them gets through.

use std::borrow::Cow;
use std::iter::Peekable;
use std::str::Chars;

/// A line as plain text: without its end, without escape sequences and other control characters
/// (tabs stay). A carriage return begins the line anew, as on a terminal: of a progress display
/// the last state is left. What is not UTF-8 becomes U+FFFD.
#[must_use]
pub fn printed_line(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end_matches(['\n', '\r']);
    let last = text.rsplit('\r').next().unwrap_or(text);
    plain(last).replace('\n', " ")
}

/// The text without escape sequences, control characters and marks that reorder what is shown.
/// Tabs and line feeds stay; a carriage return within a line becomes a space.
#[must_use]
pub fn plain(text: &str) -> Cow<'_, str> {
    if text.chars().all(harmless) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\x1b' => skip_escape(&mut chars),
            '\u{9b}' => skip_control_sequence(&mut chars),
            '\u{90}' | '\u{98}' | '\u{9d}' | '\u{9e}' | '\u{9f}' => skip_string(&mut chars),
            '\r' if (chars.peek()).is_some_and(|next| !matches!(next, '\n' | '\r')) => {
                out.push(' ');
            }
            c if harmless(c) => out.push(c),
            _ => {}
        }
    }
    Cow::Owned(out)
}

/// The text made harmless, and one line: line feeds and tabs become spaces.
#[must_use]
pub fn plain_line(text: &str) -> Cow<'_, str> {
    let text = plain(text);
    if text.contains(['\n', '\t']) {
        Cow::Owned(text.replace(['\n', '\t'], " "))
    } else {
        text
    }
}

/// Neither a control character nor one that makes other text appear elsewhere than it stands.
fn harmless(c: char) -> bool {
    match c {
        '\t' | '\n' => true,
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' => false,
        // No characters at all, and refused by XML.
        '\u{fffe}' | '\u{ffff}' => false,
        c => !c.is_control(),
    }
}

/// After ESC.
fn skip_escape(chars: &mut Peekable<Chars<'_>>) {
    match chars.peek() {
        Some('[') => {
            chars.next();
            skip_control_sequence(chars);
        }
        Some(']' | 'P' | 'X' | '^' | '_') => {
            chars.next();
            skip_string(chars);
        }
        _ => {
            // Intermediates, then one final character.
            while chars.next_if(|c| matches!(c, ' '..='/')).is_some() {}
            chars.next_if(|c| matches!(c, '0'..='~'));
        }
    }
}

/// After CSI: parameters, intermediates, a final character. What does not belong stays.
fn skip_control_sequence(chars: &mut Peekable<Chars<'_>>) {
    while chars.next_if(|c| matches!(c, ' '..='?')).is_some() {}
    chars.next_if(|c| matches!(c, '@'..='~'));
}

/// After OSC, DCS and the like: up to BEL or ST, but never past the end of the line, so that a
/// sequence that is not closed hides one line and not all that follows.
fn skip_string(chars: &mut Peekable<Chars<'_>>) {
    while let Some(c) = chars.next_if(|c| *c != '\n') {
        match c {
            '\x07' | '\u{9c}' => return,
            '\x1b' if chars.next_if_eq(&'\\').is_some() => return,
            _ => {}
        }
    }
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
    fn sequences_go_and_text_stays() {
        for (dirty, clean) in [
            ("plain\ttext\n", "plain\ttext\n"),
            ("\x1b[1;31mred\x1b[0m", "red"),
            ("\x1b]0;title\x07after", "after"),
            ("\x1b]8;;x\x1b\\link", "link"),
            ("\x1b(Bascii\x1b=", "ascii"),
            ("\u{9b}2Jcleared", "cleared"),
            ("\x1bPq...\x1b\\x", "x"),
            ("\x1b]open\nnext", "\nnext"),
            ("10%\r20%\r\n", "10% 20%\n"),
            ("a\u{202e}b\x08c\x7f", "abc"),
            ("\x1b", ""),
        ] {
            assert_eq!(plain(dirty), clean, "{dirty:?}");
        }
        assert_eq!(plain_line("a\nb\tc"), "a b c");
        assert_eq!(plain("a\r\nb\x1b[0m\n"), "a\nb\n");
        assert!(matches!(plain("nothing to do\n"), Cow::Borrowed(_)));
    }

    proptest! {
        #[test]
        fn nothing_that_a_terminal_obeys_is_left(
            text in "(.|\\x1b|\\[|\\]|[0-9;]|\\x07|\\x{9b}|\\n|\\r)*"
        ) {
            let clean = plain(&text);
            prop_assert!(clean.chars().all(harmless));
            prop_assert_eq!(plain(&clean), clean.as_ref());
            prop_assert!(plain_line(&text).chars().all(|c| !c.is_control()));
        }

        #[test]
        fn no_bytes_get_a_control_character_through(bytes: Vec<u8>) {
            prop_assert!(printed_line(&bytes).chars().all(|c| c == '\t' || !c.is_control()));
        }

        #[test]
        fn text_without_controls_is_untouched(text in "[a-zA-Z0-9äöü世 \\[\\];\\n\\t]*") {
            prop_assert_eq!(plain(&text), text.as_str());
        }
    }
}
