//! What a client says to Nix's daemon in the machine, as far as it asks for store paths. It is overheard,
//! never changed: where it is not understood, nothing more is heard, and builds go on without.
//!
//! ```text
//! client ──▶ magic, version ──▶ [features] ──▶ 0, 0 ──▶ operation, its fields ──▶ operation ...
//! ```
//!
//! A string has its length before it and is filled up to eight bytes; a list has its length before it; a
//! number has eight bytes. Contents come in frames, and end with an empty one.

use std::collections::VecDeque;

/// How every conversation begins.
pub(super) const CLIENT_MAGIC: u64 = 0x6e69_7863;
/// Since this version all operations are as they are written down here.
const OLDEST: u64 = 1 << 8 | 27;
/// More paths than any closure has: whoever asks for more is not Nix.
const MOST_PATHS: u64 = 1 << 18;
/// No store path is longer.
const LONGEST_PATH: u64 = 512;

/// A part of what is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Magic,
    Version,
    /// Either how many features follow, or the first of the zeros.
    Features,
    Operation,
    Number,
    Text,
    Texts,
    /// Groups of so many strings.
    Groups(u64),
    /// The paths that are asked for.
    Paths,
    /// One of them.
    Path,
    Frames,
}

use Field::{
    Features, Frames, Groups, Magic, Number, Operation, Path, Paths, Text, Texts, Version,
};

/// The fields of an operation.
const fn fields(operation: u64) -> Option<&'static [Field]> {
    Some(match operation {
        // IsValidPath, QueryReferrers, EnsurePath, AddTempRoot, QueryDeriver, QueryDerivationOutputs,
        // QueryPathInfo, QueryDerivationOutputNames, QueryPathFromHashPart, QueryValidDerivers,
        // NarFromPath, QueryDerivationOutputMap
        1 | 6 | 10 | 11 | 18 | 22 | 26 | 28 | 29 | 33 | 38 | 41 => &[Text],
        // AddToStore
        7 => &[Text, Text, Texts, Number, Frames],
        // BuildPaths, BuildPathsWithResults
        9 | 46 => &[Texts, Number],
        // SetOptions
        19 => &[
            Number,
            Number,
            Number,
            Number,
            Number,
            Number,
            Number,
            Number,
            Number,
            Number,
            Number,
            Number,
            Groups(2),
        ],
        // QueryValidPaths
        31 => &[Paths, Number],
        // QuerySubstitutablePaths, QueryMissing
        32 | 40 => &[Texts],
        // BuildDerivation
        36 => &[Text, Groups(4), Texts, Text, Text, Texts, Groups(2), Number],
        // AddToStoreNar
        39 => &[
            Text, Text, Text, Texts, Number, Number, Number, Texts, Text, Number, Number, Frames,
        ],
        // AddMultipleToStore
        44 => &[Number, Number, Frames],
        _ => return None,
    })
}

/// What follows.
#[derive(Debug, PartialEq, Eq)]
enum Now {
    /// A number, of which these bytes have come.
    Word(Vec<u8>),
    /// A path, of which these bytes have come, and so many are to come; then so many that fill it up.
    Path(Vec<u8>, u64, u64),
    /// So many bytes that say nothing to us.
    Skip(u64),
    /// Nothing is understood any more.
    Deaf,
}

/// A client's side of a conversation.
#[derive(Debug)]
pub(super) struct Talk {
    now: Now,
    /// What is read, and what comes after it.
    fields: VecDeque<Field>,
    heard: Vec<String>,
}

impl Talk {
    pub(super) fn new() -> Self {
        Self {
            now: Now::Word(Vec::new()),
            fields: VecDeque::from([Magic, Version, Features, Operation]),
            heard: Vec::new(),
        }
    }

    /// Hears the next bytes. Returns the paths that were asked for by questions that end in them.
    pub(super) fn hear(&mut self, mut bytes: &[u8]) -> Vec<String> {
        let mut asked = Vec::new();
        while !bytes.is_empty() {
            match &mut self.now {
                Now::Deaf => break,
                Now::Skip(left) => {
                    let length = taken(bytes, *left);
                    *left -= length as u64;
                    bytes = &bytes[length..];
                    if *left == 0 {
                        self.now = Now::Word(Vec::new());
                    }
                }
                Now::Path(path, left, filling) => {
                    let length = taken(bytes, *left);
                    path.extend_from_slice(&bytes[..length]);
                    *left -= length as u64;
                    bytes = &bytes[length..];
                    if *left == 0 {
                        // What is no text is no path.
                        let path = String::from_utf8(std::mem::take(path));
                        self.heard.extend(path);
                        self.now = skip(*filling);
                    }
                }
                Now::Word(word) => {
                    let length = taken(bytes, 8 - word.len() as u64);
                    word.extend_from_slice(&bytes[..length]);
                    bytes = &bytes[length..];
                    if let Ok(whole) = <[u8; 8]>::try_from(word.as_slice()) {
                        self.now = self.word(u64::from_le_bytes(whole)).unwrap_or(Now::Deaf);
                        if self.fields.is_empty() {
                            self.fields.push_back(Operation);
                            asked.append(&mut self.heard);
                        }
                    }
                }
            }
        }
        asked
    }

