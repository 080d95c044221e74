//! What is typed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use machinist_wire::message::{Command, Program};
use machinist_wire::{Blob, Info};

use super::super::bring::Nonce;
use super::super::quote::word;

/// What the guest has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tools {
    bash: bool,
    setsid: bool,
}

/// Asks what the guest has.
pub(super) fn question(nonce: &Nonce) -> String {
    format!(
        "{}; b=sh; command -v bash >/dev/null 2>&1 && b=bash; s=-; command -v setsid >/dev/null 2>&1 && s=setsid; \
         echo \"$n $b $s $(uname -r) $(cat /proc/sys/kernel/random/boot_id 2>/dev/null) $$\"\n",
        nonce.assignment()
    )
}

/// Reads the answer.
pub(super) fn tools(said: &str) -> (Tools, Info) {
    let words: Vec<&str> = said.split(' ').collect();
    let get = |at: usize| words.get(at).copied().unwrap_or_default();
    let tools = Tools {
        bash: get(0) == "bash",
        setsid: get(1) == "setsid",
    };
    let info = Info {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: get(2).to_owned(),
        boot_id: get(3).to_owned(),
        pid: get(4).parse().unwrap_or(0),
        init: false,
        plain: true,
    };
    (tools, info)
}

/// Words, each quoted.
fn join<'a>(words: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let words: Vec<Vec<u8>> = words.into_iter().map(word).collect();
    words.join(b" ".as_slice())
}

/// A command as a shell's simple command; `input` is what it reads.
pub(super) fn run(command: &Command, tools: &Tools, input: Option<&[u8]>) -> Vec<u8> {
    let mut words: Vec<Vec<u8>> = match &command.program {
        Program::Argv(words) => words.iter().map(|word| word.0.clone()).collect(),
        Program::Shell { script, strict } => {
            let begin: &[u8] = match (strict, tools.bash) {
                (true, true) => b"set -euo pipefail\n",
                (true, false) => b"set -eu\n",
                (false, _) => b"",
            };
            let shell: &[u8] = if tools.bash { b"bash" } else { b"sh" };
            let text = [begin, &script.0].concat();
            vec![shell.to_vec(), b"-c".to_vec(), text]
        }
    };
    if command.clear_env || !command.env.is_empty() {
        let mut front = vec![b"env".to_vec()];
        if command.clear_env {
            front.push(b"-i".to_vec());
        }
        let pairs = command.env.iter();
        front.extend(pairs.map(|(name, value)| [&name.0, b"=".as_slice(), &value.0].concat()));
        front.extend(words);
        words = front;
    }
    let dir = match &command.dir {
        Some(dir) => word(&dir.0),
        None => b"\"${HOME:-/}\"".to_vec(),
    };
    let mut inner = b"cd ".to_vec();
    inner.extend_from_slice(&dir);
    inner.extend_from_slice(b" && exec ");
    inner.extend(join(words.iter().map(Vec::as_slice)));
    if let Some(user) = command.user.as_deref().filter(|user| *user != "root") {
        let su: [&[u8]; 6] = [b"su", b"-s", b"/bin/sh", user.as_bytes(), b"-c", &inner];
        inner = [b"exec ".as_slice(), &join(su)].concat();
    }
    let script = [b"echo \"$0=$$\" >&5; exec 5>&-; ".as_slice(), &inner].concat();
    let mut text = Vec::new();
    if let Some(input) = input {
        text.extend_from_slice(b"printf %s ");
        text.extend(word(STANDARD.encode(input).as_bytes()));
        text.extend_from_slice(b" | base64 -d | ");
    }
    if tools.setsid {
        text.extend_from_slice(b"setsid ");
    }
    text.extend_from_slice(b"sh -c ");
    text.extend(word(&script));
    text.extend_from_slice(b" \"$n\"");
    text
}

/// A command that prints a file of /proc, or whether something is there.
pub(super) fn check(script: &str) -> Vec<u8> {
    [b"sh -c ".as_slice(), &word(script.as_bytes())].concat()
}

/// A command that prints a tree: for each entry a line of kind, mode, owner, group, time, and in
/// base64 path, and contents or target.
pub(super) fn get(path: &Blob) -> Vec<u8> {
    let words: [&[u8]; 5] = [b"sh", b"-c", GET.as_bytes(), b"sh", &path.0];
    join(words)
}

const GET: &str = r#"
b() { base64 | tr -d '\n'; }
show() {
    m=$(stat -c '%a %u %g %Y' -- "$1") || exit
    p=$(printf %s "$2" | b)
    if [ -L "$1" ] && [ -n "$2" ]; then echo "l $m $p: $(readlink -- "$1" | b)"
    elif [ -d "$1" ]; then echo "d $m $p: "
    elif [ -f "$1" ]; then printf '%s' "f $m $p: "; b <"$1" || exit; echo
    else echo "s $m $p: "; fi
}
if [ -d "$1" ]; then
    cd -- "$1" || exit
    find . | { while IFS= read -r p; do q=${p#.}; show "$p" "${q#/}" || exit; done; }
elif [ -e "$1" ]; then show "$(readlink -f -- "$1")" ""
else echo "$1: no such file or directory" >&2; exit 2; fi
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guests_tools_are_read() {
        let (tools, info) = tools("bash setsid 6.1.0 0e1f 42");
        assert_eq!(
            tools,
            Tools {
                bash: true,
                setsid: true
            }
        );
        assert!(info.plain && info.kernel == "6.1.0" && info.pid == 42);
    }
}
