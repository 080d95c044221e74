//! The session of a driver: where things are, how long they live, who can attach.

use anyhow::{Result, ensure};
use machinist_tests::{Bench, Need};

use crate::Case;
use crate::stage::Stage;

pub const CASES: &[Case] = &[Case {
    name: "containers_talk_and_can_be_cut_off",
    needs: &[Need::Container, Need::Python],
    run: containers_talk,
}];

fn containers_talk(bench: &Bench) -> Result<()> {
    let stage = Stage::new(bench)?
        .vlans(&[1, 2])
        .container("one", 1, &[1, 2])?
        .container("two", 2, &[1, 2])?;
    let script = r#"
start_all()
knock = "(timeout 3 bash -c 'exec 3<>/dev/tcp/192.168.1.2/9' 2>&1 || true) | grep refused"
one.succeed(knock)
one.block()
one.fail(knock)
one.unblock()
one.wait_until_succeeds(knock, timeout=30)
two.shutdown()
assert not two.is_up()
two.wait_for_shutdown()
one.succeed("echo kept > /var/kept")
one.copy_from_machine("/var/kept")
"#;
    stage.driver(&[], script)?.run()?.exits(0)?;
    ensure!(bench.read("out/kept")? == "kept\n");
    let kept = stage.state_of("one").join("var/kept");
    ensure!(kept.exists(), "the state is not there: {}", kept.display());
    Ok(())
}
