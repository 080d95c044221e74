//! Finding a live session by what the user typed.

use std::path::Path;

use machinist_session::protocol::{Status, Verb};
use machinist_session::{Client, Found, live_session, live_sessions, sessions_elsewhere};
use machinist_sys::lock::Locked;

use crate::environment::Environment;
use crate::error::CliError;

/// All live sessions, oldest first.
pub fn all(environment: &Environment) -> Result<Vec<Found>, CliError> {
    live_sessions(&environment.runtime).map_err(CliError::machinery)
}

/// The session whose id begins with `id`; without an id, the only one that there is. With a slash it
/// is the path of a session's directory.
pub fn find(environment: &Environment, id: Option<&str>) -> Result<Found, CliError> {
    if let Some(path) = id.filter(|id| id.contains('/')) {
        return at(&environment.here.join(path));
    }
    let live = all(environment)?;
    if let Some(id) = id
        && !live.iter().any(|found| found.card.session.starts_with(id))
        && let Some(found) = elsewhere(id)
    {
        return Ok(found);
    }
    if live.is_empty() {
        return Err(
            CliError::nothing_selected("no session is live").hint("`machinist up` starts one")
        );
    }
    let wanted = id.unwrap_or("");
    let mut matching: Vec<_> = live
        .iter()
        .filter(|found| found.card.session.starts_with(wanted))
        .collect();
    match (matching.pop(), matching.is_empty()) {
        (Some(found), true) => Ok(found.clone()),
        (None, _) => Err(CliError::nothing_selected(format!(
            "no live session is called {wanted:?}"
        ))
        .hint(format!("live are: {}", ids(&live)))),
        (Some(_), false) => {
            let message = match id {
                None => "several sessions are live".to_owned(),
                Some(id) => format!("several live sessions begin with {id:?}"),
            };
            Err(CliError::usage(message).hint(format!("name one of: {}", ids(&live))))
        }
    }
}

/// The session whose directory is at `path`.
fn at(path: &Path) -> Result<Found, CliError> {
    let found = live_session(path).map_err(|error| {
        let kind = crate::error::Kind::NothingSelected;
        CliError::new(kind, error).context(format!("{} is no live session", path.display()))
    })?;
    found.ok_or_else(|| {
        CliError::nothing_selected(format!("the session at {} has ended", path.display()))
    })
}

/// The session with this id, in whatever directory it is: also inside a Nix build, for root.
fn elsewhere(id: &str) -> Option<Found> {
    let mut all = sessions_elsewhere().into_iter();
    all.find(|found| found.card.session == id)
}

/// The session that the user means by `name`: a path, the beginning of its id, its test's name, or the name
/// of one of its machines, which is then given too.
pub async fn find_by(
    environment: &Environment,
    name: Option<&str>,
) -> Result<(Found, Option<String>), CliError> {
    let Some(name) = name.filter(|name| !name.contains('/')) else {
        return Ok((find(environment, name)?, None));
    };
    let live = all(environment)?;
    let mut of_test = Vec::new();
    let mut of_machine = Vec::new();
    for found in &live {
        if found.card.session.starts_with(name) {
            return Ok((find(environment, Some(name))?, None));
        }
        if found.card.test.as_deref() == Some(name) {
            of_test.push(found);
        }
        // One that ends while we ask is not live any more.
        let client = connect(found).await;
        if client.is_ok_and(|client| client.hello().machines.iter().any(|known| known == name)) {
            of_machine.push(found);
        }
    }
    match (of_test.as_slice(), of_machine.as_slice()) {
        (&[found], _) => Ok((found.clone(), None)),
        ([], &[found]) => Ok((found.clone(), Some(name.to_owned()))),
        ([], []) => Ok((find(environment, Some(name))?, None)),
        ([], several) | (several, _) => Err(CliError::usage(format!(
            "several live sessions have {name:?}"
        ))
        .hint(format!("name one of: {}", ids(several.iter().copied())))),
    }
}

/// The only session whose test stands still at a failure.
pub async fn find_paused(environment: &Environment) -> Result<Found, CliError> {
    let mut paused = Vec::new();
    for found in all(environment)? {
        let Ok(mut client) = connect(&found).await else {
            continue;
        };
        let status = client.call::<Status>(Verb::Status, |_| {}).await;
        if status.is_ok_and(|status| status.paused) {
            paused.push(found);
        }
    }
    match paused.as_slice() {
        [only] => Ok(only.clone()),
        [] => Err(CliError::nothing_selected("no test is paused")),
        several => Err(CliError::usage("several tests are paused")
            .hint(format!("name one of: {}", ids(several)))),
    }
}

fn ids<'a>(live: impl IntoIterator<Item = &'a Found>) -> String {
    let ids: Vec<_> = live
        .into_iter()
        .map(|found| found.card.session.as_str())
        .collect();
    ids.join(", ")
}

/// A connection to a session.
pub async fn connect(found: &Found) -> Result<Client, CliError> {
    Ok(Client::connect(&found.socket).await?)
}

/// The machine that the user named, or the only one of the session.
pub fn machine(client: &Client, name: Option<&str>) -> Result<String, CliError> {
    let machines = &client.hello().machines;
    let known = machines.join(", ");
    match name {
        Some(name) if machines.iter().any(|known| known == name) => Ok(name.to_owned()),
        Some(name) => Err(CliError::usage(format!("no machine is called {name:?}"))
            .hint(format!("the session has: {known}"))),
        None => match machines.as_slice() {
            [only] => Ok(only.clone()),
            _ => Err(CliError::usage("which machine?").hint(format!("name one of: {known}"))),
        },
    }
}

/// Waits until a session has ended and is removed: until its engine lets the lock go.
pub async fn ended(found: &Found) -> Result<(), CliError> {
    let path = found.path.join("lock");
    let waited = tokio::task::spawn_blocking(move || -> std::io::Result<()> {
        match std::fs::File::open(&path) {
            Ok(file) => Locked::shared(file).map(drop),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    });
    let ended = waited.await.map_err(CliError::machinery)?;
    ended.map_err(|error| CliError::machinery(error).context("cannot wait for the session's end"))
}
