//! The hidden verbs of our own binary: small processes that the engine starts from it.
//!
//! Whoever's binary an [`Environment`](crate::Environment) names as `exe` calls [`dispatch`] first
//! thing in its `main`, before it makes threads.

use std::process::ExitCode;

/// Runs the hidden verb that the arguments (the program's name not among them) name, if they do.
#[must_use]
pub fn dispatch(arguments: &[String]) -> Option<ExitCode> {
    let (verb, rest) = arguments.split_first()?;
    match verb.as_str() {
        "__launch" => Some(crate::nspawn::launch::main()),
        "__script" => Some(crate::script::stage::main()),
        "__ground" => Some(crate::ground::lay::main(rest)),
        "__rootless" => Some(crate::rootless::main(rest)),
        "__watch" => Some(crate::script::supervise::main(rest)),
        "__enter" => Some(crate::nspawn::enter::main(rest)),
        _ => None,
    }
}
