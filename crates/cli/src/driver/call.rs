//! How `nixos-test-driver` is called: the arguments of all three generations of NixOS's driver, with
//! their defaults from the environment.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use machinist_events::Level;

use super::argparse::{self, Given, Parsed};
use super::options::{
    CONFIG, CONTAINER_NAMES, CONTAINER_SCRIPTS, DEBUG_HOOK, HELP, INTERACTIVE, JUNIT, KEEP,
    LOG_LEVEL, OPTIONS, OUT_DIR, TEST_SCRIPT, TIMEOUT, VLANS, VM_NAMES, VM_SCRIPTS, VSOCKS, WARM,
    name,
};

/// What the program is called.
pub const PROGRAM: &str = "nixos-test-driver";
const POSITIONAL: &str = "testscript";

/// Machines of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listed {
    /// Their names, if they are given.
    pub names: Option<Vec<String>>,
    /// Their start scripts.
    pub scripts: Vec<String>,
}

/// What the caller wants.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Call {
    /// The configuration, instead of the lists.
    pub config: Option<PathBuf>,
    /// The test script. None: the configuration's.
    pub test_script: Option<PathBuf>,
    /// State directories may hold something from before.
    pub keep_state: bool,
    /// A prompt instead of running the script.
    pub interactive: bool,
    /// How somebody is to attach to a breakpoint.
    pub debug_hook: Option<String>,
    /// The VMs.
    pub vms: Listed,
    /// The containers.
    pub containers: Listed,
    /// The VLANs, each once.
    pub vlans: Vec<u32>,
    /// After which all is over.
    pub global_timeout: Option<Duration>,
    /// The output directory; none: the current one.
    pub out_dir: Option<PathBuf>,
    /// The JUnit report, relative to the output directory.
    pub junit: Option<PathBuf>,
    /// Say how to log in by SSH.
    pub ssh: bool,
    /// What matters less is not shown.
    pub level: Level,
    /// VMs are restored from snapshots.
    pub warm: bool,
}

/// What the arguments ask for.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked {
    /// To run.
    Run(Box<Call>),
    /// To be told how to call it.
    Help,
}

/// Reads the arguments, without the program's name.
///
/// # Errors
/// The message says what is wrong with them.
pub fn read(args: Vec<OsString>, var: impl Fn(&str) -> Option<OsString>) -> Result<Asked, String> {
    let parsed = argparse::parse(OPTIONS, args)?;
    if parsed.options.iter().any(|given| given.option == HELP) {
        return Ok(Asked::Help);
    }
    let values = Values { parsed, var };
    values.call().map(|call| Asked::Run(Box::new(call)))
}

/// How to call it.
pub fn usage() -> String {
    argparse::usage(PROGRAM, OPTIONS, &format!("[{POSITIONAL}]"))
}

/// How to call it, and what everything means.
pub fn help() -> String {
    format!(
        "{}\nRuns a NixOS test whose machines are run by start scripts.\n\n\
         positional arguments:\n  {POSITIONAL}\n          \
         the test script to run (environment: testScript)\n\n\
         options:\n{}\n\
         LOGFILE in the environment names a file for the log as XML.\n\
         Exit status: 0 passed, 1 failed, 2 the call makes no sense, 130 interrupted.\n",
        usage(),
        argparse::help(OPTIONS)
    )
}

/// What was given, and what the environment says instead of what was not.
struct Values<F> {
    parsed: Parsed,
    var: F,
}

impl<F: Fn(&str) -> Option<OsString>> Values<F> {
    fn call(&self) -> Result<Call, String> {
        let config = self.last(CONFIG).map(PathBuf::from);
        let call = Call {
            test_script: self.test_script(config.is_some())?,
            keep_state: self.flag(KEEP).is_some(),
            interactive: matches!(self.flag(INTERACTIVE), Some("-I" | "--interactive")),
            debug_hook: self.last(DEBUG_HOOK).map(lossy),
            vms: self.listed(config.is_some(), VM_NAMES, VM_SCRIPTS, &VM_VARS)?,
            containers: self.listed(
                config.is_some(),
                CONTAINER_NAMES,
                CONTAINER_SCRIPTS,
                &CONTAINER_VARS,
            )?,
            vlans: self.vlans(config.is_some())?,
            global_timeout: self.timeout(config.is_some())?,
            out_dir: self.last(OUT_DIR).map(directory).transpose()?,
            junit: self.last(JUNIT).map(PathBuf::from),
            ssh: self.ssh()?,
            level: self.level()?,
            warm: self.flag(WARM).is_some()
                || self.var("MACHINIST_WARM").is_some_and(|it| it != "0"),
            config,
        };
        if self.parsed.unknown.is_empty() {
            return Ok(call);
        }
        let unknown: Vec<_> = self.parsed.unknown.iter().map(|arg| lossy(arg)).collect();
        Err(format!("unrecognized arguments: {}", unknown.join(" ")))
    }

