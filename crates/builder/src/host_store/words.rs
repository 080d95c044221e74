//! How Nix's protocols write numbers, strings and lists.

/// A message that is being written.
#[derive(Debug, Default)]
pub(super) struct Words(Vec<u8>);

impl Words {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn number(self, number: u64) -> Self {
        self.bytes(&number.to_le_bytes())
    }

    pub(super) fn text(self, text: &str) -> Self {
        let filling = text.len().next_multiple_of(8) - text.len();
        self.number(text.len() as u64)
            .bytes(text.as_bytes())
            .bytes(&[0; 8][..filling])
    }

    #[cfg(test)]
    pub(super) fn texts(self, texts: &[String]) -> Self {
        let begun = self.number(texts.len() as u64);
        texts.iter().fold(begun, |words, text| words.text(text))
    }

    pub(super) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(super) fn done(self) -> Vec<u8> {
        self.0
    }
}
