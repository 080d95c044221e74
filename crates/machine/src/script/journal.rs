//! The journal of a start script's container, as lines of its console.
//!
//! A VM of NixOS' tests shows its journal on the serial console; a container has none that its
//! services could write to, and NixOS' driver reads its journal in place of that.

use std::time::Duration;

use machinist_guest::systemd::Manager;
use machinist_guest::{Agent, Command, Exit};
use tokio::io::AsyncReadExt;
use tokio::time::Instant;

use crate::console::Console;

/// Shows the journal of this boot from its beginning, and then what is added to it. By the `@`
/// systemd spares the process when it ends all others at power-off; it would not hear of its death,
/// and look for it only after ten seconds.
const FOLLOW: &str = "exec -a @journalctl journalctl --boot --follow --no-tail --quiet \
    --output=short-monotonic --no-hostname";

/// Before the next try, where the journal cannot be read.
const AGAIN: Duration = Duration::from_millis(100);
/// The longest pause between two tries.
const RARELY: Duration = Duration::from_secs(5);

/// Follows the journal for as long as the agent answers. A container without one shows nothing.
pub(crate) async fn follow(agent: &Agent, console: &Console, within: Duration) {
    // The program sees directories that are there when it starts, and no others: the last of them is
    // made when what was said before there was a disk is moved to it.
    let deadline = Instant::now() + within;
    if let Ok(manager) = Manager::connect(agent, None, deadline).await {
        // A system without such a unit moves nothing.
        let unit = "systemd-journal-flush.service";
        drop(manager.wait_for_unit(unit, deadline, &mut |_| {}).await);
    }
    let command = Command::shell(FOLLOW);
    let mut pause = AGAIN;
    while let Ok(Follow::Again) = shown(agent, &command, console).await {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RARELY);
    }
}

/// Whether to follow once more.
enum Follow {
    Again,
    /// Something was shown, and would be shown again; or there is no program for that.
    Enough,
}

/// The status of a shell that does not find a program.
const MISSING: i32 = 127;

/// Runs the command to its end.
async fn shown(
    agent: &Agent,
    command: &Command,
    console: &Console,
) -> Result<Follow, machinist_guest::GuestError> {
    let mut process = agent.spawn(command).await?;
    let mut buffer = vec![0; 16 * 1024];
    let mut lines = Vec::new();
    let mut any = false;
    while let Ok(count @ 1..) = process.stdout.read(&mut buffer).await {
        any = true;
        lines.extend_from_slice(&buffer[..count]);
        // Whole lines: the console has another source.
        if let Some(end) = lines.iter().rposition(|&byte| byte == b'\n') {
            console.feed(&lines[..=end]);
            lines.drain(..=end);
        }
    }
    let exit = process.wait().await?;
    let enough = any || matches!(exit, Exit::Code(MISSING));
    Ok(if enough {
        Follow::Enough
    } else {
        Follow::Again
    })
}
