//! A machine as QEMU is told of it.

use std::path::Path;

use machinist_image::BootRoot;

use super::argv::{Drive, Format, Memory, Nic, Share, VmPlan};
use super::cmdline::{RootArguments, kernel_command_line};
use super::spare::Apart;
use super::uplink::Uplink;
use super::{Beginning, Qemu, disks, firmware, host_program, volume_tag};
use crate::backend::Mode;
use crate::error::LaunchError;
use crate::spec::{Kind, NicSpec};
use crate::verdict::Accelerator;

impl Qemu {
    /// The machine as QEMU is told of it. The numbers of its channels are not known yet.
    pub(super) fn plan(
        &self,
        accelerator: Accelerator,
        mode: Mode,
        beginning: &Beginning,
        apart: Option<&Apart>,
    ) -> Result<VmPlan, LaunchError> {
        let mut plan = self.outline(accelerator, mode)?;
        plan.drives = self.drives(beginning, apart)?;
        match beginning {
            Beginning::Boot => self.plug(&mut plan)?,
            // Its memory is a descriptor, which the process is given.
            Beginning::Golden(_) => {}
            Beginning::Frozen(frozen) | Beginning::Spare(frozen) => {
                match apart {
                    Some(apart) => self.plug_apart(&mut plan, apart),
                    None => self.plug(&mut plan)?,
                }
                plan.memory_from = Memory::Private(frozen.memory.clone());
                plan.incoming = Some(frozen.state.clone());
            }
        }
        Ok(plan)
    }

    /// The plan without what has to be made first: its disks, and the wires of its networks.
    pub(super) fn outline(
        &self,
        accelerator: Accelerator,
        mode: Mode,
    ) -> Result<VmPlan, LaunchError> {
        let spec = &self.spec;
        let boot = self.boot()?;
        let mut shares = Vec::new();
        let root = match &boot.root {
            BootRoot::Erofs(_) => "erofs:root",
            BootRoot::Share9p(path) => {
                shares.push(Share {
                    tag: "root".into(),
                    path: path.clone(),
                    writable: false,
                });
                "9p:root"
            }
        };
        for (number, volume) in spec.volumes.iter().enumerate() {
            shares.push(Share {
                tag: volume_tag(number),
                path: volume.source.clone(),
                writable: volume.writable,
            });
        }
        let root = RootArguments {
            root: root.to_owned(),
            modules: boot.modules.as_ref().map(|_| "modules".to_owned()),
        };
        Ok(VmPlan {
            name: spec.name.clone(),
            accelerator,
            memory: spec.memory,
            memory_from: Memory::Own,
            incoming: None,
            firmware: firmware(&host_program(self)),
            cpus: spec.cpus,
            kernel: boot.kernel.clone(),
            initrd: boot.initrd.clone(),
            append: kernel_command_line(&root, spec.boot),
            drives: Vec::new(),
            shares,
            nics: spec.nics.iter().map(unplugged).collect(),
            uplink: if spec.uplink {
                Uplink::Nowhere
            } else {
                Uplink::No
            },
            qmp: -1,
            agent: -1,
            may_restart: mode.may_restart,
        })
    }

    pub(super) fn boot(&self) -> Result<&machinist_image::Boot, LaunchError> {
        self.spec.image.boot.as_ref().ok_or_else(|| {
            LaunchError::Unable(format!(
                "the image {} has no kernel: it was not made for a VM",
                self.spec.image.name
            ))
        })
    }

    /// What becomes `vda`, `vdb` and so on: ours first, then the lab's, and what only the agent
    /// looks for (by its serial) behind them, so that the lab's begin at `vdb` in every VM.
    pub(super) fn drives(
        &self,
        beginning: &Beginning,
        apart: Option<&Apart>,
    ) -> Result<Vec<Drive>, LaunchError> {
        let boot = self.boot()?;
        let root = match &boot.root {
            BootRoot::Erofs(path) => Some(read_only_drive("root", path)),
            BootRoot::Share9p(_) => None,
        };
        let modules = boot.modules.as_ref();
        let mut ours = root
            .into_iter()
            .chain(modules.map(|path| read_only_drive("modules", path)));
        let mut drives: Vec<Drive> = ours.next().into_iter().collect();
        if let Kind::Vm { disks, .. } = &self.spec.kind {
            let dir = &self.environment.dir;
            drives.extend(match beginning {
                Beginning::Boot => self.tops.of_boot(disks::prepare(dir, disks)?),
                Beginning::Golden(saved) => disks::golden(saved, dir, disks)?,
                Beginning::Frozen(frozen) | Beginning::Spare(frozen) => match apart {
                    Some(apart) => disks::with(disks, apart.disks())?,
                    None => disks::with(disks, &self.tops.of_frozen(dir, &frozen.disks)?)?,
                },
            });
        }
        drives.extend(ours);
        Ok(drives)
    }

    /// Lets the cards of a plan lead where they are to lead.
    fn plug(&self, plan: &mut VmPlan) -> Result<(), LaunchError> {
        plan.nics = self.ports()?;
        if self.spec.uplink {
            plan.uplink = Uplink::Open;
        }
        Ok(())
    }

    fn ports(&self) -> Result<Vec<Nic>, LaunchError> {
        let attach = &self.environment.attach;
        let port = |nic: &NicSpec| Ok(plugged(nic, &attach.vm_port(&self.spec.name, nic)?));
        let ports: Result<_, _> = self.spec.nics.iter().map(port).collect();
        ports.map_err(LaunchError::Network)
    }
}

/// A card whose wire leads to this socket.
pub(super) fn plugged(nic: &NicSpec, socket: &Path) -> Nic {
    Nic {
        mac: nic.mac,
        socket: Some(socket.to_owned()),
    }
}

/// A card whose wire leads nowhere.
fn unplugged(nic: &NicSpec) -> Nic {
    Nic {
        mac: nic.mac,
        socket: None,
    }
}

pub(super) fn read_only_drive(serial: &str, path: &Path) -> Drive {
    Drive {
        path: path.to_owned(),
        format: Format::Raw,
        read_only: true,
        keep: false,
        serial: serial.to_owned(),
    }
}
