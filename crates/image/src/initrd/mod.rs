//! The initrd: our agent as `/init`, and the modules that it loads before anything else.

mod cpio;
mod modules;
pub(crate) mod unpack;

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

pub use unpack::UnpackError;

use self::cpio::{Entry, Writer};
use self::modules::{Index, Texts};
use crate::error::{At, ImageError, PathError};
use crate::key::{ImageId, Recipe};

/// Changes whenever the same input would give another initrd.
const RECIPE: u32 = 1;

/// Without these no machine of ours comes up.
const NEEDED: &[&str] = &[
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
    "virtio_net",
    "overlay",
    "erofs",
];

/// These are loaded where the kernel has them.
const WELCOME: &[&str] = &["virtio_rng"];

/// What shared folders need.
const SHARING: &[&str] = &["9pnet_virtio", "9p"];

/// The directories of the initrd.
const DIRECTORIES: &[&str] = &["dev", "lib", "lib/modules", "proc", "run", "sys"];

/// An initrd cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum InitrdError {
    /// The kernel cannot do what we need.
    #[error("the kernel {version} has no module {module}")]
    NoModule {
        /// The kernel.
        version: String,
        /// What it lacks.
        module: String,
    },
    /// A module cannot be unpacked.
    #[error("cannot unpack the module {}", path.display())]
    Unpack {
        /// The module.
        path: PathBuf,
        /// Why.
        source: UnpackError,
    },
}

/// What an initrd is made from.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    /// The program that becomes `/init`.
    pub(crate) agent: &'a [u8],
    /// The key of the kernel.
    pub(crate) kernel: &'a ImageId,
    /// As `uname -r` says.
    pub(crate) version: &'a str,
    /// The directory that has `modules.dep`.
    pub(crate) modules: &'a Path,
    /// Whether it must be able to mount 9p.
    pub(crate) shared_folders: bool,
}

/// The key of the initrd.
pub(crate) fn key(parts: &Parts<'_>) -> ImageId {
    key_with(parts.kernel, parts.agent, parts.shared_folders)
}

/// The key of the initrd for the kernel with this key.
pub(crate) fn key_with(kernel: &ImageId, agent: &[u8], shared_folders: bool) -> ImageId {
    let mut recipe = Recipe::new("initrd", RECIPE);
    recipe.field("kernel", kernel.as_str().as_bytes());
    recipe.field("agent", agent);
    recipe.field("shared folders", &[u8::from(shared_folders)]);
    recipe.key()
}

/// Makes the initrd.
pub(crate) fn build(parts: &Parts<'_>, path: &Path) -> Result<(), ImageError> {
    let list = load_order(parts)?;
    let mut modules = Vec::with_capacity(list.len());
    for relative in &list {
        let source = parts.modules.join(relative);
        let data = fs::read(&source).at("read", &source)?;
        let data = unpack::unpack(&data).map_err(|error| InitrdError::Unpack {
            path: source,
            source: error,
        })?;
        modules.push((file_name(relative), data));
    }
    let file = File::create(path).at("create", path)?;
    write(parts.agent, &modules, BufWriter::new(file)).at("write", path)?;
    Ok(())
}

/// `kernel/fs/9p/9p.ko.xz` becomes `lib/modules/9p.ko`: names of modules are unique.
fn file_name(relative: &str) -> String {
    let file = relative.rsplit('/').next().unwrap_or(relative);
    let stem = file.split(".ko").next().unwrap_or(file);
    format!("lib/modules/{stem}.ko")
}

fn write(agent: &[u8], modules: &[(String, Vec<u8>)], out: impl Write) -> io::Result<()> {
    let mut archive = Writer::new(out);
    for directory in DIRECTORIES {
        archive.add(directory, Entry::Directory)?;
    }
    archive.add("dev/console", Entry::CharDevice(0o600, 5, 1))?;
    archive.add("dev/null", Entry::CharDevice(0o666, 1, 3))?;
    archive.add("init", Entry::File(0o755, agent))?;
    let mut list = String::new();
    for (name, data) in modules {
        archive.add(name, Entry::File(0o644, data))?;
        list.push_str(&format!("/{name}\n"));
    }
    archive.add("modules.list", Entry::File(0o644, list.as_bytes()))?;
    archive.finish()?.flush()
}

fn load_order(parts: &Parts<'_>) -> Result<Vec<String>, ImageError> {
    let index = read_index(parts.modules)?;
    let mut wanted = NEEDED.to_vec();
    if parts.shared_folders {
        wanted.extend(SHARING);
    }
    if let Some(module) = wanted.iter().find(|module| !index.has(module)) {
        return Err(InitrdError::NoModule {
            version: parts.version.to_owned(),
            module: (*module).to_owned(),
        }
        .into());
    }
    wanted.extend(WELCOME);
    Ok(index.load_order(&wanted))
}

/// Whether the kernel of this directory of modules knows 9p.
pub(crate) fn can_share(modules: &Path) -> Result<bool, PathError> {
    let index = read_index(modules)?;
    Ok(SHARING.iter().all(|module| index.has(module)))
}

fn read_index(modules: &Path) -> Result<Index, PathError> {
    let text = |name: &str| {
        let path = modules.join(name);
        fs::read_to_string(&path).at("read", &path)
    };
    // A kernel may have been built without modinfo of what is inside.
    let modinfo = fs::read(modules.join("modules.builtin.modinfo")).unwrap_or_default();
    Ok(Index::parse(&Texts {
        dep: &text("modules.dep")?,
        softdep: &text("modules.softdep")?,
        alias: &text("modules.alias")?,
        builtin: &text("modules.builtin")?,
        builtin_modinfo: &modinfo,
    }))
}
