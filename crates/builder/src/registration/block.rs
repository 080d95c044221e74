//! The lines of a machines file that are ours: between two marks, one block for each builder. All other
//! bytes stay what they are.

/// What every mark begins with. Nix takes it for a comment.
const MARK: &str = "# machinist builder ";
/// The end of a block's first line.
const BEGINS: &str = ": `machinist builder unregister` removes this";
/// The same, where the line before it had no end and was given one.
const BEGINS_JOINED: &str =
    ": `machinist builder unregister` removes this and the line end before it";
/// The end of a block's last line.
const ENDS: &str = " ends here";

/// A block without an end, or an end without a block: somebody has edited it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: the lines of machinist's builder {name} have no {missing}")]
pub struct BrokenBlock {
    name: String,
    line: usize,
    missing: &'static str,
}

/// A block that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Block {
    name: String,
    /// Its bytes, from the beginning of its first line to the end of its last.
    start: usize,
    end: usize,
    joined: bool,
}

/// The names of the builders that have a block, in order.
pub(super) fn names(text: &[u8]) -> Result<Vec<String>, BrokenBlock> {
    Ok(find(text)?.into_iter().map(|block| block.name).collect())
}

/// The text with one block for `name` that has `entry`: in the place of the one that is there, or at
/// the end.
pub(super) fn with(text: &[u8], name: &str, entry: &str) -> Result<Vec<u8>, BrokenBlock> {
    let mut own = find(text)?;
    own.retain(|block| block.name == name);
    let Some(first) = own.first().cloned() else {
        let joined = text.last().is_some_and(|last| *last != b'\n');
        let mut text = text.to_vec();
        if joined {
            text.push(b'\n');
        }
        text.extend(render(name, entry, joined).bytes());
        return Ok(text);
    };
    let mut changed = text.to_vec();
    // From the end, so that places stay right.
    for block in own.iter().skip(1).rev() {
        changed.drain(block.start..block.end);
    }
    let block = render(name, entry, first.joined);
    changed.splice(first.start..first.end, block.into_bytes());
    Ok(changed)
}

/// The text without a block for `name`; none if there is none.
pub(super) fn without(text: &[u8], name: &str) -> Result<Option<Vec<u8>>, BrokenBlock> {
    let mut own = find(text)?;
    own.retain(|block| block.name == name);
    if own.is_empty() {
        return Ok(None);
    }
    let mut changed = text.to_vec();
    for block in own.iter().rev() {
        changed.drain(block.start..block.end);
        // A line end that we added goes, unless something has come behind it.
        if block.joined && block.start == changed.len() {
            changed.pop();
        }
    }
    Ok(Some(changed))
}

fn render(name: &str, entry: &str, joined: bool) -> String {
    let begins = if joined { BEGINS_JOINED } else { BEGINS };
    format!("{MARK}{name}{begins}\n{entry}\n{MARK}{name}{ENDS}\n")
}

fn find(text: &[u8]) -> Result<Vec<Block>, BrokenBlock> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut open: Option<(Block, usize)> = None;
    let mut start = 0;
    for (number, line) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let end = start + line.len();
        let broken = |name: &str, line, missing| BrokenBlock {
            name: name.to_owned(),
            line,
            missing,
        };
        match mark(line) {
            Some(Mark::Begin { name, joined }) => {
                if let Some((block, line)) = open {
                    return Err(broken(&block.name, line, "end"));
                }
                let block = Block {
                    name,
                    start,
                    end,
                    joined,
                };
                open = Some((block, number + 1));
            }
            Some(Mark::End { name }) => match open.take() {
                Some((mut block, _)) if block.name == name => {
                    block.end = end;
                    blocks.push(block);
                }
                _ => return Err(broken(&name, number + 1, "beginning")),
            },
            None => {}
        }
        start = end;
    }
    match open {
        Some((block, line)) => Err(BrokenBlock {
            name: block.name,
            line,
            missing: "end",
        }),
        None => Ok(blocks),
    }
}

enum Mark {
    Begin { name: String, joined: bool },
    End { name: String },
}

fn mark(line: &[u8]) -> Option<Mark> {
    let line = std::str::from_utf8(line).ok()?.trim_end();
    let rest = line.strip_prefix(MARK)?;
    let begin = |end: &str| rest.strip_suffix(end).map(str::to_owned);
    if let Some(name) = begin(BEGINS_JOINED) {
        return Some(Mark::Begin { name, joined: true });
    }
    if let Some(name) = begin(BEGINS) {
        return Some(Mark::Begin {
            name,
            joined: false,
        });
    }
    begin(ENDS).map(|name| Mark::End { name })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_broken_block_is_left_alone() {
        let text = with(b"", "a", "ssh://a").unwrap();
        let cut = &text[..text.len() - 5];
        let begin = with(cut, "b", "x").unwrap_err();
        assert_eq!(
            begin.to_string(),
            "line 1: the lines of machinist's builder a have no end"
        );
        let end = format!("x\n{MARK}a{ENDS}\n");
        assert_eq!(without(end.as_bytes(), "a").unwrap_err().line, 2);
    }

    #[test]
    fn a_copy_of_a_block_goes() {
        let once = with(b"x\n", "a", "ssh://a").unwrap();
        let twice = [once.clone(), b"y\n".into(), with(b"", "a", "old").unwrap()].concat();
        let text = with(&twice, "a", "ssh://a").unwrap();
        assert_eq!(text, [once, b"y\n".into()].concat());
    }

    proptest! {
        /// Whatever is there already stays, byte for byte.
        #[test]
        fn what_is_not_ours_stays(
            before in prop::collection::vec(any::<u8>(), 0..200),
            after in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let one = with(&before, "one", "ssh://one").unwrap();
            let two = with(&one, "two", "ssh://two").unwrap();
            prop_assert_eq!(with(&two, "two", "ssh://two").unwrap(), two.clone());
            prop_assert_eq!(names(&two).unwrap(), ["one", "two"]);
            prop_assert_eq!(without(&two, "two").unwrap().unwrap(), one.clone());
            prop_assert_eq!(without(&one, "one").unwrap().unwrap(), before.clone());
            prop_assert_eq!(without(&before, "one").unwrap(), None);
            let changed = with(&two, "one", "ssh://other").unwrap();
            let back = with(&changed, "one", "ssh://one").unwrap();
            prop_assert_eq!(back, two.clone());
            // And what somebody writes behind it.
            let more = [one.as_slice(), &after].concat();
            let less = without(&more, "one").unwrap().unwrap();
            let end: &[u8] = if !after.is_empty() && !before.is_empty() && !before.ends_with(b"\n") { b"\n" } else { b"" };
            prop_assert_eq!(less, [&before, end, &after].concat());
        }
    }
}
