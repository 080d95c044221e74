//! Which scripts a fork of a waiting bash can run as a fresh one would.
//!
//! A fork is not a fresh bash: `$$` and the command line are those of another process, a syntax
//! error is told with another prefix, and the last program is not run in the shell's own place. So
//! only what this parser reads from the first to the last byte is run warm: lists of pipelines of
//! plain commands, with quotes, simple expansions and redirections. It knows bash's grammar well
//! enough that what it takes has no syntax error, and it takes nothing that could ask who runs it.
//! Everything else is for a bash of its own.

/// More than this is not worth a byte-wise read.
const LONGEST: usize = 1000;

/// What bash does itself, in one way whoever runs it.
const BUILTINS: &[&str] = &[
    ":", "[", "cd", "echo", "exit", "false", "printf", "pwd", "test", "true",
];

/// First words of bash's own that are not taken.
const OTHERS: &[&str] = &[
    ".",
    "alias",
    "bg",
    "bind",
    "break",
    "builtin",
    "caller",
    "case",
    "command",
    "compgen",
    "complete",
    "compopt",
    "continue",
    "coproc",
    "declare",
    "dirs",
    "disown",
    "do",
    "done",
    "elif",
    "else",
    "enable",
    "esac",
    "eval",
    "exec",
    "export",
    "fc",
    "fg",
    "fi",
    "for",
    "function",
    "getopts",
    "hash",
    "help",
    "history",
    "if",
    "in",
    "jobs",
    "kill",
    "let",
    "local",
    "logout",
    "mapfile",
    "popd",
    "pushd",
    "read",
    "readarray",
    "readonly",
    "return",
    "select",
    "set",
    "shift",
    "shopt",
    "source",
    "suspend",
    "then",
    "time",
    "times",
    "trap",
    "type",
    "typeset",
    "ulimit",
    "umask",
    "unalias",
    "unset",
    "until",
    "wait",
    "while",
];

/// Words that, anywhere in a text, may tell one process from another: what bash knows of itself, and
/// programs that look at others.
const TELLING: &[&str] = &[
    "_",
    "COPROC",
    "DIRSTACK",
    "EUID",
    "FUNCNAME",
    "GROUPS",
    "HISTCMD",
    "LINENO",
    "PIPESTATUS",
    "POSIXLY_CORRECT",
    "PPID",
    "PS4",
    "RANDOM",
    "SECONDS",
    "SHELLOPTS",
    "SHLVL",
    "SRANDOM",
    "TMOUT",
    "UID",
    "fuser",
    "gdb",
    "htop",
    "killall",
    "killall5",
    "lsof",
    "pgrep",
    "pidof",
    "pidwait",
    "pkill",
    "proc",
    "ps",
    "pstree",
    "strace",
    "top",
];

/// Whether a variable of this name changes how bash runs or what it can tell, so that no shell with
/// it waits for commands.
pub(super) fn is_telling(word: &[u8]) -> bool {
    word.starts_with(b"BASH") || TELLING.iter().any(|it| it.as_bytes() == word)
}

/// Whether a fork of a waiting bash runs this script as a fresh bash would.
pub(super) fn fits(script: &[u8]) -> bool {
    let plain = |byte: &u8| matches!(byte, b' '..=b'~' | b'\n' | b'\t');
    if script.len() > LONGEST || !script.iter().all(plain) {
        return false;
    }
    let mut words = script.split(|byte| !is_name(*byte));
    // The time at which the shell was started.
    let times = script.windows(2).any(|it| it == b"%(");
    if times || words.any(is_telling) {
        return false;
    }
    let mut parser = Parser { rest: script };
    // A fresh bash becomes the last program, if that stands alone; then its end is the shell's.
    parser.list() == Some(Tail::Shell) && parser.rest.is_empty()
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// What ends a word.
fn is_delimiter(byte: u8) -> bool {
    b" \t\n;|&<>()".contains(&byte)
}

/// What the last command of a list is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tail {
    /// Something for which a shell stays.
    Shell,
    /// A program that stands alone.
    Program,
}

