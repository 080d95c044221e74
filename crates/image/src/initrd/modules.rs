//! Which kernel modules to load, and in what order: from the index that depmod(8) makes
//! (`modules.dep`, `modules.softdep`, `modules.alias`, `modules.builtin` and its modinfo).

use std::collections::{HashMap, HashSet};

/// A kernel's index of modules. Names are written with `_`, as the kernel does.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// Name to path, relative to the directory of the modules.
    paths: HashMap<String, String>,
    /// Name to the names that it needs.
    needs: HashMap<String, Vec<String>>,
    /// Name to what had better be loaded before and after it.
    soft: HashMap<String, Soft>,
    /// Alias (without wildcards) to the names that have it.
    aliases: HashMap<String, Vec<String>>,
    /// What the kernel has inside, names and aliases.
    builtin: HashSet<String>,
}

#[derive(Debug, Default)]
struct Soft {
    before: Vec<String>,
    after: Vec<String>,
}

/// The texts of an index.
#[derive(Debug, Default)]
pub(crate) struct Texts<'a> {
    pub(crate) dep: &'a str,
    pub(crate) softdep: &'a str,
    pub(crate) alias: &'a str,
    pub(crate) builtin: &'a str,
    /// `NAME.KEY=VALUE`, each ended by a zero byte.
    pub(crate) builtin_modinfo: &'a [u8],
}

/// `kernel/fs/9p/9p.ko.xz` is `9p`; `virtio-net` is `virtio_net`.
fn name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    let stem = file.split(".ko").next().unwrap_or(file);
    stem.replace('-', "_")
}

impl Index {
    /// Reads an index. Lines that it does not understand are passed over.
    pub(crate) fn parse(texts: &Texts<'_>) -> Self {
        let mut index = Self::default();
        for line in texts.dep.lines() {
            if let Some((path, needs)) = line.split_once(':') {
                let needs = needs.split_whitespace().map(name).collect();
                index.needs.insert(name(path), needs);
                index.paths.insert(name(path), path.trim().to_owned());
            }
        }
        for line in texts.softdep.lines() {
            index.soft_line(line);
        }
        for line in texts.alias.lines() {
            let mut words = line.split_whitespace();
            if let (Some("alias"), Some(alias), Some(module)) =
                (words.next(), words.next(), words.next())
                && !alias.contains(['*', '?', '['])
            {
                let modules = index.aliases.entry(alias.replace('-', "_")).or_default();
                modules.push(name(module));
            }
        }
        index.builtin.extend(texts.builtin.lines().map(name));
        for entry in texts.builtin_modinfo.split(|&byte| byte == 0) {
            let entry = String::from_utf8_lossy(entry);
            if let Some((key, value)) = entry.split_once('=')
                && key.ends_with(".alias")
            {
                index.builtin.insert(value.replace('-', "_"));
            }
        }
        index
    }

    /// `softdep NAME pre: A B post: C`.
    fn soft_line(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        if words.next() != Some("softdep") {
            return;
        }
        let Some(module) = words.next() else { return };
        let soft = self.soft.entry(name(module)).or_default();
        let mut after = false;
        for word in words {
            match word {
                "pre:" => after = false,
                "post:" => after = true,
                other if after => soft.after.push(other.replace('-', "_")),
                other => soft.before.push(other.replace('-', "_")),
            }
        }
    }

    /// Whether there is such a module, inside of the kernel or beside it.
    pub(crate) fn has(&self, module: &str) -> bool {
        let module = name(module);
        self.builtin.contains(&module) || self.paths.contains_key(&module)
    }

    /// Whether the kernel has it inside.
    #[cfg(test)]
    fn is_builtin(&self, module: &str) -> bool {
        self.builtin.contains(&name(module))
    }

    /// The paths to load, in order, so that `wanted` are there: each after what it needs. What the
    /// kernel has inside is left out, and so is what it does not have at all.
    pub(crate) fn load_order(&self, wanted: &[&str]) -> Vec<String> {
        let mut order = Order {
            index: self,
            seen: HashSet::new(),
            paths: Vec::new(),
        };
        for module in wanted {
            order.visit(&name(module));
        }
        order.paths
    }

    /// What a name in a softdep means: a module, or an alias of some. One of several is enough; the
    /// generic one runs on every processor.
    fn resolve<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        if self.builtin.contains(name) {
            return None;
        }
        if self.paths.contains_key(name) {
            return Some(name);
        }
        let candidates = self.aliases.get(name)?;
        candidates
            .iter()
            .find(|name| name.ends_with("_generic"))
            .or(candidates.first())
            .map(String::as_str)
    }
}

struct Order<'a> {
    index: &'a Index,
    seen: HashSet<String>,
    paths: Vec<String>,
}

