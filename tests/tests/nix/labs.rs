//! Labs as derivations, by `makeTest`.

use anyhow::{Result, ensure};
use machinist_tests::nix::NixHost;

use crate::Case;
use crate::driver::FAILED;

pub const CASES: &[Case] = &[
    Case {
        name: "labs::a_lab_is_a_derivation",
        run: lab,
    },
    Case {
        name: "labs::units_have_sandboxes_of_their_own",
        run: units,
    },
    Case {
        name: "labs::a_vm_is_booted_once_for_all_tests",
        run: snapshot,
    },
    Case {
        name: "labs::a_failing_lab_fails_the_build",
        run: failing,
    },
];

fn lab(host: &NixHost) -> Result<()> {
    let script = "\
nix-build /repository/nix/tests --attr lab --out-link /tmp/result
grep '<test' /tmp/result/junit.xml
cd /tmp/result && find logs -type f
";
    let ran = host.run(script)?.exits(0)?;
    // Lines, though a build has a terminal.
    ran.complains("     Machine web: up after")?
        .says("name=\"steps\"")?
        .says("name=\"script\"")?
        .says("failures=\"0\"")?
        .says("logs/script/web-console.log")?;
    Ok(())
}

/// In a container of machinist's own.
fn units(host: &NixHost) -> Result<()> {
    host.run("nix-build /repository/nix/tests --attr units --no-out-link\n")?
        .exits(0)?
        // What the sandbox forbids in spite of all is told when the container starts.
        .complains("programs that are setuid, such as sudo, work in a VM but not in a container")?;
    Ok(())
}

/// Its boot is a derivation, which a change of the test does not build anew.
fn snapshot(host: &NixHost) -> Result<()> {
    host.guest().add_vm_archive()?;
    // All of it is read at once: the snapshot of both is the same derivation, or is not.
    let script = r#"
set -- $(nix-instantiate --expr "let test = word: (import /repository/nix/tests).restored ''
    v.wait_for_unit(\"nginx.service\")
    assert \"Welcome\" in v.succeed(\"curl -fsS http://localhost/\")
    v.succeed(\"echo \${word} > /dev/ttyS0\")
''; in [ (test \"one\") (test \"another\") ]")
nix-store --realise $1
echo the other one >&2
nix-store --realise $2
"#;
    let ran = host.run(script)?.exits(0)?;
    let (first, second) = ran
        .stderr
        .split_once("the other one\n")
        .unwrap_or((ran.stderr.as_str(), ""));
    ensure!(first.contains("machinist-snapshot-v.drv"), "{ran}");
    ensure!(!second.contains("machinist-snapshot-v.drv"), "{ran}");
    for test in [first, second] {
        ensure!(
            test.contains("Machine v: restored from its snapshot"),
            "{ran}"
        );
    }
    // Where nothing boots, nothing is unpacked or packed for it either.
    ensure!(
        first.contains("Built") && !second.contains("Built"),
        "{ran}"
    );
    Ok(())
}

fn failing(host: &NixHost) -> Result<()> {
    let ran = host
        .run("nix-build /repository/nix/tests --attr failing --no-out-link\n")?
        .exits(FAILED)?
        .complains("a word in the log")?
        // The exit code for a failed test.
        .complains("builder failed with exit code 100")?;
    ensure!(ran.stdout.is_empty(), "{ran}");
    Ok(())
}
