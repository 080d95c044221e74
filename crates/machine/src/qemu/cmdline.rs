//! The guest kernel's command line.

use crate::spec::Boot;

/// How a VM finds its root file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RootArguments {
    /// `erofs:SERIAL` or `9p:TAG`.
    pub(crate) root: String,
    /// The serial of the disk with the kernel's modules, where the root lacks them.
    pub(crate) modules: Option<String>,
}

/// The guest kernel's command line.
pub(crate) fn kernel_command_line(root: &RootArguments, boot: Boot) -> String {
    let mut words = vec![
        "console=ttyS0".to_owned(),
        // Interfaces are named by us, through their MAC.
        "net.ifnames=0".into(),
        // A timer that is emulated on a busy host looks broken when it is only late.
        "no_timer_check".into(),
        // For init: a console log wants no colours.
        "TERM=dumb".into(),
        // Self-tests of cryptography take longer under emulation than all else that drivers do.
        "cryptomgr.notests".into(),
        // Patching every lock out of a kernel that has one processor: a tenth of a second under
        // emulation, where each patch throws translated code away.
        "noreplace-smp".into(),
        format!("machinist.root={}", root.root),
    ];
    if let Some(modules) = &root.modules {
        words.push(format!("machinist.modules={modules}"));
    }
    match boot {
        Boot::Agent => words.extend(["quiet".into(), "machinist.init=agent".into()]),
        Boot::System => {}
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line() {
        let root = RootArguments {
            root: "erofs:root".into(),
            modules: Some("modules".into()),
        };
        insta::assert_snapshot!(
            kernel_command_line(&root, Boot::Agent),
            @"console=ttyS0 net.ifnames=0 no_timer_check TERM=dumb cryptomgr.notests noreplace-smp machinist.root=erofs:root machinist.modules=modules quiet machinist.init=agent"
        );
        let root = RootArguments {
            root: "9p:root".into(),
            modules: None,
        };
        insta::assert_snapshot!(
            kernel_command_line(&root, Boot::System),
            @"console=ttyS0 net.ifnames=0 no_timer_check TERM=dumb cryptomgr.notests noreplace-smp machinist.root=9p:root"
        );
    }
}
