//! The machines of a call: their names, and whether their start scripts can be run. Whatever is
//! wrong with them is told before anything boots.

use std::collections::BTreeSet;
use std::path::Path;

use machinist_session::Scripted;
use machinist_session::protocol::ScriptKind;
use serde_json::Value;

use super::call::Listed;
use super::config::Config;
use crate::environment::Environment;

/// The machines of the lists. `Err` is one sentence for each mistake.
pub fn listed(
    kind: ScriptKind,
    listed: &Listed,
    environment: &Environment,
) -> Result<Vec<Scripted>, Vec<String>> {
    let names = listed.names.as_ref();
    let each = listed.scripts.iter().enumerate();
    let machines = each.map(|(at, command)| {
        let given = names.and_then(|names| names.get(at).cloned());
        let name = given.or_else(|| kind.name_in(command));
        scripted(kind, name, command, Value::Null, environment)
    });
    all(machines)
}

/// The machines of a configuration.
pub fn configured(
    kind: ScriptKind,
    config: &Config,
    environment: &Environment,
) -> Result<Vec<Scripted>, Vec<String>> {
    let machines = match kind {
        ScriptKind::Vm => &config.vms,
        ScriptKind::Container => &config.containers,
    };
    all(machines.values().map(|machine| {
        let (name, command) = (machine.name.clone(), &machine.start_script);
        scripted(
            kind,
            Some(name),
            command,
            config.displays(machine),
            environment,
        )
    }))
}

/// What is wrong with the machines taken together.
pub fn twice(vms: &[Scripted], containers: &[Scripted]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let names = vms
        .iter()
        .chain(containers)
        .map(|machine| machine.name.as_str());
    names
        .filter(|name| !seen.insert(*name))
        .map(|name| format!("two machines are called {name:?}"))
        .collect()
}

fn all(
    machines: impl Iterator<Item = Result<Scripted, String>>,
) -> Result<Vec<Scripted>, Vec<String>> {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for machine in machines {
        match machine {
            Ok(machine) => good.push(machine),
            Err(error) => bad.push(error),
        }
    }
    if bad.is_empty() { Ok(good) } else { Err(bad) }
}

fn scripted(
    kind: ScriptKind,
    name: Option<String>,
    command: &str,
    displays: Value,
    environment: &Environment,
) -> Result<Scripted, String> {
    let kind = kind.name();
    let name = name.ok_or_else(|| {
        format!("{command}: what is the {kind}'s name? A start script is called run-NAME-nspawn")
    })?;
    // The name is one of a directory, too.
    if Path::new(&name)
        .file_name()
        .is_none_or(|file| file != name.as_str())
        || name.contains('\0')
    {
        return Err(format!("a {kind} cannot be called {name:?}"));
    }
    can_run(command, environment)
        .map_err(|why| format!("{name}: start script {command}: {why}"))?;
    Ok(Scripted {
        name,
        command: absolute(command, environment),
        displays,
    })
}

/// Machines run elsewhere: a path is relative to where we were called.
fn absolute(command: &str, environment: &Environment) -> String {
    let path = environment.here.join(command);
    if command.contains('/') && path.is_file() {
        path.to_string_lossy().into_owned()
    } else {
        command.to_owned()
    }
}

/// Whether a start script can be run, as far as that can be told without running it.
fn can_run(command: &str, environment: &Environment) -> Result<(), String> {
    let path = environment.here.join(command);
    match path.metadata() {
        Ok(found) if found.is_dir() => Err("is a directory".into()),
        Ok(_) if rustix::fs::access(&path, rustix::fs::Access::EXEC_OK).is_err() => {
            Err("is not executable".into())
        }
        Ok(_) if command.contains('/') => Ok(()),
        // What a shell makes of it, only a shell can tell.
        _ if command.contains(|c: char| c.is_whitespace() || "$`|&;<>'\"\\".contains(c)) => Ok(()),
        _ if environment.find_program(command).is_some() && !command.contains('/') => Ok(()),
        Ok(_) => Err("is not in PATH".into()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::starts::Starts;

    fn environment(here: &Path) -> Environment {
        Environment {
            cache: crate::cache::Cache::at(here.into(), 0),
            images: here.into(),
            runtime: here.into(),
            exe: here.into(),
            search: "/usr/bin:/bin".into(),
            here: here.into(),
            cdi: Vec::new(),
            starts: Starts::read(|_| None, here, here).unwrap(),
            login: None,
            containers: std::sync::OnceLock::new(),
        }
    }

    fn file(path: &Path, mode: u32) -> String {
        std::fs::write(path, "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    #[test]
    fn names_come_from_scripts_unless_they_are_given() {
        let directory = tempfile::tempdir().unwrap();
        let here = environment(directory.path());
        let a = file(&directory.path().join("run-a-vm"), 0o755);
        file(&directory.path().join("run-c-nspawn"), 0o755);
        let list = |names: Option<&[&str]>, scripts: &[&str]| Listed {
            names: names.map(|names| names.iter().map(|name| (*name).into()).collect()),
            scripts: scripts.iter().map(|script| (*script).into()).collect(),
        };
        let vms = listed(ScriptKind::Vm, &list(None, &[&a]), &here).unwrap();
        assert_eq!((vms[0].name.as_str(), &vms[0].command), ("a", &a));
        let vms = listed(ScriptKind::Vm, &list(Some(&["x"]), &[&a]), &here).unwrap();
        assert_eq!(vms[0].name, "x");
        let containers = listed(
            ScriptKind::Container,
            &list(None, &["./run-c-nspawn"]),
            &here,
        )
        .unwrap();
        assert_eq!(containers[0].name, "c");
        assert!(containers[0].command.starts_with('/'), "{containers:?}");
        assert_eq!(twice(&vms, &containers), Vec::<String>::new());
        assert_eq!(twice(&vms, &vms), ["two machines are called \"x\""]);
    }

    #[test]
    fn every_mistake_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let here = environment(directory.path());
        let dull = file(&directory.path().join("run-dull-vm"), 0o644);
        let scripts = vec![
            "/none/run-a-vm".to_owned(),
            dull,
            "/".into(),
            "run-gone-vm".into(),
        ];
        let list = Listed {
            names: None,
            scripts,
        };
        let errors = listed(ScriptKind::Vm, &list, &here).unwrap_err();
        let told = [
            "No such file",
            "not executable",
            "is a directory",
            "No such file",
        ];
        for (error, told) in errors.iter().zip(told) {
            assert!(error.contains(told), "{error}");
        }
        assert_eq!(errors.len(), told.len());
        let unnamed = Listed {
            names: None,
            scripts: vec!["/bin/true".into()],
        };
        let errors = listed(ScriptKind::Container, &unnamed, &here).unwrap_err();
        assert!(errors[0].contains("run-NAME-nspawn"), "{errors:?}");
        let odd = Listed {
            names: Some(vec!["../x".into()]),
            scripts: vec!["/bin/true".into()],
        };
        assert!(listed(ScriptKind::Vm, &odd, &here).is_err());
    }

    #[test]
    fn a_command_line_is_the_shells_matter() {
        let here = environment(Path::new("/"));
        for command in ["env A=1 /bin/true", "true", "/bin/true"] {
            assert_eq!(can_run(command, &here), Ok(()), "{command}");
        }
        assert!(can_run("no-such-program", &here).is_err());
    }
}
