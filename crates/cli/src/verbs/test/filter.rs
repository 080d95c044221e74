//! Which tests are meant.

use std::fmt;

use clap::Args;
use machinist_lab::Test;

/// Which tests are meant: all, or those that match any of the filters.
#[derive(Debug, Args)]
pub struct Filters {
    /// A part of a test's name, `=NAME` for exactly that test, or `tag:TAG`
    #[arg(value_name = "FILTER")]
    filters: Vec<String>,
}

impl Filters {
    /// The tests that are meant, in the order of the file.
    pub fn apply(&self, tests: &[Test]) -> Vec<Test> {
        let wanted = |test: &&Test| {
            self.filters.is_empty() || self.filters.iter().any(|filter| matches(filter, test))
        };
        tests.iter().filter(wanted).cloned().collect()
    }
}

impl fmt::Display for Filters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted: Vec<_> = self
            .filters
            .iter()
            .map(|filter| format!("{filter:?}"))
            .collect();
        f.write_str(&quoted.join(" or "))
    }
}

fn matches(filter: &str, test: &Test) -> bool {
    if let Some(name) = filter.strip_prefix('=') {
        test.name == name
    } else if let Some(tag) = filter.strip_prefix("tag:") {
        test.tags.iter().any(|known| known == tag)
    } else {
        test.name.contains(filter)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use machinist_lab::Body;

    use super::*;

    #[test]
    fn filters_are_parts_names_and_tags() {
        let test = Test {
            name: "failover".into(),
            tags: vec!["slow".into()],
            timeout: Duration::from_secs(1),
            machines: Vec::new(),
            body: Body::Steps(Vec::new()),
        };
        for good in ["over", "failover", "=failover", "tag:slow"] {
            assert!(matches(good, &test), "{good}");
        }
        for bad in ["x", "=over", "tag:slo"] {
            assert!(!matches(bad, &test), "{bad}");
        }
    }
}
