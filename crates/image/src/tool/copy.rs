//! cp(1), which copies trees with everything about them, and shares blocks where it can.

use std::ffi::OsString;
use std::path::Path;

use super::Tool;

/// The tool that copies what is in `from` into the directory `to`.
pub(crate) fn tree(from: &Path, to: &Path) -> Tool {
    // The trailing `/.` is what makes it the contents.
    let args: Vec<OsString> = vec![
        "--archive".into(),
        "--one-file-system".into(),
        "--reflink=auto".into(),
        "--no-target-directory".into(),
        "--".into(),
        from.join(".").into(),
        to.into(),
    ];
    Tool {
        program: "cp",
        package: "coreutils",
        args,
        temporary: None,
        isolated: false,
        hint: |_| None,
    }
}
