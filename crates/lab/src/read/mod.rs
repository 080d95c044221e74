//! From the tree of values to the lab, and the mistakes that only show when one looks at several
//! keys together.
//!
//! [`shape::check`] has told everything that is wrong with single values before; here such values
//! are passed over in silence.

mod image;
mod machine;
mod names;
mod test;

use std::collections::BTreeMap;

use crate::problem::Problem;
use crate::shape::{self, Shape};
use crate::source::{Entry, Value};
use crate::types::{Image, Lab, Vlan, VlanId};

/// What is known while reading.
struct Reader<'a> {
    text: &'a str,
    root: &'a Value,
    problems: Vec<Problem>,
    images: BTreeMap<String, Image>,
}

/// The lab that `root` describes, as far as it can be understood, and everything that is wrong.
pub(crate) fn read(text: &str, root: &Value) -> (Lab, Vec<Problem>) {
    let mut reader = Reader {
        text,
        root,
        problems: Vec::new(),
        images: BTreeMap::new(),
    };
    shape::check(root, &Shape::Table(&shape::LAB), "", &mut reader.problems);
    reader.read_images();
    let machines = reader.read_machines();
    let tests = reader.read_tests(&machines);
    let declared = reader.section("vlan");
    let mut vlans: BTreeMap<VlanId, Vlan> = declared
        .iter()
        .filter_map(|entry| Some((entry.key.parse().ok()?, Vlan::default())))
        .collect();
    let used = machines.all.iter().flat_map(|machine| &machine.vlans);
    vlans.extend(used.map(|vlan| (*vlan, Vlan::default())));
    let lab = Lab {
        machines: machines.all,
        vlans,
        images: reader.images,
        tests,
    };
    (lab, reader.problems)
}

impl<'a> Reader<'a> {
    /// The entries of a table at the top.
    fn section(&self, name: &str) -> &'a [Entry] {
        self.root.get(name).map_or(&[], Value::entries)
    }

    fn problem(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// The line that a place is on, counted from 1.
    fn line(&self, value: &Value) -> usize {
        let before = self.text.get(..value.span.start).unwrap_or("");
        before.matches('\n').count() + 1
    }
}

/// The strings of a list.
fn strings(value: Option<&Value>) -> impl Iterator<Item = &str> {
    value
        .map_or(&[][..], Value::items)
        .iter()
        .filter_map(Value::str)
}

/// What a string parses to, if it is there and does.
fn parsed<T: std::str::FromStr>(value: Option<&Value>) -> Option<T> {
    value?.str()?.parse().ok()
}
