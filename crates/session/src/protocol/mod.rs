//! The session protocol: what goes over a session's socket.
//!
//! Lines of JSON in both directions. The engine speaks first ([`Hello`]); after that the client
//! sends a [`Request`] on each line, and the engine answers every request with any number of parts
//! and one end ([`Reply`]), in whatever order things finish. `docs/session-protocol.md` tells it
//! without Rust.

mod command;
mod data;
mod reply;
mod script;
mod verb;

pub use command::{Command, Program, Pty, ScriptReport, Until};
pub use data::Data;
pub use reply::{
    CheckpointStatus, Cloned, ConsoleLines, Executed, Fault, FaultKind, Hello, MachineStatus, Part,
    Published, Reply, Started, Status, WentBack,
};
pub use script::{Added, Description, DriverInfo, Forwarded, ScriptKind};
pub use verb::{Request, Verb};

use serde::de::DeserializeOwned;

/// The version of this protocol. A client of another version is told so and closed.
///
/// Adding a verb, a part, or a field that may be left out does not change it.
pub const VERSION: u32 = 1;

/// The longest line, in bytes, that either side takes. Files do not travel in lines, so this
/// bounds what one command may be given as input or may print into one answer.
pub const LONGEST_LINE: usize = 64 * 1024 * 1024;

/// Reads one line, with or without its end.
///
/// # Errors
/// It is not JSON, or not what `T` says.
pub fn decode<T: DeserializeOwned>(line: &[u8]) -> Result<T, serde_json::Error> {
    serde_json::from_slice(line)
}

/// The line of `message`, with its end.
///
/// # Errors
/// None for the types of this module; the result is there because serde cannot know that.
pub fn encode<T: serde::Serialize>(message: &T) -> Result<Vec<u8>, serde_json::Error> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn decoding_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(decode::<Request>(&bytes));
            drop(decode::<Reply>(&bytes));
            drop(decode::<Hello>(&bytes));
        }

        #[test]
        fn a_torn_or_bent_request_never_panics(
            at in 0_usize..200, byte in any::<u8>(), cut in 0_usize..200,
        ) {
            let request = Request {
                id: 7,
                verb: Verb::Execute {
                    machine: "web".into(),
                    command: Command::shell("echo hi"),
                    detach: false,
                    purpose: None,
                },
            };
            let mut line = encode(&request).expect("it encodes");
            let length = line.len();
            line[at % length] = byte;
            line.truncate(cut % length);
            drop(decode::<Request>(&line));
        }

        #[test]
        fn data_comes_back_as_it_was(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let line = encode(&Data(bytes.clone())).expect("it encodes");
            prop_assert_eq!(decode::<Data>(&line).expect("it decodes").0, bytes);
        }

        #[test]
        fn an_answer_is_one_line(stdout in ".*", message in ".*") {
            let line = encode(&Reply::part(1, Part::Stdout(Data::from(stdout.as_str()))))
                .expect("it encodes");
            prop_assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            let line = encode(&Reply::error(1, Fault::machinery(message))).expect("it encodes");
            prop_assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        }
    }

    #[test]
    fn unknown_verbs_and_fields_are_errors() {
        assert!(decode::<Request>(br#"{"id":1,"do":{"fly":{}}}"#).is_err());
        assert!(decode::<Request>(br#"{"id":1,"do":"status","extra":1}"#).is_err());
        assert!(
            decode::<Request>(br#"{"id":1,"do":{"crash":{"machine":"a","hard":true}}}"#).is_err()
        );
    }

    #[test]
    fn the_shortest_execute_is_short() {
        let request: Request = decode(
            br#"{"id":1,"do":{"execute":{"machine":"a","command":{"program":{"shell":"true"}}}}}"#,
        )
        .expect("it decodes");
        assert_eq!(
            request.verb,
            Verb::Execute {
                machine: "a".into(),
                command: Command::shell("true"),
                detach: false,
                purpose: None,
            }
        );
    }
}
