//! A machine that is saved, and made right after every restore.
//!
//! The order of a renewal: first the random state, since all else may ask for random numbers; then
//! who the machine is; and only when that is done the rest of the machine goes on.

mod clock;
mod hold;
mod journal;
mod keys;
mod lead;
mod manager;
mod names;
mod network;
mod programs;
mod quiet;
mod reload;
#[cfg(test)]
mod tests;
mod watch;

pub(crate) use hold::{Hold, Rest};
pub(crate) use lead::Lead;
pub(crate) use reload::Reloading;
pub(crate) use watch::Watch;

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Instant;

use machinist_wire::Blob;
use machinist_wire::message::Failure;
use machinist_wire::renewal::{Change, Lack, Renewal, Renewed, Settled};

use crate::init::mount;
use crate::login::PATH;
use crate::plan9;
use crate::server::Context;

/// Makes the machine quiet, and says what it has.
pub(crate) fn settle(mark: &str, context: &mut Context) -> Result<Settled, Failure> {
    let mut lacks = Lacks::default();
    let vmgenid = quiet::has_vmgenid();
    let (host_keys, sshd) = (keys::list(), reload::servers());
    if !mark.is_empty() {
        lacks.note("journal", journal::mark(mark));
    }
    context.seeds = Some(keys::seeds());
    context.may_lead = Some(Lead::may_be());
    // Else each restored machine would read the profile for its first command, which is most of
    // what that takes.
    let login = context.logins.of("root");
    let path = login.and_then(|login| login.env.iter().find(|(name, _)| name == "PATH"));
    programs::read(path.map_or(OsStr::new(PATH), |(_, path)| path));
    context.watch = Watch::of_init();
    context.rest = None;
    // What an earlier one left, and nobody asked for since, is still to be mounted again.
    context.left.extend(plan9::leave()?);
    rustix::fs::sync();
    quiet::wait();
    // With vmgenid the kernel makes its random state anew before anything runs that may ask for it;
    // without, nothing may run until we have done that.
    let mut frozen = Vec::new();
    if !vmgenid {
        quiet::mask_vmgenid();
        context.hold = Hold::new().ok();
        if context.hold.is_none() {
            frozen = freeze(&mut lacks);
        }
    }
    Ok(Settled {
        host_keys,
        sshd,
        vmgenid,
        frozen,
        lacks: lacks.0,
    })
}

fn freeze(lacks: &mut Lacks) -> Vec<Blob> {
    let frozen = quiet::freeze().unwrap_or_else(|error| {
        lacks.add(
            "random numbers",
            format_args!(
                "the kernel has no vmgenid, and services cannot be held ({error}): what they draw \
                 in the first moment after a restore may be the same every time"
            ),
        );
        Vec::new()
    });
    quiet::wait();
    frozen
}

/// Makes a restored machine right. Where servers are to read new keys, that is under way when this
/// returns, and is to be waited for.
pub(crate) fn renew(
    renewal: &Renewal,
    context: &mut Context,
) -> Result<(Renewed, Option<Reloading>), Failure> {
    let begun = Instant::now();
    let mut lacks = Lacks::default();
    let mut lead = None;
    if !renewal.entropy.0.is_empty() {
        // One from before a restore may be left.
        drop(context.lead.take());
        if context.watch.is_none() || renewal.due.is_some() {
            // systemd has much to do.
            lead = Lead::take(context);
        }
        machinist_sys::random::renew(&renewal.entropy.0)
            .map_err(|error| failure("cannot renew the random state", error))?;
    }
    if let Some(due) = &renewal.due {
        // Else systemd takes it that they were due while nobody was there.
        lacks.note("timers", manager::stop(due));
    }
    let watched = unseen(context.watch.as_ref(), || clock::set(renewal.clock, begun))?;
    lacks.note("clock", watched);
    if let Some(change) = &renewal.change {
        let Change { from, to } = change;
        if from.hostname != to.hostname {
            context.logins.forget_about(&from.hostname);
        }
        names::change(change, &mut lacks)?;
        network::change(&change.from.interfaces, &change.to.interfaces)?;
        let known = &change.from.mounts;
        let new = change.to.mounts.iter().filter(|new| !known.contains(new));
        for new in new {
            mount(new)?;
        }
        // What seeds the next boot, and what tools read in its place.
        let seeds = context.seeds.take().unwrap_or_else(keys::seeds);
        lacks.note("random seed", keys::renew(&seeds));
    }
    keys::replace(&renewal.host_keys)?;
    plan9::back(&std::mem::take(&mut context.left))?;
    quiet::thaw(&renewal.thaw)?;
    quiet::thaw(&std::mem::take(&mut context.frozen))?;
    if let Some(hold) = context.hold.take() {
        context.rest = Some(hold.release());
    }
    if let Some(due) = &renewal.due {
        lacks.note("timers", manager::stamp_timers());
        let said = manager::say(&due.start.0);
        let said = said.map(|answers| context.sinks.push(answers));
        lacks.note("timers", said);
    }
    if !renewal.mark.is_empty() {
        lacks.note("journal", journal::mark(&renewal.mark));
    }
    if let Some(mut lead) = lead {
        lead.go_on();
        context.lead = Some(lead);
    }
    let renewed = Renewed {
        clock: clock::now(),
        lacks: lacks.0,
    };
    let reloading = reload::begin(&renewal.reload, &renewed);
    Ok((renewed, reloading))
}

/// Sets the clock while systemd does not look. Says whether it does again.
fn unseen(
    watch: Option<&Watch>,
    set: impl FnOnce() -> Result<(), Failure>,
) -> Result<io::Result<()>, Failure> {
    let away = watch.filter(|watch| watch.look_away().is_ok());
    set()?;
    Ok(away.map_or(Ok(()), Watch::look_again))
}

/// Writes over a file that is there. On the overlay that most roots are, that costs a hundredth of a
/// file that comes in the place of another: an emulated machine runs far less of its kernel for it.
fn overwrite(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs::File::options().write(true).open(path)?;
    file.write_all(bytes)?;
    let length = u64::try_from(bytes.len()).map_err(io::Error::other)?;
    if file.metadata()?.len() != length {
        file.set_len(length)?;
    }
    Ok(())
}

/// What could not be done.
#[derive(Default)]
struct Lacks(Vec<Lack>);

impl Lacks {
    fn add(&mut self, what: &str, why: impl fmt::Display) {
        self.0.push(Lack {
            what: what.to_owned(),
            why: why.to_string(),
        });
    }

    fn note(&mut self, what: &str, result: io::Result<()>) {
        if let Err(error) = result {
            self.add(what, error);
        }
    }
}

/// A failure that makes the machine useless.
fn failure(what: impl fmt::Display, error: impl Into<io::Error>) -> Failure {
    let error = error.into();
    Failure {
        text: format!("{what}: {error}"),
        errno: error.raw_os_error().unwrap_or(0),
    }
}
