//! The program without a machine: its help, its messages, its exit codes.

mod host;

use anyhow::Result;
use machinist_tests::Bench;

const LAB: &str = r#"
[machine.web]
image = "debian:bookworm"
[machine.db]
kind = "vm"
image = "debian:bookworm"

[[test]]
name = "serves"
tags = ["quick"]
machines = ["web"]
steps = [{ machine = "web", run = "true" }]

[[test]]
name = "stores"
script = "stores.py"
"#;

#[test]
fn help_groups_the_verbs_and_names_the_exit_codes() -> Result<()> {
    let ran = Bench::new()?.machinist(&["--help"]).run()?.exits(0)?;
    for part in [
        "\nTest:\n",
        "\nOne machine:\n",
        "\nLabs:\n",
        "\nSet-up:\n",
        "  124  a test took",
    ] {
        assert!(ran.stdout.contains(part), "{part:?}: {ran}");
    }
    assert_eq!(ran.stderr, "");
    Ok(())
}

#[test]
fn every_verb_has_help() -> Result<()> {
    let bench = Bench::new()?;
    let help = bench.machinist(&["--help"]).run()?.stdout;
    let verbs: Vec<&str> = help
        .lines()
        .filter_map(|line| line.strip_prefix("  ")?.split_once("  "))
        .map(|(verb, _)| verb)
        .filter(|verb| verb.chars().all(|c| c.is_ascii_lowercase()) && !verb.is_empty())
        .collect();
    assert!(verbs.len() >= 16, "{verbs:?}");
    for verb in verbs {
        bench
            .machinist(&[verb, "--help"])
            .run()?
            .exits(0)?
            .says("Usage: machinist")?;
    }
    Ok(())
}

#[test]
fn a_wrong_command_line_is_2() -> Result<()> {
    let bench = Bench::with_lab(LAB)?;
    for words in [
        &["fly"][..],
        &[],
        &["test", "--jobs", "0"],
        &["test", "--timeout-factor", "-1"],
        &["run"],
        &["run", "--volume", "nowhere", "--", "true"],
        &["run", "--memory", "12", "--", "true"],
        &["run", "--image", "host", "--package", "curl", "--", "true"],
        &["cp", "a", "web:relative"],
    ] {
        bench.machinist(words).run()?.exits(2)?;
    }
    bench.nothing_left()
}

#[test]
fn six_mistakes_are_told_at_once_each_with_its_line() -> Result<()> {
    let bench = Bench::with_lab(
        r#"[machine.web]
imge = "debian:bookworm"
memory = "512"
vlans = [300]

[machine."not a name"]
image = "nowhere"

[[test]]
name = "t"
steps = [{ machine = "webb", run = "true" }]
"#,
    )?;
    for verb in ["test", "check", "list", "up"] {
        let ran = bench.machinist(&[verb]).run()?.exits(104)?;
        for part in [
            "lab.toml:2",
            "lab.toml:3",
            "lab.toml:4",
            "lab.toml:6",
            "lab.toml:7",
            "lab.toml:11",
            "image",
            "unit",
            "254",
            "nowhere",
            "webb",
        ] {
            assert!(ran.stderr.contains(part), "{part:?}: {ran}");
        }
        assert!(ran.stderr.contains("mistakes"), "{ran}");
        assert_eq!(ran.stdout, "", "{ran}");
    }
    bench.nothing_left()
}

#[test]
fn no_lab_file_is_104_with_a_hint() -> Result<()> {
    let bench = Bench::new()?;
    bench
        .machinist(&["list"])
        .run()?
        .exits(104)?
        .complains("hint:")?;
    bench
        .machinist(&["list", "--file", "nothing.toml"])
        .run()?
        .exits(104)?
        .complains("cannot read the lab file nothing.toml")?;
    Ok(())
}

#[test]
fn a_lab_file_is_found_above() -> Result<()> {
    let bench = Bench::with_lab(LAB)?;
    std::fs::create_dir(bench.path().join("below"))?;
    let words = ["--file", "../lab.toml"];
    bench
        .machinist(&["list", words[0], "lab.toml"])
        .run()?
        .exits(0)?
        .says("serves")?;
    bench
        .machinist_in("below", &["list"])
        .run()?
        .exits(0)?
        .says("serves")?;
    bench
        .machinist_in("below", &["list", words[0], words[1]])
        .run()?
        .exits(0)?
        .says("serves")?;
    Ok(())
}

