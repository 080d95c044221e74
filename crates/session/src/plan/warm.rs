//! Whether a VM may be restored from a snapshot, and with whom it shares that.

use machinist_lab::{self as lab, Lab};
use machinist_machine as machine;
use machinist_network::addresses::MachineNumberError;

use super::Circumstances;
use super::identity::{hosts, machine_id, nics};

/// Whether a VM may be restored, and who it is in its snapshot.
pub(super) fn warm(
    lab: &Lab,
    machine: &lab::Machine,
    circumstances: Circumstances<'_>,
) -> Result<machine::Warm, MachineNumberError> {
    if !circumstances.warm {
        return Ok(machine::Warm::default());
    }
    let because = if circumstances.late_disks {
        machine.cold_but_for_disks()
    } else {
        machine.cold()
    };
    if because.is_some() {
        return Ok(machine::Warm::Cold { because });
    }
    let ready = match &machine.ready {
        _ if circumstances.agent_only => machine::ReadyPoint::Agent,
        lab::Ready::Agent => machine::ReadyPoint::Agent,
        lab::Ready::System => machine::ReadyPoint::System,
        lab::Ready::Unit(unit) => machine::ReadyPoint::Unit(unit.clone()),
        lab::Ready::Command(command) => machine::ReadyPoint::Command(command.clone()),
    };
    let first = first_of_several(lab, machine).unwrap_or(machine);
    let group = lab.machines.iter().filter(|it| it.group == machine.group);
    let mut golden = golden(lab, first, group.count())?;
    if circumstances.late_disks {
        // What it is, is on its disks: those that are alike share a snapshot, whatever they are called.
        rename(&mut golden, "machine");
    }
    let golden = Some(golden);
    Ok(machine::Warm::At { ready, golden })
}

/// The first of the machines that this one shares a table of the lab file with, if there are
/// others.
pub(super) fn first_of_several<'a>(
    lab: &'a Lab,
    machine: &lab::Machine,
) -> Option<&'a lab::Machine> {
    let mut members = lab.machines.iter();
    let mut members = members.by_ref().filter(|it| it.group == machine.group);
    let first = members.next()?;
    members.next().map(|_| first)
}

/// Who a machine is in its snapshot, which it may share with a group: the first of them. Its machine
/// id is the same in every session, as that of a machine is not.
fn golden(
    lab: &Lab,
    first: &lab::Machine,
    shared_by: usize,
) -> Result<machine::Golden, MachineNumberError> {
    let name = first.name.as_str().to_owned();
    Ok(machine::Golden {
        machine_id: machine_id("", &name),
        nics: nics(first)?,
        hosts: hosts(lab, first)?,
        name,
        shared_by,
    })
}

fn rename(golden: &mut machine::Golden, name: &str) {
    let names = golden.hosts.iter_mut().flat_map(|line| &mut line.names);
    for own in names.filter(|own| **own == golden.name) {
        name.clone_into(own);
    }
    name.clone_into(&mut golden.name);
    golden.machine_id = machine_id("", name);
}

#[cfg(test)]
mod tests {
    use super::super::plan;
    use super::super::tests::usual;
    use super::*;

    #[test]
    fn machines_of_one_table_share_a_snapshot() {
        let text = "[machine.a]\nkind = 'vm'\nimage = 'dir:x'\ncount = 3\nready = 'unit:x'\n\
                    [machine.b]\nkind = 'vm'\nimage = 'dir:x'\n\
                    [machine.c]\nkind = 'vm'\nimage = 'dir:x'\nsnapshot = false\n\
                    [machine.d]\nkind = 'container'\nimage = 'dir:x'\n";
        let lab = Lab::parse_toml(text, "lab.toml").unwrap();
        let planned = |wanted: &[&str], warm, agent_only| {
            let circumstances = Circumstances {
                warm,
                agent_only,
                ..usual()
            };
            plan(&lab, wanted, circumstances).unwrap()
        };
        let all = planned(&[], true, false);
        let goldens: Vec<Option<&str>> = all
            .iter()
            .map(|plan| match &plan.warm {
                machine::Warm::At { golden, .. } => golden.as_ref().map(|it| it.name.as_str()),
                machine::Warm::Cold { because } => Some(because.as_deref().unwrap_or("cold")),
            })
            .collect();
        let no = "the lab file says `snapshot = false`";
        let a = Some("a-1");
        assert_eq!(goldens, [a, a, a, Some("b"), Some(no), Some("cold")]);
        assert_eq!(all[0].group.as_deref(), Some("a"));
        assert_eq!(all[3].group, None);
        // The first of them need not be in the test, and it is the same in each session.
        let some = planned(&["a-2"], true, false);
        assert_eq!(some[0].warm, all[1].warm);
        assert_eq!(some[0].warm, all[0].warm);
        let machine::Warm::At { ready, golden } = &some[0].warm else {
            panic!("cold")
        };
        assert_eq!(*ready, machine::ReadyPoint::Unit("x.service".to_owned()));
        assert_eq!(golden.as_ref().unwrap().nics, all[0].nics);
        let alone = planned(&["b"], true, true).remove(0).warm;
        let machine::Warm::At { ready, .. } = alone else {
            panic!("cold")
        };
        assert_eq!(ready, machine::ReadyPoint::Agent);
        let cold = planned(&["b"], false, false).remove(0).warm;
        assert_eq!(cold, machine::Warm::default());
    }

    #[test]
    fn machines_whose_disks_come_late_share_a_snapshot() {
        let warm = |name: &str| {
            let text = format!("[machine.{name}]\nkind = 'vm'\nimage = 'dir:x'\n");
            let lab = Lab::parse_toml(&text, "lab.toml").unwrap();
            let circumstances = Circumstances {
                uplink: true,
                late_disks: true,
                ..usual()
            };
            plan(&lab, &[], circumstances).unwrap().remove(0).warm
        };
        let machine::Warm::At { golden, .. } = warm("a") else {
            panic!("cold")
        };
        assert_eq!(golden.unwrap().hosts[0].names, ["machine"]);
        assert_eq!(warm("a"), warm("b"));
    }
}
