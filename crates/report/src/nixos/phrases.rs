//! What is waited for, in the words of the NixOS test driver.

/// The title of a wait, from what the session says that it waits for.
pub(crate) fn wait(what: &str) -> String {
    command(what)
        .or_else(|| port(what))
        .or_else(|| rest(what))
        .unwrap_or_else(|| format!("waiting for {what}"))
}

fn command(what: &str) -> Option<String> {
    let what = what.strip_prefix('`')?;
    let (command, wanted) = if let Some(command) = what.strip_suffix("` to succeed") {
        (command, "success")
    } else {
        (what.strip_suffix("` to fail")?, "failure")
    };
    Some(format!("waiting for {wanted}: {command}"))
}

fn port(what: &str) -> Option<String> {
    let (number, rest) = what.strip_prefix("port ")?.split_once(" of ")?;
    let (address, state) = rest.rsplit_once(" to be ")?;
    let closed = if state == "closed" {
        " to be closed"
    } else {
        ""
    };
    Some(format!(
        "waiting for TCP port {number} on {address}{closed}"
    ))
}

fn rest(what: &str) -> Option<String> {
    if let Some(path) = what.strip_prefix("the file ") {
        return Some(format!("waiting for file '{path}'"));
    }
    if let Some(path) = what.strip_prefix("the socket ") {
        return Some(format!("waiting for UNIX-domain socket on '{path}'"));
    }
    if let Some((unit, user)) = what.strip_prefix("unit ")?.split_once(" of user ") {
        return Some(format!("waiting for unit {unit} with user {user}"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_have_their_usual_names() {
        for (what, title) in [
            ("`curl -f a` to succeed", "waiting for success: curl -f a"),
            ("`false` to fail", "waiting for failure: false"),
            (
                "port 80 of localhost to be open",
                "waiting for TCP port 80 on localhost",
            ),
            (
                "port 80 of ::1 to be closed",
                "waiting for TCP port 80 on ::1 to be closed",
            ),
            ("the file /a b", "waiting for file '/a b'"),
            (
                "the socket /run/x",
                "waiting for UNIX-domain socket on '/run/x'",
            ),
            ("unit a.service", "waiting for unit a.service"),
            (
                "unit a.service of user u",
                "waiting for unit a.service with user u",
            ),
            ("/x/ in the journal", "waiting for /x/ in the journal"),
        ] {
            assert_eq!(wait(what), title);
        }
    }
}