#[test]
fn nothing_selected_is_4_and_names_what_there_is() -> Result<()> {
    let bench = Bench::with_lab(LAB)?;
    bench
        .machinist(&["test", "zzz"])
        .run()?
        .exits(4)?
        .complains("serves, stores")?;
    bench.machinist(&["test", "=serve"]).run()?.exits(4)?;
    bench.machinist(&["show", "zzz"]).run()?.exits(4)?;
    bench.machinist(&["down"]).run()?.exits(4)?;
    bench.machinist(&["attach"]).run()?.exits(4)?;
    bench.machinist(&["logs"]).run()?.exits(4)?;
    bench.nothing_left()
}

#[test]
fn list_filters_by_part_name_and_tag() -> Result<()> {
    let bench = Bench::with_lab(LAB)?;
    let names = |words: &[&str]| -> Result<Vec<String>> {
        let ran = bench.machinist(words).run()?.exits(0)?;
        let tests = ran.json()?;
        let tests = tests.as_array().cloned().unwrap_or_default();
        let name = |test: &serde_json::Value| test["name"].as_str().map(str::to_owned);
        Ok(tests.iter().filter_map(name).collect())
    };
    assert_eq!(names(&["list", "--format", "json"])?, ["serves", "stores"]);
    assert_eq!(names(&["list", "--format", "json", "tor"])?, ["stores"]);
    assert_eq!(names(&["list", "--format", "json", "=serves"])?, ["serves"]);
    assert_eq!(
        names(&["list", "--format", "json", "tag:quick"])?,
        ["serves"]
    );
    Ok(())
}

#[test]
fn show_says_why_a_machine_is_what_it_is() -> Result<()> {
    let bench = Bench::with_lab(LAB)?;
    let ran = bench
        .machinist(&["show", "stores", "--format", "json"])
        .run()?
        .exits(0)?;
    let shown = ran.json()?;
    assert_eq!(shown["machines"][0]["name"], "db");
    assert_eq!(shown["machines"][0]["kind"], "vm");
    assert_eq!(shown["machines"][0]["addresses"][0], "192.168.1.1");
    assert_eq!(shown["machines"][1]["kind"], "container");
    assert!(shown["machines"][1]["because"].is_string());
    bench
        .machinist(&["show", "stores"])
        .run()?
        .exits(0)?
        .says("192.168.1.2")?;
    Ok(())
}

#[test]
fn what_boots_each_time_is_told_before_it_does() -> Result<()> {
    let lab = "[machine.warm]\nkind = 'vm'\nimage = 'debian:bookworm'\n\
               [machine.cold]\nkind = 'vm'\nimage = 'debian:bookworm'\nsnapshot = false\n\
               [machine.host]\nkind = 'vm'\nimage = 'host'\n\
               [[test]]\nname = 't'\nscript = 't.py'\n";
    let bench = Bench::with_lab(lab)?;
    bench.write("t.py", "")?;
    let show = |env: &str| -> Result<Vec<(String, Option<String>)>> {
        let show = bench.machinist(&["show", "t", "--format", "json"]);
        let shown = show.env("MACHINIST_COLD", env).run()?.exits(0)?.json()?;
        let machines = shown["machines"].as_array().cloned().unwrap_or_default();
        let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
        let start = |it: &serde_json::Value| {
            (
                text(&it["start"]).unwrap_or_default(),
                text(&it["cold_because"]),
            )
        };
        Ok(machines.iter().map(start).collect())
    };
    let told = show("")?;
    assert_eq!(
        told[0].1.as_deref(),
        Some("the lab file says `snapshot = false`")
    );
    assert_eq!(
        told[1].1.as_deref(),
        Some("its image is this host's own root")
    );
    assert_eq!(told[2], ("warm".to_owned(), None));
    assert_eq!(show("1")?[2].0, "cold");
    let show = bench.machinist(&["show", "t"]).run()?.exits(0)?;
    show.says("cold boots each time: the lab file says `snapshot = false`")?;
    let check = bench.machinist(&["check"]).run()?.exits(0)?;
    check.complains("machine host boots each time: its image is this host's own root")?;
    Ok(())
}

#[test]
fn what_never_fits_into_the_budget_is_told_before_anything_boots() -> Result<()> {
    let lab = "[machine.a]\nkind = 'vm'\nimage = 'debian:bookworm'\nmemory = '2G'\ncount = 2\n\
               [[test]]\nname = 't'\nsteps = [{ machine = 'a-1', run = 'true' }]\n";
    let bench = Bench::with_lab(lab)?;
    for words in [
        &["test", "--memory-budget", "2G"][..],
        &["up", "--memory-budget", "2G"],
    ] {
        let ran = bench.machinist(words).run()?.exits(96)?;
        let ran = ran.complains("the machines need 2816M of memory, and the budget is 2G")?;
        ran.complains("raise the budget with --memory-budget")?;
    }
    let ran = bench
        .machinist(&["test"])
        .env("MACHINIST_MEMORY_BUDGET", "1G");
    ran.run()?.exits(96)?.complains("the budget is 1G")?;
    let ran = bench
        .machinist(&["test"])
        .env("MACHINIST_MEMORY_BUDGET", "lots");
    ran.run()?
        .exits(2)?
        .complains("MACHINIST_MEMORY_BUDGET: `lots` is not a size")?;
    Ok(())
}

