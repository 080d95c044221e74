//! The ids of a user namespace, as the kernel tells of them in `/proc/PID/uid_map` and `gid_map`.

/// Ids that follow one another, inside and outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    /// The first of them, inside.
    pub inside: u32,
    /// The first of them, outside.
    pub outside: u32,
    /// How many, at least one.
    pub count: u32,
}

/// The ranges in the text of such a file. What is none is left out.
pub fn ranges(text: &str) -> impl Iterator<Item = IdRange> {
    text.lines().filter_map(|line| {
        let mut numbers = line.split_whitespace().map_while(|word| word.parse().ok());
        Some(IdRange {
            inside: numbers.next()?,
            outside: numbers.next()?,
            count: numbers.next()?,
        })
    })
}

/// How many ids are in the text of such a file.
#[must_use]
pub fn count(text: &str) -> u64 {
    ranges(text).map(|range| u64::from(range.count)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_counted() {
        let all = "         0          0 4294967295\n";
        assert_eq!(count(all), 4_294_967_295);
        assert_eq!(count("0 872415232 65536\n"), 65_536);
        assert_eq!(count("0 1000 1\n1 100000 65536\n"), 65_537);
        assert_eq!(count(""), 0);
        assert_eq!(count("0 1000\nnonsense\n"), 0);
    }
}
