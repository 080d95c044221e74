//! depmod(8) of a kernel's own suite, run inside of the tree that the kernel was unpacked into: it
//! knows how that suite packs its modules, and the host need not have it.

use std::path::Path;

use super::Tool;

/// The tool that indexes the modules of `version` in `tree`. `depmod` is its path in there.
pub(crate) fn tool(tree: &Path, depmod: &str, version: &str) -> Tool {
    Tool {
        program: "chroot",
        package: "coreutils",
        args: vec![tree.into(), depmod.into(), "-a".into(), version.into()],
        temporary: None,
        isolated: true,
        hint: |_| None,
    }
}

/// Whether a line of its output means that the index is not complete: it exits with 0 all the same.
pub(crate) fn is_error(line: &str) -> bool {
    line.starts_with("depmod: ERROR:")
}
