//! What the C library of an emulator is told.

/// The variable that it reads when the program starts.
pub(crate) const NAME: &str = "GLIBC_TUNABLES";

/// Large pages for what is allocated, where the host gives them to who asks.
const LARGE_PAGES: &str = "glibc.malloc.hugetlb";

/// The variable's value, beside what it has already. An emulator looks for the next piece of translated
/// code in large tables, which small pages make slow: an eighth of all its time.
pub(crate) fn value(own: Option<&str>) -> String {
    match own {
        Some(own) if own.contains(LARGE_PAGES) => own.to_owned(),
        Some(own) if !own.is_empty() => format!("{own}:{LARGE_PAGES}=1"),
        _ => format!("{LARGE_PAGES}=1"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_user_says_stays() {
        assert_eq!(value(None), "glibc.malloc.hugetlb=1");
        assert_eq!(value(Some("")), "glibc.malloc.hugetlb=1");
        let own = "glibc.malloc.check=3";
        assert_eq!(
            value(Some(own)),
            "glibc.malloc.check=3:glibc.malloc.hugetlb=1"
        );
        let own = "glibc.malloc.hugetlb=0";
        assert_eq!(value(Some(own)), own);
    }
}