    /// What an option was given last.
    fn given(&self, option: usize) -> Option<&Given> {
        self.parsed
            .options
            .iter()
            .rfind(|given| given.option == option)
    }

    fn last(&self, option: usize) -> Option<&OsStr> {
        let given = self.given(option)?;
        given.values.first().map(OsString::as_os_str)
    }

    fn flag(&self, option: usize) -> Option<&'static str> {
        self.given(option).map(|given| given.flag)
    }

    fn var(&self, name: &str) -> Option<OsString> {
        (self.var)(name).filter(|value| !value.is_empty())
    }

    fn test_script(&self, config: bool) -> Result<Option<PathBuf>, String> {
        let given = self
            .parsed
            .positional
            .as_deref()
            .or_else(|| self.last(TEST_SCRIPT));
        match given {
            Some(given) => Ok(Some(given.into())),
            None if config => Ok(None),
            None => match self.var("testScript") {
                Some(script) => Ok(Some(script.into())),
                None => Err(format!(
                    "the following arguments are required: {POSITIONAL}"
                )),
            },
        }
    }

    /// A list: what was given, else what the first of these variables says.
    fn list(&self, option: usize, vars: &[&str]) -> Result<Option<Vec<String>>, String> {
        let text = |value: &OsStr| {
            let text = value.to_str().map(str::to_owned);
            text.ok_or_else(|| format!("argument {}: not UTF-8: {}", name(option), lossy(value)))
        };
        if let Some(given) = self.given(option) {
            return given
                .values
                .iter()
                .map(|value| text(value))
                .collect::<Result<_, _>>()
                .map(Some);
        }
        let Some(value) = vars.iter().find_map(|name| (self.var)(name)) else {
            return Ok(None);
        };
        Ok(Some(
            text(&value)?
                .split_whitespace()
                .map(str::to_owned)
                .collect(),
        ))
    }

    fn listed(
        &self,
        config: bool,
        names: usize,
        scripts: usize,
        vars: &(&str, &[&str]),
    ) -> Result<Listed, String> {
        if config {
            self.not_with_config(&[names, scripts])?;
            return Ok(Listed::default());
        }
        let given = self
            .list(names, &[vars.0])?
            .filter(|names| !names.is_empty());
        let found = self.list(scripts, vars.1)?.unwrap_or_default();
        if let Some(given) = given.as_ref().filter(|given| given.len() != found.len()) {
            return Err(format!(
                "argument {}: {} for {} start scripts: there must be as many",
                name(names),
                given.len(),
                found.len()
            ));
        }
        Ok(Listed {
            names: given,
            scripts: found,
        })
    }

    fn not_with_config(&self, options: &[usize]) -> Result<(), String> {
        let both = options.iter().find_map(|option| self.given(*option));
        both.map_or(Ok(()), |given| {
            let (config, flag) = (name(CONFIG), given.flag);
            Err(format!(
                "argument {flag}: not allowed with argument {config}"
            ))
        })
    }

    fn vlans(&self, config: bool) -> Result<Vec<u32>, String> {
        if config {
            self.not_with_config(&[VLANS])?;
            return Ok(Vec::new());
        }
        let numbers = self.list(VLANS, &["vlans"])?.unwrap_or_default();
        let number = |text: &String| {
            let wrong = || {
                format!(
                    "argument {}: not the number of a VLAN: '{text}'",
                    name(VLANS)
                )
            };
            text.parse().map_err(|_| wrong())
        };
        let mut numbers: Vec<u32> = numbers.iter().map(number).collect::<Result<_, _>>()?;
        numbers.sort_unstable();
        numbers.dedup();
        Ok(numbers)
    }

    fn timeout(&self, config: bool) -> Result<Option<Duration>, String> {
        let given = self.last(TIMEOUT).map(OsStr::to_owned);
        let given = given.or_else(|| self.var("globalTimeout").filter(|_| !config));
        let Some(given) = given else { return Ok(None) };
        Ok(Some(Duration::from_secs(number(TIMEOUT, &given)?)))
    }

    fn ssh(&self) -> Result<bool, String> {
        let Some(given) = self.last(VSOCKS) else {
            return Ok(false);
        };
        // As there, an offset of 0 means that there is none.
        Ok(number(VSOCKS, given)? != 0)
    }

    fn level(&self) -> Result<Level, String> {
        let given = self.last(LOG_LEVEL).map(OsStr::to_owned);
        let Some(given) = given.or_else(|| self.var("logLevel")) else {
            return Ok(Level::Info);
        };
        match given.to_str() {
            Some("debug") => Ok(Level::Debug),
            Some("info") => Ok(Level::Info),
            Some("warning") => Ok(Level::Warning),
            Some("error") => Ok(Level::Error),
            _ => Err(format!(
                "argument {}: invalid choice: '{}' (choose from 'debug', 'info', 'warning', 'error')",
                name(LOG_LEVEL),
                lossy(&given)
            )),
        }
    }
}

