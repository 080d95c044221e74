//! systemd, where no connection to it can be had: `systemctl` is asked, again and again.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::unit::{Verdict, judge};
use super::{Job, Manager, SystemdError, UnitState, unit_name};
use crate::command::Command;
use crate::error::GuestError;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(250);

impl Manager {
    /// What `systemctl` prints, whatever its status is.
    pub(super) async fn systemctl(&self, words: &[&str]) -> Result<String, SystemdError> {
        let begin: &[&str] = match &self.user {
            None => &["systemctl", "--no-pager"],
            Some(_) => &["systemctl", "--no-pager", "--user"],
        };
        let mut command = Command::argv(begin.iter().chain(words));
        if let Some((user, uid)) = &self.user {
            command = command
                .user(user)
                .env("XDG_RUNTIME_DIR", format!("/run/user/{uid}"));
        }
        let output = self.agent.output(&command).await?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Waits until systemd answers.
    pub(super) async fn until_it_answers(&self, deadline: Instant) -> Result<(), SystemdError> {
        // It prints a state as soon as there is a manager, and `offline` where there is none.
        while matches!(
            self.systemctl(&["is-system-running"]).await?.trim(),
            "" | "offline" | "unknown"
        ) {
            if Instant::now() >= deadline {
                let what = "systemd".to_owned();
                return Err(GuestError::TimedOut { what }.into());
            }
            sleep(LOOK).await;
        }
        Ok(())
    }

    pub(super) async fn plain_unit_state(&self, unit: &str) -> Result<UnitState, SystemdError> {
        let name = unit_name(unit);
        let properties = "--property=LoadState,ActiveState,SubState,Job";
        let said = self.systemctl(&["show", properties, "--", &name]).await?;
        Ok(state(&said))
    }

    pub(super) async fn plain_wait_for_unit(
        &self,
        unit: &str,
        note: &mut (dyn FnMut(&UnitState) + Send),
    ) -> Result<(), SystemdError> {
        let mut was_idle = false;
        loop {
            let state = self.plain_unit_state(unit).await?;
            note(&state);
            let unit = || unit.to_owned();
            match judge(&state) {
                Verdict::Active => return Ok(()),
                Verdict::Failed => return Err(SystemdError::Failed { unit: unit() }),
                // Before systemd has planned its start nothing is pending; what is so twice, stays
                // so only if nothing at all is.
                Verdict::Idle if was_idle => {
                    if self.plain_is_idle().await? {
                        return Err(SystemdError::Inactive { unit: unit() });
                    }
                }
                Verdict::Idle => was_idle = true,
                Verdict::Underway => was_idle = false,
            }
            sleep(LOOK).await;
        }
    }

    /// Whether systemd says that it has nothing to do. One that says nothing at all may have.
    async fn plain_is_idle(&self) -> Result<bool, SystemdError> {
        let said = self.systemctl(&["list-jobs"]).await?;
        Ok(said.contains("No jobs"))
    }

    pub(super) async fn plain_jobs(&self) -> Result<Vec<Job>, SystemdError> {
        let said = self.systemctl(&["list-jobs", "--no-legend"]).await?;
        // Number, unit, kind, state.
        Ok(said.lines().filter_map(job).collect())
    }

    pub(super) async fn plain_failed_units(&self) -> Result<Vec<String>, SystemdError> {
        let words = ["list-units", "--failed", "--plain", "--no-legend", "--full"];
        let said = self.systemctl(&words).await?;
        let names = said
            .lines()
            .filter_map(|line| line.split_whitespace().next());
        Ok(names.map(str::to_owned).collect())
    }
}

/// What `systemctl show` says; nothing in it means that there was no answer.
fn state(said: &str) -> UnitState {
    let get = |name: &str| {
        let mut lines = said.lines().filter_map(|line| line.split_once('='));
        lines.find_map(|(key, value)| (key == name).then(|| value.to_owned()))
    };
    UnitState {
        load: get("LoadState").unwrap_or_default(),
        active: get("ActiveState").unwrap_or_default(),
        sub: get("SubState").unwrap_or_default(),
        job: get("Job").is_some_and(|job| !matches!(job.as_str(), "" | "0")),
    }
}

fn job(line: &str) -> Option<Job> {
    let mut words = line.split_whitespace();
    // Anything else is for people: "No jobs running."
    let _number: u32 = words.next()?.parse().ok()?;
    let [unit, kind, state] = [words.next()?, words.next()?, words.next()?].map(str::to_owned);
    Some(Job { unit, kind, state })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_read() {
        for (said, wanted) in [
            ("ActiveState=active\nJob=0\n", Verdict::Active),
            ("ActiveState=failed\n", Verdict::Failed),
            ("ActiveState=inactive\nJob=0\n", Verdict::Idle),
            ("ActiveState=inactive\nJob=\n", Verdict::Idle),
            ("ActiveState=inactive\n", Verdict::Idle),
            ("ActiveState=inactive\nJob=71\n", Verdict::Underway),
            ("Job=7\nActiveState=activating\n", Verdict::Underway),
            ("Failed to connect to bus\n", Verdict::Underway),
        ] {
            assert_eq!(judge(&state(said)), wanted, "{said}");
        }
    }

    #[test]
    fn jobs_are_read() {
        let read = job("  123 nginx.service start waiting").unwrap();
        assert_eq!(
            (read.unit.as_str(), read.state.as_str()),
            ("nginx.service", "waiting")
        );
        assert_eq!(job("No jobs running."), None);
    }
}
