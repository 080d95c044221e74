//! What is asked, and what came out.

/// One row, before it is measured.
#[derive(Debug, Clone)]
pub struct Question {
    /// A few words, as the table names it.
    pub name: &'static str,
    /// What the other side is, such as `systemd-nspawn -b`; none where there is a limit alone.
    pub peer: Option<&'static str>,
    /// What is measured.
    pub unit: Unit,
    /// What must hold. None: the row is for information.
    pub limits: Vec<Limit>,
    /// How both sides are measured: a sentence or two.
    pub how: &'static str,
}

/// What a number means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Less is better.
    Seconds,
    /// More is better.
    BitsPerSecond,
    /// Less is better.
    Bytes,
}

/// What must hold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Limit {
    /// Ours is at most this often theirs.
    AtMost(f64),
    /// Ours is at least this often theirs.
    AtLeast(f64),
    /// Ours is at most this, in the unit of the row.
    Within(f64),
}

/// One measurement of a row.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Of machinist.
    pub ours: f64,
    /// Of the other side.
    pub theirs: Option<f64>,
}

impl Sample {
    /// Of both sides.
    pub const fn pair(ours: f64, theirs: f64) -> Self {
        let theirs = Some(theirs);
        Self { ours, theirs }
    }

    /// Where there is no other side.
    pub const fn alone(ours: f64) -> Self {
        Self { ours, theirs: None }
    }
}

/// A row that has been measured.
#[derive(Debug, Clone)]
pub struct Row {
    /// What was asked.
    pub question: Question,
    /// The median of ours.
    pub ours: f64,
    /// The median of theirs.
    pub theirs: Option<f64>,
}

impl Row {
    /// The medians of samples.
    pub fn of(question: Question, samples: impl Iterator<Item = Sample>) -> Self {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for sample in samples {
            ours.push(sample.ours);
            theirs.extend(sample.theirs);
        }
        Self {
            question,
            ours: median(ours),
            theirs: (!theirs.is_empty()).then(|| median(theirs)),
        }
    }

    /// How often ours is theirs.
    pub fn ratio(&self) -> Option<f64> {
        self.theirs.map(|theirs| self.ours / theirs)
    }

    /// Whether every limit holds.
    pub fn holds(&self) -> bool {
        let compared = |so: &dyn Fn(f64) -> bool| self.ratio().is_some_and(so);
        self.question.limits.iter().all(|limit| match *limit {
            Limit::AtMost(limit) => compared(&|ratio| ratio <= limit),
            Limit::AtLeast(limit) => compared(&|ratio| ratio >= limit),
            Limit::Within(limit) => self.ours <= limit,
        })
    }
}

/// The middle of the values; of an even number, the upper one.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A row about seconds.
    pub fn row(limits: Vec<Limit>, ours: f64, theirs: Option<f64>) -> Row {
        let question = Question {
            name: "round trip",
            peer: theirs.map(|_| "nsenter"),
            unit: Unit::Seconds,
            limits,
            how: "By hand.",
        };
        let samples = [1.0, 3.0, 0.5].map(|factor| Sample {
            ours: ours * factor,
            theirs: theirs.map(|it| it * factor),
        });
        Row::of(question, samples.into_iter())
    }

    #[test]
    fn a_median_is_the_middle() {
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
    }

    #[test]
    fn limits_hold_on_their_own_side() {
        let holds = |limit, ours, theirs| row(vec![limit], ours, theirs).holds();
        assert!(holds(Limit::AtMost(1.2), 1.1, Some(1.0)));
        assert!(!holds(Limit::AtMost(1.2), 1.3, Some(1.0)));
        assert!(holds(Limit::AtLeast(6.0), 9.0, Some(1.0)));
        assert!(!holds(Limit::AtLeast(6.0), 5.0, Some(1.0)));
        assert!(holds(Limit::Within(0.02), 0.01, None));
        assert!(!holds(Limit::Within(0.02), 0.03, None));
        // Nothing to compare with is no success.
        assert!(!holds(Limit::AtMost(1.2), 1.0, None));
        assert!(row(Vec::new(), 9.0, None).holds());
    }

    #[test]
    fn all_limits_count() {
        let both = vec![Limit::AtMost(0.2), Limit::Within(0.002)];
        assert!(row(both.clone(), 0.001, Some(0.01)).holds());
        assert!(!row(both.clone(), 0.001, Some(0.002)).holds());
        assert!(!row(both, 0.003, Some(1.0)).holds());
    }
}
