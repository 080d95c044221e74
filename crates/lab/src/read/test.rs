//! Tests and their steps.

use std::collections::{BTreeMap, BTreeSet};

use super::names::Machines;
use super::{Reader, parsed, strings};
use crate::problem::Problem;
use crate::shape::{duration, list, near};
use crate::source::{Span, Value};
use crate::types::{Action, Body, DEFAULT_TIMEOUT, Expect, MachineName, Program, Step, Test};

impl Reader<'_> {
    pub(super) fn read_tests(&mut self, machines: &Machines) -> Vec<Test> {
        let mut tests = Vec::new();
        let mut names: BTreeMap<&str, Span> = BTreeMap::new();
        let items = self.root.get("test").map_or(&[][..], Value::items);
        for (index, item) in items.iter().enumerate() {
            if let Some(value) = item.get("name")
                && let Some(name) = value.str()
            {
                if name.contains(char::is_control) {
                    let message = "a test's name is one line of plain text";
                    self.problem(Problem::new(message, value.span.clone()));
                }
                if let Some(first) = names.insert(name, value.span.clone()) {
                    self.problem(
                        Problem::new(format!("two tests are called `{name}`"), value.span.clone())
                            .also("first here", first)
                            .help("filters and reports tell tests apart by their names")
                            .at(format!("test[{index}].name")),
                    );
                }
            }
            tests.extend(self.read_test(item, index, machines));
        }
        tests
    }

    fn read_test(&mut self, item: &Value, index: usize, machines: &Machines) -> Option<Test> {
        item.table()?;
        let path = format!("test[{index}]");
        let members = self.read_members(item, &path, machines);
        let (steps, script) = (item.get("steps"), item.get("script"));
        let place = item.get("name").map_or(&item.span, |name| &name.span);
        let either = match (steps, script) {
            (None, None) => Some("the test does nothing"),
            (Some(_), Some(_)) => Some("the test has both `steps` and `script`"),
            _ => None,
        };
        if let Some(message) = either {
            let problem = Problem::new(message, place.clone());
            self.problem(
                problem
                    .help("a test has either `steps` or `script`")
                    .at(&path),
            );
        }
        let body = match (steps, script.and_then(Value::str)) {
            (_, Some(script)) => Body::Script(script.into()),
            (steps, None) => {
                let mut read = Vec::new();
                for (index, step) in steps.map_or(&[][..], Value::items).iter().enumerate() {
                    let path = format!("{path}.steps[{index}]");
                    read.extend(self.read_step(step, &path, machines, &members));
                }
                Body::Steps(read)
            }
        };
        let timeout = item
            .get("timeout")
            .or_else(|| self.root.get("defaults")?.get("timeout"));
        Some(Test {
            name: item.get("name")?.str()?.to_owned(),
            tags: strings(item.get("tags")).map(str::to_owned).collect(),
            timeout: timeout
                .and_then(|timeout| duration(timeout).ok())
                .unwrap_or(DEFAULT_TIMEOUT),
            machines: members.into_iter().collect(),
            body,
        })
    }

    /// The machines that a test needs.
    fn read_members(
        &mut self,
        item: &Value,
        path: &str,
        machines: &Machines,
    ) -> BTreeSet<MachineName> {
        let Some(value) = item.get("machines") else {
            return machines
                .all
                .iter()
                .map(|machine| machine.name.clone())
                .collect();
        };
        let mut members = BTreeSet::new();
        for item in value.items() {
            let Some(name) = item.str() else { continue };
            match machines.find(name) {
                Some(found) => members.extend(found),
                None => self.no_machine(item, name, &format!("{path}.machines"), machines),
            }
        }
        members
    }

    fn no_machine(&mut self, value: &Value, name: &str, path: &str, machines: &Machines) {
        if machines.is_broken(name) || name.trim().is_empty() {
            return;
        }
        let names = || machines.all.iter().map(|machine| machine.name.as_str());
        let near = near(name, names());
        let some: Vec<&str> = names().take(12).collect();
        let help = near
            .or_else(|| (!some.is_empty()).then(|| format!("the machines are {}", list(&some))));
        self.problem(
            Problem::new(format!("there is no machine `{name}`"), value.span.clone())
                .maybe_help(help)
                .at(path),
        );
    }

    /// The one machine that a step names.
    fn step_machine(
        &mut self,
        value: &Value,
        path: &str,
        machines: &Machines,
        members: &BTreeSet<MachineName>,
    ) -> Option<MachineName> {
        let name = value.str()?;
        let path = format!("{path}.machine");
        match machines.find(name).as_deref() {
            None => self.no_machine(value, name, &path, machines),
            Some([]) => {}
            Some([one]) if one.as_str() == name => {
                if members.contains(one) {
                    return Some(one.clone());
                }
                let message = format!("`{name}` is not among the machines of this test");
                let help = format!("add {name:?} to the test's `machines`");
                self.problem(
                    Problem::new(message, value.span.clone())
                        .help(help)
                        .at(path),
                );
            }
            Some(several) => {
                let names: Vec<&str> = several.iter().take(12).map(MachineName::as_str).collect();
                let message = format!("`{name}` has a `count`: a step needs one of them");
                let help = format!("these are {}", list(&names));
                self.problem(
                    Problem::new(message, value.span.clone())
                        .help(help)
                        .at(path),
                );
            }
        }
        None
    }

    fn read_step(
        &mut self,
        item: &Value,
        path: &str,
        machines: &Machines,
        members: &BTreeSet<MachineName>,
    ) -> Option<Step> {
        item.table()?;
        let machine = item
            .get("machine")
            .and_then(|value| self.step_machine(value, path, machines, members));
        let action = self.read_action(item, path);
        Some(Step {
            line: self.line(item),
            machine: machine?,
            action: action?,
            timeout: item.get("timeout").and_then(|value| duration(value).ok()),
        })
    }

    fn read_action(&mut self, item: &Value, path: &str) -> Option<Action> {
        const VERBS: [&str; 4] = ["wait", "run", "copy_in", "copy_out"];
        let verbs: Vec<&str> = VERBS
            .into_iter()
            .filter(|verb| item.get(verb).is_some())
            .collect();
        let [verb] = verbs[..] else {
            let message = match verbs[..] {
                [] => "the step does nothing".to_owned(),
                _ => format!("the step does several things: {}", list(&verbs)),
            };
            let help = format!("a step has one of {}", list(&VERBS));
            self.problem(Problem::new(message, item.span.clone()).help(help).at(path));
            return None;
        };
        for (key, takers) in [
            ("user", &["run"][..]),
            ("status", &["run"]),
            ("stdout", &["run"]),
            ("stderr", &["run"]),
            ("to", &["copy_in", "copy_out"]),
        ] {
            if let Some(value) = item.get(key)
                && !takers.contains(&verb)
            {
                let message = format!("`{key}` means nothing with `{verb}`");
                let help = format!("it goes with {}", list(takers));
                let path = format!("{path}.{key}");
                self.problem(
                    Problem::new(message, value.span.clone())
                        .help(help)
                        .at(path),
                );
            }
        }
        match verb {
            "wait" => parsed(item.get("wait")).map(Action::Wait),
            "run" => self.read_run(item, path),
            _ => self.read_copy(item, verb, path),
        }
    }

    fn read_copy(&mut self, item: &Value, verb: &str, path: &str) -> Option<Action> {
        let from = item.get(verb)?;
        let Some(to) = item.get("to") else {
            let message = format!("`{verb}` needs `to`: where to");
            let help = "`copy_in = \"site\", to = \"/srv/site\"`";
            self.problem(Problem::new(message, from.span.clone()).help(help).at(path));
            return None;
        };
        let (from, to_text) = (from.str()?, to.str()?);
        if verb == "copy_out" {
            return Some(Action::CopyOut {
                from: from.into(),
                to: to_text.into(),
            });
        }
        if let Err(error) = crate::types::check_guest_path(to_text) {
            self.problem(
                Problem::new(error.to_string(), to.span.clone())
                    .help(error.help())
                    .at(format!("{path}.to")),
            );
        }
        Some(Action::CopyIn {
            from: from.into(),
            to: to_text.into(),
        })
    }

    fn read_run(&mut self, item: &Value, path: &str) -> Option<Action> {
        let run = item.get("run")?;
        let words: Vec<String> = strings(Some(run)).map(str::to_owned).collect();
        let program = match run.str() {
            Some(text) => Program::Shell(text.to_owned()),
            None => Program::Argv(words),
        };
        if matches!(&program, Program::Argv(words) if words.first().is_some_and(String::is_empty)) {
            let problem = Problem::new("the program's name is empty", run.span.clone());
            self.problem(problem.at(format!("{path}.run")));
        }
        let status = item.get("status").and_then(Value::integer).unwrap_or(0);
        Some(Action::Run {
            program,
            user: item.get("user").and_then(Value::str).map(str::to_owned),
            status: i32::try_from(status).unwrap_or(0),
            stdout: self.read_expect(item.get("stdout"), path),
            stderr: self.read_expect(item.get("stderr"), path),
        })
    }

    fn read_expect(&mut self, value: Option<&Value>, path: &str) -> Expect {
        let Some(value) = value else {
            return Expect::default();
        };
        if value.table().is_some_and(|table| table.entries.is_empty()) {
            let problem = Problem::new("this expects nothing", value.span.clone());
            let help = "`contains`, `matches` or `equals`";
            self.problem(problem.help(help).at(path));
        }
        let text = |key| value.get(key).and_then(Value::str).map(str::to_owned);
        Expect {
            contains: text("contains"),
            matches: text("matches"),
            equals: text("equals"),
        }
    }
}