#[test]
fn without_snapshots_there_are_none_to_list() -> Result<()> {
    let bench = Bench::with_lab(LAB)?;
    let cache = bench.path().join("cache");
    let machinist = |words: &[&str]| bench.machinist(words).env("MACHINIST_CACHE", &cache);
    let list = machinist(&["snapshot", "list", "--format", "json"]);
    assert_eq!(list.run()?.exits(0)?.json()?, serde_json::json!([]));
    let prune = machinist(&["snapshot", "prune", "--all"]);
    prune.run()?.exits(0)?.complains("freed 0 B")?;
    machinist(&["snapshot", "prune", "--all", "--to-size", "1G"])
        .run()?
        .exits(2)?;
    // Who only looks makes nothing.
    let list = machinist(&["image", "list", "--format", "json"]);
    assert_eq!(list.run()?.exits(0)?.json()?, serde_json::json!([]));
    machinist(&["image", "show", "x"]).run()?.exits(4)?;
    machinist(&["image", "prune"]).run()?.exits(0)?;
    machinist(&["show", "stores"]).run()?.exits(0)?;
    machinist(&["list"]).run()?.exits(0)?;
    machinist(&["check"]).run()?.exits(104)?;
    assert!(!cache.exists(), "a cache that nobody needs");
    Ok(())
}

#[test]
fn check_finds_missing_files_and_wrong_scripts() -> Result<()> {
    let bench = Bench::with_lab(LAB)?;
    bench
        .machinist(&["check"])
        .run()?
        .exits(104)?
        .says("stores.py")?;
    // Nor does anything boot for it.
    bench
        .machinist(&["test"])
        .run()?
        .exits(104)?
        .complains("stores.py")?;
    bench.write("stores.py", "def broken(:\n")?;
    bench
        .machinist(&["check"])
        .run()?
        .exits(104)?
        .says("line 1")?;
    bench.write("stores.py", "db.succeed('true')\n")?;
    bench
        .machinist(&["check"])
        .run()?
        .exits(0)?
        .says("no mistakes")?;
    Ok(())
}

#[test]
fn no_session_is_an_empty_list() -> Result<()> {
    let bench = Bench::new()?;
    let ran = bench
        .machinist(&["ps", "--format", "json"])
        .run()?
        .exits(0)?;
    assert_eq!(ran.json()?, serde_json::json!([]));
    bench.machinist(&["ps"]).run()?.exits(0)?.says("SESSION")?;
    bench.nothing_left()
}

#[test]
fn schema_completions_and_man_are_data() -> Result<()> {
    let bench = Bench::new()?;
    let schema = bench.machinist(&["schema"]).run()?.exits(0)?.json()?;
    assert!(schema["properties"]["machine"].is_object());
    for shell in ["bash", "zsh", "fish"] {
        bench
            .machinist(&["completions", shell])
            .run()?
            .exits(0)?
            .says("machinist")?;
    }
    bench
        .machinist(&["man"])
        .run()?
        .exits(0)?
        .says(".TH machinist")?;
    bench
        .machinist(&["man", "run"])
        .run()?
        .exits(0)?
        .says("fresh machine")?;
    bench.machinist(&["man", "fly"]).run()?.exits(2)?;
    Ok(())
}

#[test]
fn a_reader_that_goes_away_is_no_error() -> Result<()> {
    let bench = Bench::with_lab(LAB)?;
    let program = machinist_tests::machinist().display().to_string();
    let output = std::process::Command::new("sh")
        .arg("-c")
        .arg(format!(
            "{program} schema | head -c 1 >/dev/null; {program} list | head -c 1"
        ))
        .current_dir(bench.path())
        .output()?;
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    // What cannot be stored is: whoever reads the file would believe that it is whole.
    for words in [&["schema"][..], &["list"], &["completions", "bash"]] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full")?;
        let output = std::process::Command::new(&program)
            .args(words)
            .current_dir(bench.path())
            .stdout(full)
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(96), "{said}");
        assert!(said.contains("No space left on device"), "{said}");
    }
    Ok(())
}