    /// A number is there: what follows it. `None` where it makes no sense.
    fn word(&mut self, word: u64) -> Option<Now> {
        let field = self.fields.pop_front()?;
        let mut next = Now::Word(Vec::new());
        match field {
            Magic if word == CLIENT_MAGIC => {}
            Version if word >= OLDEST && word >> 8 == OLDEST >> 8 => {}
            Magic | Version => return None,
            // Where there are none there may have been none to be told: only zeros follow either way.
            Features => self.more(word, 1)?,
            Operation if word == 0 => self.fields.push_front(Operation),
            Operation => self.fields.extend(fields(word)?),
            Number => {}
            Text => next = skip(filled(word)?),
            Texts => self.more(word, 1)?,
            Groups(size) => self.more(word, size)?,
            Paths if word <= MOST_PATHS => {
                (0..word).for_each(|_| self.fields.push_front(Path));
            }
            Path if word <= LONGEST_PATH && word > 0 => {
                next = Now::Path(Vec::new(), word, filled(word)? - word);
            }
            Paths | Path => return None,
            Frames if word == 0 => {}
            Frames => {
                self.fields.push_front(Frames);
                next = skip(word);
            }
        }
        Some(next)
    }

    /// So many groups of strings follow.
    fn more(&mut self, count: u64, size: u64) -> Option<()> {
        let count = count.checked_mul(size).filter(|it| *it <= MOST_PATHS)?;
        (0..count).for_each(|_| self.fields.push_front(Text));
        Some(())
    }
}

/// How many of the bytes belong to what `left` are still to come of.
fn taken(bytes: &[u8], left: u64) -> usize {
    usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()))
}

fn skip(bytes: u64) -> Now {
    match bytes {
        0 => Now::Word(Vec::new()),
        bytes => Now::Skip(bytes),
    }
}

/// The bytes of a string of this length, with what fills it up.
fn filled(length: u64) -> Option<u64> {
    length.checked_next_multiple_of(8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::words::Words;
    use super::*;

    fn begin(version: u64) -> Words {
        Words::new().number(CLIENT_MAGIC).number(version)
    }

    fn paths() -> [String; 2] {
        ["/nix/store/a".into(), "/nix/store/bcdefghi".into()]
    }

    fn conversation(features: bool) -> Vec<u8> {
        let begun = if features {
            begin(1 << 8 | 38).texts(&["one".to_owned(), "another".to_owned()])
        } else {
            begin(1 << 8 | 35)
        };
        let words = begun.number(0).number(0);
        // QueryPathInfo, AddMultipleToStore, BuildDerivation with one output and two variables
        let words = words.number(26).text("/nix/store/x");
        let words = words.number(31).texts(&paths()[..1]).number(1);
        let words = words.number(44).number(0).number(1);
        let words = words.number(3).bytes(b"abc").number(8).bytes(&[31; 8]);
        let words = words.number(0);
        let words = words.number(36).text("x.drv").number(1);
        let words = words.text("out").text("/nix/store/o").text("").text("");
        let words = words.texts(&[]).text("x86_64-linux").text("/bin/sh");
        let words = words.texts(&["-c".into()]).number(2);
        let words = words.text("a").text("b").text("c").text("").number(0);
        words.number(31).texts(&paths()[1..]).number(0).done()
    }

    proptest! {
        /// However the bytes come, the same is heard, and not before the question is whole.
        #[test]
        fn questions_are_heard(cuts in proptest::collection::vec(1_usize..40, 0..60), features: bool) {
            let all = conversation(features);
            let (mut talk, mut asked, mut rest) = (Talk::new(), Vec::new(), all.as_slice());
            for cut in cuts.into_iter().chain([usize::MAX]) {
                let (now, later) = rest.split_at(cut.min(rest.len()));
                asked.extend(talk.hear(now));
                rest = later;
                if let Some((_, but_one)) = later.split_last() && but_one.is_empty() {
                    prop_assert_eq!(asked.len(), 1);
                }
            }
            prop_assert_eq!(asked, paths());
        }

        /// Whatever comes, it does not fall over.
        #[test]
        fn nonsense_is_not_understood(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut talk = Talk::new();
            let heard = talk.hear(&begin(1 << 8 | 38).number(0).number(0).done());
            prop_assert_eq!(heard, Vec::<String>::new());
            talk.hear(&bytes);
        }
    }

    #[test]
    fn after_what_is_not_known_nothing_is_heard() {
        let question = |words: Words| words.number(31).texts(&paths()).number(0).done();
        for begun in [
            begin(1 << 8 | 38).number(0).number(0).number(1000),
            begin(1 << 8 | 26).number(0).number(0),
            Words::new().number(7),
        ] {
            let mut talk = Talk::new();
            assert_eq!(talk.hear(&question(begun)), Vec::<String>::new());
            assert_eq!(talk.now, Now::Deaf);
        }
    }
}