impl Order<'_> {
    fn visit(&mut self, module: &str) {
        let index = self.index;
        if index.builtin.contains(module) || !self.seen.insert(module.to_owned()) {
            return;
        }
        let Some(path) = index.paths.get(module) else {
            return;
        };
        let soft = index.soft.get(module);
        for before in soft.iter().flat_map(|soft| &soft.before) {
            if let Some(before) = index.resolve(before) {
                self.visit(before);
            }
        }
        for needed in index.needs.get(module).into_iter().flatten() {
            self.visit(needed);
        }
        self.paths.push(path.clone());
        for after in soft.iter().flat_map(|soft| &soft.after) {
            if let Some(after) = index.resolve(after) {
                self.visit(after);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// From Debian bookworm's 6.1 cloud kernel, shortened.
    const BOOKWORM: Texts<'_> = Texts {
        dep: "kernel/fs/erofs/erofs.ko: kernel/lib/libcrc32c.ko\n\
              kernel/lib/libcrc32c.ko:\n\
              kernel/arch/x86/crypto/crc32c-intel.ko:\n\
              kernel/drivers/net/virtio_net.ko: kernel/drivers/net/net_failover.ko kernel/net/core/failover.ko kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko\n\
              kernel/drivers/net/net_failover.ko: kernel/net/core/failover.ko\n\
              kernel/net/core/failover.ko:\n\
              kernel/drivers/virtio/virtio.ko:\n\
              kernel/drivers/virtio/virtio_ring.ko: kernel/drivers/virtio/virtio.ko\n",
        softdep: "# Soft dependencies\nsoftdep libcrc32c pre: crc32c\n",
        alias: "alias crc32c crc32c_intel\nalias virtio:d00000001v* virtio_net\n",
        builtin: "",
        builtin_modinfo: b"",
    };

    #[test]
    fn what_is_needed_comes_first() {
        let index = Index::parse(&BOOKWORM);
        insta::assert_snapshot!(index.load_order(&["erofs", "virtio-net", "absent"]).join("\n"), @r"
        kernel/arch/x86/crypto/crc32c-intel.ko
        kernel/lib/libcrc32c.ko
        kernel/fs/erofs/erofs.ko
        kernel/net/core/failover.ko
        kernel/drivers/net/net_failover.ko
        kernel/drivers/virtio/virtio.ko
        kernel/drivers/virtio/virtio_ring.ko
        kernel/drivers/net/virtio_net.ko
        ");
    }

    #[test]
    fn what_the_kernel_has_inside_is_left_out() {
        let texts = Texts {
            builtin: "kernel/crypto/crc32c_generic.ko\nkernel/drivers/virtio/virtio.ko\n",
            builtin_modinfo: b"crc32c_generic.alias=crc32c\0crc32c_generic.license=GPL\0",
            ..BOOKWORM
        };
        let index = Index::parse(&texts);
        assert!(index.is_builtin("crc32c-generic") && index.has("virtio") && !index.has("9p"));
        assert_eq!(
            index.load_order(&["erofs", "virtio"]),
            ["kernel/lib/libcrc32c.ko", "kernel/fs/erofs/erofs.ko"]
        );
    }

    proptest! {
        /// Any acyclic index: module i needs only modules with smaller numbers.
        #[test]
        fn nothing_is_loaded_before_what_it_needs(
            needs in prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 0..4), 1..12),
            wanted in prop::collection::vec(any::<prop::sample::Index>(), 1..5),
        ) {
            let needs: Vec<Vec<usize>> = needs.iter().enumerate()
                .map(|(i, needs)| if i == 0 { vec![] } else { needs.iter().map(|n| n.index(i)).collect() })
                .collect();
            let dep: String = needs.iter().enumerate()
                .map(|(i, needs)| {
                    let needs: String = needs.iter().map(|n| format!(" k/m{n}.ko")).collect();
                    format!("k/m{i}.ko:{needs}\n")
                })
                .collect();
            let index = Index::parse(&Texts { dep: &dep, ..Texts::default() });
            let wanted: Vec<String> = wanted.iter().map(|w| format!("m{}", w.index(needs.len()))).collect();
            let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
            let order = index.load_order(&wanted);
            let place = |i: usize| order.iter().position(|path| *path == format!("k/m{i}.ko"));
            for (i, needs) in needs.iter().enumerate() {
                if let Some(own) = place(i) {
                    for need in needs {
                        prop_assert!(place(*need).is_some_and(|place| place < own));
                    }
                }
            }
            for name in wanted {
                prop_assert_eq!(order.iter().filter(|path| **path == format!("k/{name}.ko")).count(), 1);
            }
        }

        #[test]
        fn any_text_is_read(text in "[ -~\n]{0,99}", bytes in prop::collection::vec(any::<u8>(), 0..9)) {
            let index = Index::parse(&Texts { dep: &text, softdep: &text, alias: &text, builtin: &text, builtin_modinfo: &bytes });
            index.load_order(&["a"]);
        }
    }

    #[test]
    fn circles_end() {
        let texts = Texts {
            dep: "a.ko: b.ko\nb.ko: a.ko\n",
            softdep: "softdep a pre: b post: a\nsoftdep b pre: a\n",
            ..Texts::default()
        };
        assert_eq!(Index::parse(&texts).load_order(&["a"]).len(), 2);
    }
}