/// What is left of the text. Its methods take what they are named after, or give none.
struct Parser<'a> {
    rest: &'a [u8],
}

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    fn next(&mut self) -> Option<u8> {
        let (&first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first)
    }

    fn skip(&mut self, text: &[u8]) -> bool {
        let rest = self.rest.strip_prefix(text);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn skip_all(&mut self, bytes: &[u8]) {
        while self.peek().is_some_and(|byte| bytes.contains(&byte)) {
            self.next();
        }
    }

    /// The bytes at the beginning that are `wanted`.
    fn run(&mut self, wanted: impl Fn(u8) -> bool) -> &[u8] {
        let length = self.rest.iter().take_while(|byte| wanted(**byte)).count();
        let (run, rest) = self.rest.split_at(length);
        self.rest = rest;
        run
    }

    /// Commands up to the end, or to a parenthesis.
    fn list(&mut self) -> Option<Tail> {
        self.skip_all(b" \t\n");
        loop {
            let tail = self.and_or()?;
            self.skip_all(b" \t");
            match self.peek() {
                Some(b';' | b'\n') => self.next(),
                None | Some(b')') => return Some(tail),
                Some(_) => return None,
            };
            self.skip_all(b" \t\n");
            if matches!(self.peek(), None | Some(b')')) {
                return Some(tail);
            }
        }
    }

    fn and_or(&mut self) -> Option<Tail> {
        loop {
            let tail = self.pipeline()?;
            self.skip_all(b" \t");
            if !self.skip(b"&&") && !self.skip(b"||") {
                return Some(tail);
            }
            self.skip_all(b" \t\n");
        }
    }

    fn pipeline(&mut self) -> Option<Tail> {
        if self.skip(b"! ") {
            self.skip_all(b" \t");
        }
        let mut tail = self.command()?;
        loop {
            self.skip_all(b" \t");
            if self.rest.starts_with(b"||") || !self.skip(b"|") {
                return Some(tail);
            }
            self.skip_all(b" \t\n");
            self.command()?;
            tail = Tail::Shell;
        }
    }

    fn command(&mut self) -> Option<Tail> {
        let mut name = None;
        let mut any = false;
        loop {
            self.skip_all(b" \t");
            if self.redirection()? {
                any = true;
                continue;
            }
            match self.peek() {
                None | Some(b'\n' | b';' | b'|' | b'&' | b')') => break,
                Some(_) if name.is_some() => self.word()?,
                Some(_) if self.assignment()? => {}
                Some(_) => name = Some(self.name()?),
            }
            any = true;
        }
        any.then(|| name.unwrap_or(Tail::Shell))
    }

    /// The name of a command.
    fn name(&mut self) -> Option<Tail> {
        let plain = |byte: u8| is_name(byte) || b"./+:@,-[".contains(&byte);
        let name = str::from_utf8(self.run(plain)).ok()?;
        if name.is_empty() || OTHERS.contains(&name) || name.contains('[') && name != "[" {
            return None;
        }
        let tail = match BUILTINS.contains(&name) {
            true => Tail::Shell,
            false => Tail::Program,
        };
        self.peek().is_none_or(is_delimiter).then_some(tail)
    }

    /// Whether there was an assignment.
    fn assignment(&mut self) -> Option<bool> {
        let length = self.rest.iter().take_while(|byte| is_name(**byte)).count();
        let named = length > 0 && !self.rest[0].is_ascii_digit();
        if !named || self.rest.get(length) != Some(&b'=') {
            return Some(false);
        }
        self.rest = &self.rest[length + 1..];
        if self.peek().is_some_and(|byte| !is_delimiter(byte)) {
            self.word()?;
        }
        // An array's value would follow.
        (self.peek() != Some(b'(')).then_some(true)
    }

    /// Whether there was a redirection.
    fn redirection(&mut self) -> Option<bool> {
        let digits = self
            .rest
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        let operator = self.rest.get(digits).copied();
        if digits == 0 && self.skip(b"&>") {
            // Both outputs.
        } else if matches!(operator, Some(b'<' | b'>')) {
            if !matches!(&self.rest[..digits], b"" | b"0" | b"1" | b"2") {
                return None;
            }
            self.rest = &self.rest[digits + 1..];
            if operator == Some(b'>') && self.skip(b"&") {
                let known = self.skip(b"1") || self.skip(b"2");
                return (known && self.peek().is_none_or(is_delimiter)).then_some(true);
            }
        } else {
            return Some(false);
        }
        if operator != Some(b'<') {
            self.skip(b">");
        }
        self.skip_all(b" \t");
        // No other operator begins like this one.
        self.word().map(|()| true)
    }

    fn word(&mut self) -> Option<()> {
        if self.peek().is_none_or(|it| it == b'#' || is_delimiter(it)) {
            return None;
        }
        while let Some(byte) = self.peek().filter(|byte| !is_delimiter(*byte)) {
            self.next();
            match byte {
                b'\'' => self.single_quoted()?,
                b'"' => self.double_quoted()?,
                b'\\' => self.next().filter(|it| *it != b'\n').map(drop)?,
                b'$' => self.expansion()?,
                b'`' => return None,
                _ => {}
            }
        }
        // A parenthesis in a word is a pattern's, an array's or a function's.
        (self.peek() != Some(b'(')).then_some(())
    }

    fn single_quoted(&mut self) -> Option<()> {
        self.run(|byte| byte != b'\'');
        self.next().map(drop)
    }

    fn double_quoted(&mut self) -> Option<()> {
        loop {
            match self.next()? {
                b'"' => return Some(()),
                b'\\' => drop(self.next()?),
                b'$' if self.peek() == Some(b'"') => {}
                b'$' => self.expansion()?,
                b'`' => return None,
                _ => {}
            }
        }
    }

    /// What follows a dollar.
    fn expansion(&mut self) -> Option<()> {
        if self.skip(b"((") {
            return self.arithmetic();
        }
        if self.skip(b"(") {
            self.list()?;
            return self.skip(b")").then_some(());
        }
        if self.skip(b"?") {
            return Some(());
        }
        let braced = self.skip(b"{");
        let name = self.run(is_name);
        let named = name.first().is_some_and(|byte| !byte.is_ascii_digit());
        (named && (!braced || self.skip(b"}"))).then_some(())
    }

    /// A calculation up to its two parentheses. That it is one bash finds out when it calculates.
    fn arithmetic(&mut self) -> Option<()> {
        let mut depth = 0;
        loop {
            match self.next()? {
                b'(' => depth += 1,
                b')' if depth == 0 => return self.skip(b")").then_some(()),
                b')' => depth -= 1,
                byte if is_name(byte) || b" +-*/%<>=!&|".contains(&byte) => {}
                _ => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_fork_can_do_is_taken() {
        for script in [
            "true",
            "  echo  a;",
            "[ -f /etc/passwd ] && echo yes || echo no",
            "echo \"$HOME ${x}\" 'it is' \\; > /tmp/a 2>&1",
            "cat /etc/passwd | grep -c root",
            "grep root /etc/passwd\necho $?\n",
            "echo $((6 * 7)) | grep 42",
            "test \"$(cat /tmp/x | wc -l)\" = 3",
            "! test -e /tmp/x",
            "A=1 printf %s a >>/tmp/x",
            "x=$(ls | head -1); echo $x",
            "echo a &>/dev/null </dev/null",
            "false ||\n true",
            "echo {a,b} ~ a#b !",
        ] {
            assert!(fits(script.as_bytes()), "{script}");
        }
    }

    #[test]
    fn the_rest_is_not() {
        for script in [
            "",
            " \n",
            ";",
            "echo a;;",
            "ls",
            "cd / && ls",
            "ls; ls > x",
            "echo $$",
            "echo $!",
            "echo $-",
            "echo $_",
            "echo ${x:-1}",
            "echo $BASHPID",
            "echo \"${PPID}\"",
            "echo 'a",
            "echo \"a",
            "echo $(ls",
            "echo `ls`",
            "echo a)",
        ] {
            assert!(!fits(script.as_bytes()), "{script}");
        }
    }

    #[test]
    fn other_grammar_is_not_taken() {
        for script in [
            "(true)",
            "{ true; }",
            "if true; then echo; fi",
            "exec true",
            "sleep 1 & true",
            "true &",
            "echo a |",
            "echo a &&",
            "| echo a",
            "echo a | | cat",
            "echo a > ",
            "echo a 3>x",
            "echo a 22>x",
            "%1",
            "echo a >&3",
            "cat <<E\nE",
            "cat <<< a | cat",
            "cat <(ls) | cat",
            "x=(a b)",
            "x=a(b",
            "f() { true; }",
            "f () echo",
            "a[0]=1",
            "echo # no",
            "\"echo\" a",
            "$x",
            "pgrep -f x | cat",
            "cat /proc/self/stat | cat",
            "sh -c 'ps ax' | cat",
            "printf '%(%s)T' -2",
            "echo $((1)+(2))",
            "echo $((a[0]))",
            "echo \u{e9}",
            "echo a\\\nb",
            "echo \"a\\",
            "echo a >|x",
            "echo a |& cat",
            "! ! true",
            "time true",
            "trap 'echo' EXIT",
        ] {
            assert!(!fits(script.as_bytes()), "{script}");
        }
    }
}