/// The environment's names for the names and for the scripts of machines.
const VM_VARS: (&str, &[&str]) = ("vmNames", &["vmStartScripts", "startScripts"]);
const CONTAINER_VARS: (&str, &[&str]) = ("containerNames", &["containerStartScripts"]);

fn lossy(text: &OsStr) -> String {
    text.to_string_lossy().into_owned()
}

fn number(option: usize, text: &OsStr) -> Result<u64, String> {
    let text = lossy(text);
    let wrong = || format!("argument {}: invalid int value: '{text}'", name(option));
    text.trim().parse().map_err(|_| wrong())
}

/// A directory that can be written to: better to know now than at the end of the test.
fn directory(path: &OsStr) -> Result<PathBuf, String> {
    let (path, name) = (Path::new(path), name(OUT_DIR));
    if !path.is_dir() {
        return Err(format!(
            "argument {name}: {} is not a directory",
            path.display()
        ));
    }
    if rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_err() {
        let path = path.display();
        return Err(format!(
            "argument {name}: {path} is not a writeable directory"
        ));
    }
    Ok(path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_with(line: &str, vars: &[(&str, &str)]) -> Result<Asked, String> {
        let args = line.split_whitespace().map(OsString::from).collect();
        let vars: Vec<(String, String)> = vars
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect();
        read(args, move |wanted| {
            let found = vars.iter().find(|(name, _)| name == wanted);
            found.map(|(_, value)| value.into())
        })
    }

    fn call(line: &str, vars: &[(&str, &str)]) -> Call {
        match read_with(line, vars) {
            Ok(Asked::Run(call)) => *call,
            other => panic!("{other:?}"),
        }
    }

    fn wrong(line: &str) -> String {
        read_with(line, &[]).unwrap_err()
    }

    #[test]
    fn the_table_is_in_order() {
        for (option, flag) in [
            (CONFIG, "--config"),
            (TEST_SCRIPT, "--test-script"),
            (KEEP, "--keep-vm-state"),
            (INTERACTIVE, "--no-interactive"),
            (DEBUG_HOOK, "--debug-hook-attach"),
            (VM_NAMES, "--vm-names"),
            (VM_SCRIPTS, "--start-scripts"),
            (CONTAINER_NAMES, "--container-names"),
            (CONTAINER_SCRIPTS, "--container-start-scripts"),
            (VLANS, "--vlans"),
            (TIMEOUT, "--global-timeout"),
            (OUT_DIR, "--output_directory"),
            (JUNIT, "--junit-xml"),
            (VSOCKS, "--dump-vsocks"),
            (LOG_LEVEL, "--log-level"),
            (HELP, "--help"),
        ] {
            assert!(OPTIONS[option].flags.contains(&flag), "{flag}");
        }
        assert_eq!(OPTIONS.len(), HELP + 1);
    }

    #[test]
    fn the_first_generation() {
        let vars = [
            ("startScripts", " /a/run-a-vm /b/run-b-vm "),
            ("vlans", "2 1 2"),
            ("globalTimeout", "3600"),
            ("testScript", "/t"),
        ];
        let from_environment = call("", &vars);
        assert_eq!(from_environment.vms.scripts, ["/a/run-a-vm", "/b/run-b-vm"]);
        assert_eq!(from_environment.vms.names, None);
        assert_eq!(from_environment.vlans, [1, 2]);
        assert_eq!(
            from_environment.global_timeout,
            Some(Duration::from_secs(3600))
        );
        assert_eq!(
            from_environment.test_script.as_deref(),
            Some(Path::new("/t"))
        );

        let line = "-K -I --debug-hook-attach attach --start-scripts x --vlans --global-timeout 5 \
                    -o /tmp --junit-xml j.xml --dump-vsocks=2 script";
        let given = call(line, &vars);
        assert_eq!(given.vms.scripts, ["x"]);
        assert!(given.vlans.is_empty() && given.keep_state && given.interactive && given.ssh);
        assert_eq!(given.debug_hook.as_deref(), Some("attach"));
        assert_eq!(given.global_timeout, Some(Duration::from_secs(5)));
        assert_eq!(given.out_dir.as_deref(), Some(Path::new("/tmp")));
        assert_eq!(given.junit.as_deref(), Some(Path::new("j.xml")));
        assert_eq!(given.test_script.as_deref(), Some(Path::new("script")));
        assert!(!call("-I --no-interactive --keep-vm-state --dump-vsocks 0 s", &[]).ssh);
        assert!(!call("-I --no-interactive s", &[]).interactive);
    }

    #[test]
    fn the_second_generation() {
        let vars = [
            ("vmNames", "a"),
            ("vmStartScripts", "x"),
            ("startScripts", "old"),
            ("containerNames", ""),
            ("containerStartScripts", "/c/run-c-nspawn"),
        ];
        let found = call("s", &vars);
        assert_eq!(found.vms.names.as_deref(), Some(&["a".to_owned()][..]));
        assert_eq!(found.vms.scripts, ["x"]);
        assert_eq!(found.containers.names, None);
        assert_eq!(found.containers.scripts, ["/c/run-c-nspawn"]);
        assert!(call("--keep-machine-state s", &[]).keep_state);
        assert_eq!(
            wrong("s --vm-names a b --vm-start-scripts x"),
            "argument --vm-names: 2 for 1 start scripts: there must be as many"
        );
    }

    #[test]
    fn the_third_generation() {
        let found = call("--config f.json --log-level warning", &[("vlans", "7")]);
        assert_eq!(found.config.as_deref(), Some(Path::new("f.json")));
        assert_eq!((found.level, found.test_script), (Level::Warning, None));
        assert!(found.vlans.is_empty());
        let found = call("-c f.json --test-script t", &[("logLevel", "error")]);
        assert_eq!(found.test_script.as_deref(), Some(Path::new("t")));
        assert_eq!(found.level, Level::Error);
        assert_eq!(
            wrong("-c f.json --vlans 1"),
            "argument --vlans: not allowed with argument -c/--config"
        );
    }

    #[test]
    fn wrong_calls_are_told() {
        let choices = "(choose from 'debug', 'info', 'warning', 'error')";
        for (line, told) in [
            (
                "",
                "the following arguments are required: testscript".to_owned(),
            ),
            ("s t", "unrecognized arguments: t".to_owned()),
            ("s --bad", "unrecognized arguments: --bad".to_owned()),
            (
                "s --vlans 1 x",
                "argument --vlans: not the number of a VLAN: 'x'".to_owned(),
            ),
            (
                "s --vlans -1",
                "argument --vlans: not the number of a VLAN: '-1'".to_owned(),
            ),
            (
                "s --global-timeout 1h",
                "argument --global-timeout: invalid int value: '1h'".to_owned(),
            ),
            (
                "s --log-level loud",
                format!("argument --log-level: invalid choice: 'loud' {choices}"),
            ),
            (
                "s -o /nonexistent",
                "argument -o/--output_directory: /nonexistent is not a directory".to_owned(),
            ),
        ] {
            assert_eq!(wrong(line), told, "{line}");
        }
        assert_eq!(read_with("--help --bad", &[]), Ok(Asked::Help));
    }

    #[test]
    fn the_help_names_every_option() {
        let help = help();
        for flag in OPTIONS.iter().flat_map(|spec| spec.flags) {
            assert!(help.contains(flag), "{flag}");
        }
    }
}
