//! Everything that goes into a VM's snapshot.

use std::path::{Path, PathBuf};

use machinist_image::BootRoot;

use super::argv::{Drive, Format, VmPlan};
use super::frozen::Tops;
use super::{Qemu, host_program, read_only_drive};
use crate::agent;
use crate::backend::Mode;
use crate::error::LaunchError;
use crate::path_error::{PathContext, PathError};
use crate::snapshot::{Known, Parts, ReadyPoint, SnapshotStore, qemu_identity, stamp_of};
use crate::spec::{Disk, DiskAccess, Kind, MachineSpec};
use crate::verdict::Accelerator;

/// What goes in where `spec`, a machine of the backend `qemu` with its golden identity, is saved.
/// Blocks: files that are not known yet are read.
pub(super) fn parts(
    qemu: &Qemu,
    spec: MachineSpec,
    accelerator: Accelerator,
    ready: &ReadyPoint,
    store: &SnapshotStore,
) -> Result<Parts, LaunchError> {
    let mut parts = Parts::default();
    let [version, program] = qemu_identity(&host_program(qemu), store.known())?;
    parts.add("qemu version", version);
    parts.add("qemu program", program);
    store.host().add(accelerator, &mut parts);
    parts.add("agent", store.agent());
    let mut identity = agent::identity(&spec);
    identity.clock = 0;
    let identity = serde_json::to_string(&identity).map_err(|error| {
        LaunchError::Unable(format!("the machine's identity cannot be written: {error}"))
    })?;
    parts.add("identity", identity);
    parts.add("ready", ready.to_string());
    add_arguments(
        &described(qemu, spec, accelerator, store.known())?,
        &mut parts,
    );
    Ok(parts)
}

/// The plan of a machine in which, in the place of each file, its contents are described.
fn described(
    qemu: &Qemu,
    spec: MachineSpec,
    accelerator: Accelerator,
    known: &Known,
) -> Result<VmPlan, LaunchError> {
    // Whether it may restart is the business of each start.
    let mode = Mode {
        plain: false,
        may_restart: true,
    };
    let like = Qemu::new(
        spec,
        qemu.environment.clone(),
        qemu.console.clone(),
        qemu.words.clone(),
        Tops::default(),
    );
    let mut plan = like.outline(accelerator, mode)?;
    plan.kernel = contents(&plan.kernel, known)?;
    plan.initrd = contents(&plan.initrd, known)?;
    let boot = like.boot()?;
    if let BootRoot::Erofs(path) = &boot.root {
        let mut root = read_only_drive("root", path);
        root.path = contents(path, known)?;
        plan.drives.push(root);
    }
    if let Kind::Vm { disks, .. } = &like.spec.kind {
        for (number, disk) in disks.iter().enumerate() {
            plan.drives.push(describe(disk, format!("disk{number}"))?);
        }
    }
    if let Some(path) = &boot.modules {
        let mut modules = read_only_drive("modules", path);
        modules.path = contents(path, known)?;
        plan.drives.push(modules);
    }
    Ok(plan)
}

fn contents(path: &Path, known: &Known) -> Result<PathBuf, PathError> {
    Ok(known.digest(path)?.into())
}

/// A disk of the lab's. Files of the user's may be huge, so what the file system says of them
/// stands for their contents.
fn describe(disk: &Disk, serial: String) -> Result<Drive, PathError> {
    let (description, format, read_only) = match disk {
        Disk::Scratch { size } => (format!("{size} empty bytes"), Format::Qcow2, false),
        Disk::File { path, access } => {
            let stamp = stamp_of(&std::fs::metadata(path).path(path)?);
            let text = format!("{} {stamp}", path.display());
            match access {
                DiskAccess::Discard => (format!("above {text}"), Format::Qcow2, false),
                DiskAccess::ReadOnly | DiskAccess::Write => (text, Format::Raw, true),
            }
        }
    };
    Ok(Drive {
        path: description.into(),
        format,
        read_only,
        keep: false,
        serial,
    })
}

/// Adds a plan's arguments, each option with its value.
fn add_arguments(plan: &VmPlan, parts: &mut Parts) {
    let argv = plan.argv();
    let mut words = argv.iter().map(|word| word.to_string_lossy()).peekable();
    while let Some(option) = words.next() {
        let value = words.next_if(|word| !word.starts_with('-'));
        parts.add(option, value.unwrap_or_default());
    }
}
