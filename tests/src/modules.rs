//! Modules of a kernel, for initrds that are made by hand.

/// The modules of a kernel that were wanted.
#[derive(Debug, PartialEq, Eq)]
pub struct Modules<'a> {
    /// They and what they need, each after what it needs itself, as paths below the modules'
    /// directory.
    pub in_order: Vec<&'a str>,
    /// Those that are no modules: the kernel has them built in, or not at all.
    pub missing: Vec<&'a str>,
}

impl<'a> Modules<'a> {
    /// Finds `wanted` in the text of a `modules.dep`.
    #[must_use]
    pub fn find(dependencies: &'a str, wanted: &[&'a str]) -> Self {
        let mut found = Self {
            in_order: Vec::new(),
            missing: Vec::new(),
        };
        for &name in wanted {
            let line = dependencies.lines().find_map(|line| {
                let (path, needs) = line.split_once(':')?;
                let file = path.rsplit('/').next()?;
                (file.strip_suffix(".ko") == Some(name)).then_some((path, needs))
            });
            let Some((path, needs)) = line else {
                found.missing.push(name);
                continue;
            };
            // modules.dep names first what is to be loaded last.
            for module in needs.split_whitespace().rev().chain([path]) {
                if !found.in_order.contains(&module) {
                    found.in_order.push(module);
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_come_after_what_they_need() {
        let dependencies = "kernel/fs/9p/9p.ko: kernel/net/9p/9pnet.ko kernel/fs/fscache.ko kernel/fs/netfs.ko\n\
             kernel/fs/netfs.ko:\nkernel/net/9p/9pnet_virtio.ko: kernel/net/9p/9pnet.ko kernel/virtio.ko\n";
        assert_eq!(
            Modules::find(dependencies, &["9p", "9pnet_virtio"]).in_order,
            [
                "kernel/fs/netfs.ko",
                "kernel/fs/fscache.ko",
                "kernel/net/9p/9pnet.ko",
                "kernel/fs/9p/9p.ko",
                "kernel/virtio.ko",
                "kernel/net/9p/9pnet_virtio.ko",
            ]
        );
        assert_eq!(Modules::find(dependencies, &["erofs"]).missing, ["erofs"]);
    }
}
