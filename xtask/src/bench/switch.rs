//! TCP between containers, over our switch and over `vde_switch`.

use anyhow::{Context, Result};

use super::{Bench, Limit, Question, Sample, Unit};
use crate::command::{self, cargo};

/// The example of `crates/network` that measures both.
#[derive(Debug, Default)]
pub struct Switch;

fn example(arguments: &[&str]) -> Result<String> {
    let mut run = cargo([
        "run",
        "--quiet",
        "--release",
        "--package",
        "machinist-network",
    ]);
    run.args(["--example", "throughput"]).args(arguments);
    command::stdout(&mut run)
}

/// A value of a line `name<TAB>value<TAB>Gbit/s`.
fn value(said: &str, name: &str) -> Result<f64> {
    let line = said.lines().find_map(|line| {
        let (first, rest) = line.split_once('\t')?;
        let (value, _) = rest.split_once('\t')?;
        (first == name).then_some(value)
    });
    let value = line.with_context(|| format!("no {name} in: {said}"))?;
    Ok(value.parse::<f64>().context("no number")? * 1e9)
}

impl Bench for Switch {
    fn questions(&self) -> Vec<Question> {
        let question = |name, limits, how| Question {
            name,
            peer: Some("`vde_switch`, two `vde_plug2tap`"),
            unit: Unit::BitsPerSecond,
            limits,
            how,
        };
        vec![
            question(
                "switch: TCP, container to container",
                vec![Limit::AtLeast(6.0)],
                "one TCP connection for three seconds between two network namespaces on one VLAN, against the same \
                 over Debian's `vde2`.",
            ),
            question(
                "switch: TCP, container to a VM's socket",
                Vec::new(),
                "the same to a process in QEMU's place, so that the switch has to cut into segments and to sum up, \
                 and nothing is emulated.",
            ),
        ]
    }

    fn prepare(&mut self) -> Result<()> {
        example(&["1", "1"]).map(drop)
    }

    fn measure(&mut self) -> Result<Vec<Sample>> {
        let said = example(&["3", "1"])?;
        let theirs = value(&said, "vde")?;
        ["switch", "switch-to-stream"]
            .into_iter()
            .map(|name| Ok(Sample::pair(value(&said, name)?, theirs)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_name() {
        let said = "switch\t9.50\tGbit/s\nswitch-to-stream\t4\tGbit/s\nratio\t9\ttimes\n";
        assert!((value(said, "switch").unwrap() - 9.5e9).abs() < 1.0);
        assert!((value(said, "switch-to-stream").unwrap() - 4e9).abs() < 1.0);
        assert!(value(said, "vde").is_err());
    }
}
