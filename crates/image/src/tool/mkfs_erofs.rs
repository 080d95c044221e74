//! mkfs.erofs(1), which packs a directory into a read-only disk.

use std::ffi::OsString;
use std::path::Path;

use super::Tool;

/// The tool that packs `tree` into the file `image`.
pub(crate) fn tool(tree: &Path, image: &Path) -> Tool {
    Tool {
        program: "mkfs.erofs",
        package: "erofs-utils",
        args: args(tree, image),
        temporary: None,
        isolated: false,
        hint: |_| None,
    }
}

/// Not compressed: under emulation the guest's processor is what a boot waits for. Extended
/// attributes stay, because file capabilities (ping's) are such.
fn args(tree: &Path, image: &Path) -> Vec<OsString> {
    // Without `-d0` it prints a line for every file.
    vec!["-d0".into(), "--quiet".into(), image.into(), tree.into()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk() {
        let words = args(Path::new("/a/root"), Path::new("/a/root.erofs"));
        assert_eq!(words, ["-d0", "--quiet", "/a/root.erofs", "/a/root"]);
    }
}
