//! Words for a shell.

/// `bytes` as one word of any POSIX shell's command line.
pub(super) fn word(bytes: &[u8]) -> Vec<u8> {
    let mut quoted = vec![b'\''];
    for &byte in bytes {
        match byte {
            b'\'' => quoted.extend_from_slice(b"'\\''"),
            byte => quoted.push(byte),
        }
    }
    quoted.push(b'\'');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_back_what_was_quoted() {
        for text in ["", "plain", "it's", "a\nb$(c)\"`\\", "''"] {
            let mut script = b"printf %s ".to_vec();
            script.extend(word(text.as_bytes()));
            let script = String::from_utf8(script).unwrap();
            let output = std::process::Command::new("sh")
                .args(["-c", &script])
                .output();
            assert_eq!(output.unwrap().stdout, text.as_bytes());
        }
    }
}
