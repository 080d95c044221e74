//! Machines: read, multiplied, numbered, and held against each other.

use std::collections::BTreeMap;

use super::names::Machines;
use super::{Reader, parsed};
use crate::problem::Problem;
use crate::source::{Entry, Span, Value};
use crate::types::{
    DEFAULT_MEMORY, Disk, DiskContents, Gpu, Kind, MAX_MACHINES, Machine, MachineName, Publish,
    VlanId, Volume,
};

/// A machine that may still clash with others.
struct Draft {
    machine: Machine,
    name_span: Span,
    publish_spans: Vec<Span>,
}

impl Reader<'_> {
    pub(super) fn read_machines(&mut self) -> Machines {
        let section = self.section("machine");
        let mut groups = BTreeMap::new();
        let mut drafts: Vec<Draft> = Vec::new();
        for entry in section {
            let members = self.read_machine(entry);
            let names = members.iter().map(|draft| draft.machine.name.clone());
            groups.insert(entry.key.clone(), names.collect());
            drafts.extend(members);
        }
        if section.is_empty() && self.problems.is_empty() {
            let problem = Problem::new("the lab has no machines", 0..0);
            self.problem(problem.help("begin with `[machine.NAME]`"));
        }
        self.check_names(&drafts);
        self.check_ports(&drafts);
        drafts.sort_by(|a, b| a.machine.name.cmp(&b.machine.name));
        if let Some(extra) = drafts.get(MAX_MACHINES) {
            let message = format!(
                "{} machines are more than the {MAX_MACHINES} that a VLAN has addresses for",
                drafts.len()
            );
            self.problem(Problem::new(message, extra.name_span.clone()).at("machine"));
        }
        let all = drafts
            .into_iter()
            .zip(1..=u8::MAX)
            .map(|(draft, number)| Machine {
                number,
                ..draft.machine
            });
        Machines {
            all: all.collect(),
            groups,
        }
    }

    /// The machines that one table describes: several where it has a `count`.
    fn read_machine(&mut self, entry: &Entry) -> Vec<Draft> {
        let path = format!("machine.{}", entry.key);
        let defaults = self.root.get("defaults");
        let value = &entry.value;
        let either = |key| value.get(key).or_else(|| defaults?.get(key));
        let image = self.find_image(either("image"), &entry.key_span, &path);
        let image = image.map(|image| self.add_to_image(image, value, &path));
        let kind = match either("kind").and_then(Value::str) {
            Some("vm") => Kind::Vm,
            Some("container") => Kind::Container,
            _ => Kind::Auto,
        };
        self.check_kind(value, kind, &path);
        let disks = self.read_disks(value, &path);
        let volumes = self.read_volumes(value, &path);
        let vlans = self.read_vlans(either("vlans"), &path);
        let (publish, publish_spans) = items::<Publish>(value.get("publish"));
        let count = value.get("count");
        if let Some(count) = count {
            self.check_count(count, value, &disks, &publish, &path);
        }
        let env = variables([defaults, Some(value)]);
        let (Ok(name), Some(image)) = (entry.key.parse::<MachineName>(), image) else {
            return Vec::new();
        };
        let draft = Draft {
            machine: Machine {
                name,
                group: entry.key.clone(),
                number: 0,
                kind,
                image,
                memory: parsed(either("memory")).unwrap_or(DEFAULT_MEMORY),
                cpus: either("cpus")
                    .and_then(Value::integer)
                    .and_then(|cpus| u16::try_from(cpus).ok())
                    .unwrap_or(1),
                vlans,
                disks,
                volumes,
                publish,
                devices: items(value.get("devices")).0,
                cdi: items(value.get("cdi")).0,
                gpu: match value.get("gpu").and_then(Value::str) {
                    Some("nvidia") => Some(Gpu::Nvidia),
                    _ => None,
                },
                env,
                ready: parsed(either("ready")).unwrap_or_default(),
                snapshot: either("snapshot").and_then(Value::bool).unwrap_or(true),
                checkpoint: parsed(either("checkpoint")).unwrap_or_default(),
            },
            name_span: entry.key_span.clone(),
            publish_spans,
        };
        self.multiply(draft, count, &path)
    }

    fn multiply(&mut self, draft: Draft, count: Option<&Value>, path: &str) -> Vec<Draft> {
        let Some(count) = count else {
            return vec![draft];
        };
        // A count out of range has been told of.
        let times = count.integer().unwrap_or(0).clamp(0, 250);
        let mut members = Vec::new();
        for n in 1..=times {
            match format!("{}-{n}", draft.machine.name).parse::<MachineName>() {
                Ok(name) => members.push(Draft {
                    machine: Machine {
                        name,
                        ..draft.machine.clone()
                    },
                    name_span: draft.name_span.clone(),
                    publish_spans: draft.publish_spans.clone(),
                }),
                Err(error) => {
                    self.problem(
                        Problem::new(error.to_string(), draft.name_span.clone())
                            .help(error.help())
                            .at(path),
                    );
                    return Vec::new();
                }
            }
        }
        members
    }

    /// What one kind of machine has and the other has not.
    fn check_kind(&mut self, value: &Value, kind: Kind, path: &str) {
        let given = |key| value.get(key).filter(|value| !value.items().is_empty());
        let disks = given("disks");
        let devices = [
            ("devices", given("devices")),
            ("cdi", given("cdi")),
            ("gpu", value.get("gpu")),
        ];
        if let (Kind::Container, Some(disks)) = (kind, disks) {
            self.problem(
                Problem::new("a container has no disks", disks.span.clone())
                    .help("use `volumes`, or `kind = \"vm\"`")
                    .at(format!("{path}.disks")),
            );
        }
        if let (Kind::Container, Some(snapshot)) = (kind, value.get("snapshot")) {
            self.problem(
                Problem::new("a container has no snapshot", snapshot.span.clone())
                    .help("leave it out: it starts at once in any case; or use `kind = \"vm\"`")
                    .at(format!("{path}.snapshot")),
            );
        }
        if let (Kind::Vm, Some(checkpoint)) = (kind, value.get("checkpoint")) {
            self.problem(
                Problem::new(
                    "a checkpoint saves a VM as it is: there is nothing to choose",
                    checkpoint.span.clone(),
                )
                .help("leave it out, or use `kind = \"container\"`")
                .at(format!("{path}.checkpoint")),
            );
        }
        for (key, devices) in devices {
            if let (Kind::Vm, Some(devices)) = (kind, devices) {
                self.problem(
                    Problem::new("a VM has no devices of the host", devices.span.clone())
                        .help(format!("leave `{key}` out, or use `kind = \"container\"`"))
                        .at(format!("{path}.{key}")),
                );
            }
            if let (Kind::Auto, Some(disks), Some(devices)) = (kind, disks, devices) {
                self.problem(
                    Problem::new(
                        "no machine has both disks and devices of the host",
                        devices.span.clone(),
                    )
                    .also("only a VM has disks", disks.span.clone())
                    .label("only a container has devices of the host")
                    .help("make two machines of it")
                    .at(format!("{path}.{key}")),
                );
            }
        }
    }

    /// What only one machine can have.
    fn check_count(
        &mut self,
        count: &Value,
        value: &Value,
        disks: &[Disk],
        publish: &[Publish],
        path: &str,
    ) {
        if count.integer().is_none_or(|count| count < 2) {
            return;
        }
        let fixed = publish.iter().find_map(|publish| publish.host);
        if let (Some(port), Some(value)) = (fixed, value.get("publish")) {
            let message = format!("only one machine can have port {port} of the host");
            self.problem(
                Problem::new(message, value.span.clone())
                    .also("these are several", count.span.clone())
                    .help("name the machine's port alone, such as \"80\": each gets a free port")
                    .at(format!("{path}.publish")),
            );
        }
        let shared =
            |disk: &Disk| matches!(disk.contents, DiskContents::File(_)) && !disk.read_only;
        if let (true, Some(value)) = (disks.iter().any(shared), value.get("disks")) {
            self.problem(
                Problem::new("only one machine can write to a disk", value.span.clone())
                    .also("these are several", count.span.clone())
                    .help("make it `read_only = true`, or use `size` for a disk of each one's own")
                    .at(format!("{path}.disks")),
            );
        }
    }

    fn read_disks(&mut self, value: &Value, path: &str) -> Vec<Disk> {
        let mut disks = Vec::new();
        for (index, item) in value
            .get("disks")
            .map_or(&[][..], Value::items)
            .iter()
            .enumerate()
        {
            let path = format!("{path}.disks[{index}]");
            let (size, file) = (item.get("size"), item.get("path"));
            let read_only = item.get("read_only").and_then(Value::bool).unwrap_or(false);
            let wrong = match (size, file) {
                (Some(_), Some(_)) | (None, None) => Some("a disk has either `size` or `path`"),
                (Some(_), None) if read_only => Some("an empty disk that is read-only has no use"),
                _ => None,
            };
            if let (Some(message), true) = (wrong, item.table().is_some()) {
                let problem = Problem::new(message, item.span.clone());
                let help = "`{ size = \"2G\" }`, or `{ path = \"data.img\", read_only = true }`";
                self.problem(problem.help(help).at(path));
            }
            let contents = parsed(size).map(DiskContents::Empty);
            let file = || file?.str().map(|path| DiskContents::File(path.into()));
            disks.extend(contents.or_else(file).map(|contents| Disk {
                contents,
                read_only,
            }));
        }
        disks
    }

    fn read_volumes(&mut self, value: &Value, path: &str) -> Vec<Volume> {
        let mut volumes: Vec<Volume> = Vec::new();
        for item in value.get("volumes").map_or(&[][..], Value::items) {
            let text = |key| item.get(key).and_then(Value::str);
            let volume = parsed(Some(item)).or_else(|| {
                Some(Volume {
                    source: text("source")?.into(),
                    target: text("target")?.into(),
                    writable: item.get("writable").and_then(Value::bool).unwrap_or(false),
                })
            });
            let Some(volume) = volume else { continue };
            if volumes.iter().any(|other| other.target == volume.target) {
                let message = format!("two volumes at `{}`", volume.target.display());
                let problem = Problem::new(message, item.span.clone());
                let help = "give each its own target";
                self.problem(problem.help(help).at(format!("{path}.volumes")));
            }
            volumes.push(volume);
        }
        volumes
    }

    fn read_vlans(&mut self, value: Option<&Value>, path: &str) -> Vec<VlanId> {
        let Some(value) = value else {
            return vec![VlanId::DEFAULT];
        };
        let mut vlans = Vec::new();
        for item in value.items() {
            let Some(vlan) = item.integer().and_then(VlanId::new) else {
                continue;
            };
            if vlans.contains(&vlan) {
                let problem = Problem::new(format!("VLAN {vlan} twice"), item.span.clone());
                let help = "a machine hangs on a VLAN by one port";
                self.problem(problem.help(help).at(format!("{path}.vlans")));
            } else {
                vlans.push(vlan);
            }
        }
        vlans
    }

    fn check_names(&mut self, drafts: &[Draft]) {
        let mut seen: BTreeMap<&MachineName, &Draft> = BTreeMap::new();
        for draft in drafts {
            let name = &draft.machine.name;
            if let Some(first) = seen.insert(name, draft) {
                self.problem(
                    Problem::new(
                        format!("two machines are called `{name}`"),
                        draft.name_span.clone(),
                    )
                    .also("the other comes from here", first.name_span.clone())
                    .help("`count` makes names by adding `-1`, `-2` and so on")
                    .at(format!("machine.{}", draft.machine.group)),
                );
            }
        }
    }

    fn check_ports(&mut self, drafts: &[Draft]) {
        let mut seen: Vec<(&Publish, &Span, &str)> = Vec::new();
        for draft in drafts {
            let group = draft.machine.group.as_str();
            for (publish, span) in draft.machine.publish.iter().zip(&draft.publish_spans) {
                let clash = seen.iter().find(|(other, other_span, other_group)| {
                    // The same line for several machines has been told of with `count`.
                    publish.clashes(other) && !(*other_group == group && *other_span == span)
                });
                if let Some((_, first, _)) = clash
                    && let Some(port) = publish.host
                {
                    let message = format!("port {port} of the host is published twice");
                    self.problems.push(
                        Problem::new(message, span.clone())
                            .also("first here", (*first).clone())
                            .help("choose another port, or name the machine's port alone for a free one")
                            .at(format!("machine.{group}.publish")),
                    );
                }
                if !seen.iter().any(|(_, other, _)| *other == span) {
                    seen.push((publish, span, group));
                }
            }
        }
    }
}

/// The variables of all tables, of two with one name the later.
fn variables(tables: [Option<&Value>; 2]) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    for table in tables.into_iter().flatten() {
        for entry in table.get("env").map_or(&[][..], Value::entries) {
            let text = entry.value.str();
            env.extend(text.map(|text| (entry.key.clone(), text.to_owned())));
        }
    }
    env
}

/// The items of a list that parse, and where they stand.
fn items<T: std::str::FromStr>(value: Option<&Value>) -> (Vec<T>, Vec<Span>) {
    value
        .map_or(&[][..], Value::items)
        .iter()
        .filter_map(|item| Some((parsed(Some(item))?, item.span.clone())))
        .unzip()
}
