//! Machines of Nix's, as its own build hook reads them.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, ensure};
use machinist_tests::nix::NixHost;

use crate::Case;

pub const CASES: &[Case] = &[Case {
    name: "machines::nix_reads_the_corpus_as_we_do",
    run: corpus,
}];

/// The texts that `machinist-builder` is tested with, and what it makes of them.
const CORPUS: &str = include_str!("../../../crates/builder/src/machines_file/corpus.txt");

const FILES: &str = "\
mkdir /corpus
printf 'ssh://one\\nssh://two\\n' > /corpus/two
printf '@/corpus/two\\nssh://three' > /corpus/nested
printf 'ssh://blank' > '/corpus/with blank'
";

/// The expectations of the corpus are those of a real hook.
fn corpus(host: &NixHost) -> Result<()> {
    let mut texts: Vec<String> = Vec::new();
    for line in CORPUS.lines() {
        if line.starts_with("== ") {
            texts.push(String::new());
        } else if let Some(text) = texts.last_mut().filter(|_| !line.starts_with("-> ")) {
            // As the tests of the parser read it.
            writeln!(text, "{}", line.replace('␍', "\r").replace('␉', "\t"))?;
        }
    }
    std::fs::write(host.rig().join("texts"), serde_json::to_vec(&texts)?)?;
    let script = format!("{FILES}python3 /repository/tests/tests/nix/machines.py < /rig/texts\n");
    let ran = host.run(&script)?.exits(0)?;
    let found: Vec<Option<Vec<String>>> =
        serde_json::from_str(&ran.stdout).with_context(|| ran.to_string())?;
    ensure!(found.len() == texts.len(), "{ran}");
    let mut found = found.into_iter();
    let mut real = String::new();
    for line in CORPUS.lines().filter(|line| !line.starts_with("-> ")) {
        if line.starts_with("== ") && !real.is_empty() {
            add(&mut real, found.next().flatten());
        }
        writeln!(real, "{line}")?;
    }
    add(&mut real, found.next().flatten());
    if real != CORPUS {
        let path = std::env::temp_dir().join("machinist-corpus.txt");
        std::fs::write(&path, &real)?;
        anyhow::bail!(
            "Nix reads machines otherwise than crates/builder/src/machines_file/corpus.txt says; what it says is in {}",
            path.display()
        );
    }
    Ok(())
}

fn add(text: &mut String, machines: Option<Vec<String>>) {
    let lines = match machines {
        None => vec!["FATAL".to_owned()],
        Some(machines) if machines.is_empty() => vec!["none".to_owned()],
        Some(machines) => machines,
    };
    for line in lines {
        text.push_str("-> ");
        text.push_str(&line);
        text.push('\n');
    }
}
