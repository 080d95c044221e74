//! Several sessions at once.

use anyhow::{Result, ensure};
use machinist_tests::{Bench, Need};

use crate::Case;
use crate::labs::{IMAGE, run, until_told};

pub const CASES: &[Case] = &[
    Case {
        name: "sessions::tests_side_by_side",
        needs: &[Need::Container],
        run: side_by_side,
    },
    Case {
        name: "sessions::two_engines_do_not_disturb_each_other",
        needs: &[Need::Container],
        run: two_engines,
    },
];

/// Tests of one lab, each with machines of its own, all with the same names and addresses.
fn side_by_side(bench: &Bench) -> Result<()> {
    let mut lab =
        format!("{IMAGE}\n[machine.a]\nimage = \"small\"\n[machine.b]\nimage = \"small\"\n");
    for n in 0..4 {
        lab += &format!(
            "[[test]]\nname = \"t{n}\"\nsteps = [\n\
             {{ machine = \"a\", run = \"test ! -e /tmp/mine && touch /tmp/mine && echo {n} > /var/www/html/n\" }},\n\
             {{ machine = \"b\", run = \"curl -fsS http://a/n\", stdout = {{ equals = \"{n}\" }} }},\n]\n"
        );
    }
    bench.write("lab.toml", &lab)?;
    let ran = bench.machinist(&["test", "--jobs", "4"]).run()?.exits(0)?;
    ran.complains("4 tests run: 4 passed")?;
    Ok(())
}

/// One ends while the other goes on.
fn two_engines(bench: &Bench) -> Result<()> {
    let long = bench.machinist(&until_told()).start()?;
    for _ in 0..2 {
        bench.machinist(&run(&[], &["true"])).run()?.exits(0)?;
    }
    bench.write("go", "")?;
    let ran = long.wait()?.exits(0)?;
    ensure!(ran.stdout == "still here\n", "{ran}");
    Ok(())
}
