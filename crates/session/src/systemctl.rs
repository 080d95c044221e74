//! What systemd says where its socket cannot be reached: in machines whose shell is asked in the
//! place of an agent. By its command line tool, again and again.

use std::time::Duration;

use machinist_guest::{Agent, Command, Output};

use crate::chain;
use crate::protocol::Fault;

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How a unit is.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Active,
    Failed,
    /// Not active, and nothing is about to change that.
    Inactive,
    /// On its way, in one word.
    Changing(String),
}

/// Waits until a unit is active. `progress` is told what it is until then.
pub(crate) async fn unit(
    agent: &Agent,
    name: &str,
    user: Option<&str>,
    progress: &mut (dyn FnMut(String) + Send),
) -> Result<(), Fault> {
    let mut pause = FIRST_PAUSE;
    let mut was_inactive = false;
    loop {
        let show = [
            "show",
            "--property=ActiveState",
            "--property=Job",
            "--",
            name,
        ];
        let shown = ask(agent, user, &show).await?;
        let seen = seen(&shown);
        match seen {
            Seen::Active => return Ok(()),
            Seen::Failed => {
                return Err(Fault::test(format!(
                    "unit \"{name}\" reached state \"failed\""
                )));
            }
            // Before systemd has planned its start nothing is pending; what is so twice, stays so
            // only if nothing at all is.
            Seen::Inactive if was_inactive => {
                let jobs = ask(agent, user, &["list-jobs"]).await?;
                if jobs.contains("No jobs") {
                    return Err(Fault::test(format!(
                        "unit \"{name}\" is inactive and there are no pending jobs"
                    )));
                }
            }
            Seen::Inactive => was_inactive = true,
            Seen::Changing(state) => {
                was_inactive = false;
                progress(state);
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// The names of failed units.
pub(crate) async fn failed_units(agent: &Agent) -> Vec<String> {
    let list = ["list-units", "--state=failed", "--plain", "--no-legend"];
    let listed = ask(agent, None, &list).await.unwrap_or_default();
    listed
        .lines()
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .collect()
}

fn seen(shown: &str) -> Seen {
    let value = |key: &str| {
        let lines = shown.lines();
        lines
            .filter_map(|line| line.split_once('='))
            .find_map(|(name, value)| (name == key).then_some(value))
    };
    match value("ActiveState") {
        Some("active") => Seen::Active,
        Some("failed") => Seen::Failed,
        Some("inactive") if value("Job").is_none_or(|job| job == "0" || job.is_empty()) => {
            Seen::Inactive
        }
        Some(state) => Seen::Changing(state.to_owned()),
        None => Seen::Changing("unknown".to_owned()),
    }
}

async fn ask(agent: &Agent, user: Option<&str>, words: &[&str]) -> Result<String, Fault> {
    let mut command = vec!["systemctl", "--no-pager", "--full"];
    let text;
    if let Some(user) = user {
        // Of the user's own manager, whose bus is in the user's own directory.
        let quoted: Vec<String> = words.iter().map(|word| crate::quote::quote(word)).collect();
        text = format!(
            "XDG_RUNTIME_DIR=/run/user/$(id -u) exec systemctl --user --no-pager --full {}",
            quoted.join(" ")
        );
        command = vec!["su", "-l", user, "--shell", "/bin/sh", "-c", &text];
    } else {
        command.extend(words);
    }
    let output: Output = agent
        .output(&Command::argv(&command))
        .await
        .map_err(|error| Fault::machinery(chain::text(&error)))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_read() {
        let changing = |state: &str| Seen::Changing(state.to_owned());
        for (shown, wanted) in [
            ("ActiveState=active\nJob=0\n", Seen::Active),
            ("ActiveState=failed\n", Seen::Failed),
            ("ActiveState=inactive\nJob=0\n", Seen::Inactive),
            ("ActiveState=inactive\n", Seen::Inactive),
            ("ActiveState=inactive\nJob=71\n", changing("inactive")),
            ("Job=7\nActiveState=activating\n", changing("activating")),
            ("Failed to connect to bus\n", changing("unknown")),
        ] {
            assert_eq!(seen(shown), wanted, "{shown}");
        }
    }
}
