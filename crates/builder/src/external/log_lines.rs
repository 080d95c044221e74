//! The log as the machine's Nix prints it, without what that one says itself.

/// Nix keeps the directory of a failed build in the machine, where nobody would find it.
const OWN_WORDS: &[u8] = b"note: keeping build directory ";

/// Lets whole lines through.
#[derive(Debug, Default)]
pub(super) struct LogLines {
    begun: Vec<u8>,
}

impl LogLines {
    /// Takes what was printed, and gives what can be shown of it by now.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.begun.extend_from_slice(bytes);
        let Some(end) = self.begun.iter().rposition(|byte| *byte == b'\n') else {
            return Vec::new();
        };
        let rest = self.begun.split_off(end + 1);
        let lines = std::mem::replace(&mut self.begun, rest);
        let lines = lines.split_inclusive(|byte| *byte == b'\n');
        lines
            .filter(|line| !line.starts_with(OWN_WORDS))
            .flatten()
            .copied()
            .collect()
    }

    /// What is left at the end.
    pub(super) fn rest(self) -> Vec<u8> {
        self.begun
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_lines_of_the_build() {
        let mut log = LogLines::default();
        assert_eq!(log.take(b"a\nb"), b"a\n");
        assert_eq!(log.take(b"c\nnote: keeping build di"), b"bc\n");
        assert_eq!(log.take(b"rectory \"/x\"\nend"), b"");
        assert_eq!(log.rest(), b"end");
    }
}
