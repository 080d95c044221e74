//! The store: from a specification to something bootable.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cache::{Artefact, Cache, Held, Plan};
use crate::catalogue::ArtefactKind;
use crate::error::{At, ImageError};
use crate::image::{Boot, BootRoot, Image};
use crate::initrd::{self, Parts};
use crate::kernel::{self, KernelFiles};
use crate::key::{ImageId, Recipe};
use crate::progress::{Cancel, Job, Step};
use crate::spec::{AddedFile, ImageSpec, Source, Want};
use crate::tool::{self, mkfs_erofs};
use crate::{export, root, tree};

/// Changes whenever the same specification would give another root.
const RECIPE: u32 = 2;

/// A Debian root with our base set, in bytes, less than it has ever been.
const DEBIAN_NEEDS: u64 = 250_000_000;

/// How old a plain Debian may be that packages are added to. What the archive's packages have become
/// since then, the image has only where an added one asks for it.
const FRESH: Duration = Duration::from_secs(24 * 60 * 60);

/// Makes images and keeps them.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) cache: Cache,
    agent: &'static [u8],
    mirror: Option<String>,
    cancel: Cancel,
}

/// A root directory, and where it came from.
struct Base {
    id: ImageId,
    root: PathBuf,
    held: Held,
    suite: Option<String>,
}

impl Store {
    /// Opens the cache in the directory `dir`, which is made if it is not there. Builds whose
    /// builders have died are removed. `agent` is the program that initrds get as their `/init`.
    ///
    /// # Errors
    /// The directory cannot be used, or holds a cache of another format.
    pub fn open(dir: &Path, agent: &'static [u8]) -> Result<Self, ImageError> {
        Ok(Self {
            cache: Cache::open(dir)?,
            agent,
            mirror: None,
            cancel: Cancel::new(),
        })
    }

    /// The same store, with Debian taken from `mirror` instead of where mmdebstrap would take it.
    #[must_use]
    pub fn with_mirror(mut self, mirror: Option<String>) -> Self {
        self.mirror = mirror;
        self
    }

    /// The same store, which also finds what others made in `dir`: a directory that is laid out as
    /// this one. Nothing in it is changed, and nobody may remove it while the store is used.
    #[must_use]
    pub fn with_source(mut self, dir: &Path) -> Self {
        self.cache = self.cache.with_source(dir);
        self
    }

    /// The same store, whose builds `cancel` stops.
    #[must_use]
    pub fn with_cancel(mut self, cancel: Cancel) -> Self {
        self.cancel = cancel;
        self
    }

    /// The image: from the cache, or built now. What is built, and what is waited for, is told to
    /// `progress`. Blocks for as long as that takes.
    ///
    /// # Errors
    /// It cannot be built, or [`Cancel::cancel`] was called. Nothing half made stays.
    pub fn ensure(
        &self,
        spec: &ImageSpec,
        want: Want,
        progress: &dyn Fn(Step),
    ) -> Result<Image, ImageError> {
        let spec = spec.normalised()?;
        let name = spec.to_string();
        if let Want::Vm { shared_folders } = want
            && let Some(image) = self.taken(&spec, &name, shared_folders)?
        {
            return Ok(image);
        }
        let base = match &spec.source {
            Source::Host => Self::host(),
            Source::Dir(path) if spec.files.is_empty() => Self::directory(path)?,
            _ => self.root(&spec, &name, progress)?,
        };
        let mut image = Image {
            id: base.id.clone(),
            name,
            root: base.root.clone(),
            boot: None,
            held: base.held.clone(),
        };
        if let Want::Vm { shared_folders } = want {
            let (boot, held) = self.boot(&spec, &base, shared_folders, progress)?;
            image.boot = Some(boot);
            image.held = image.held.and(&held);
        }
        Ok(image)
    }

    /// An image whose VM was taken along, with all that it boots: nothing of it has to be built.
    fn taken(
        &self,
        spec: &ImageSpec,
        name: &str,
        shared_folders: bool,
    ) -> Result<Option<Image>, ImageError> {
        let in_place = match spec.source {
            Source::Host => true,
            Source::Dir(_) => spec.files.is_empty(),
            Source::Debian { .. } | Source::Tar(_) => false,
        };
        let sources = self.cache.sources();
        if in_place || sources.is_empty() {
            return Ok(None);
        }
        let (id, _) = self.root_key(spec)?;
        let mut found = sources.iter();
        let boot = found.find_map(|dir| export::find(dir, &id, self.agent, shared_folders));
        Ok(boot.map(|boot| Image {
            root: self.cache.path(ArtefactKind::Image, &id).join("root"),
            id,
            name: name.to_owned(),
            boot: Some(boot),
            held: Held::nothing(),
        }))
    }

    fn host() -> Base {
        Base {
            id: Recipe::new("host", RECIPE).key(),
            root: PathBuf::from("/"),
            held: Held::nothing(),
            suite: None,
        }
    }

    /// A directory is used in place, so its path is what it is known by.
    fn directory(path: &Path) -> Result<Base, ImageError> {
        let root = fs::canonicalize(path).at("find", path)?;
        fs::read_dir(&root).at("list", &root)?;
        let mut recipe = Recipe::new("directory", RECIPE);
        recipe.field("path", root.as_os_str().as_encoded_bytes());
        Ok(Base {
            id: recipe.key(),
            root,
            held: Held::nothing(),
            suite: None,
        })
    }

    /// A root in the cache.
    fn root(
        &self,
        spec: &ImageSpec,
        name: &str,
        progress: &dyn Fn(Step),
    ) -> Result<Base, ImageError> {
        let (id, needs) = self.root_key(spec)?;
        let plan = Plan {
            kind: ArtefactKind::Image,
            key: &id,
            what: name,
            needs,
            told: true,
        };
        let artefact = self.artefact(&plan, progress, &|dir, job| {
            self.build_root(spec, &dir.join("root"), job)
        })?;
        let suite = match &spec.source {
            Source::Debian { suite, .. } => Some(suite.clone()),
            _ => None,
        };
        Ok(Base {
            id,
            root: artefact.path.join("root"),
            held: artefact.held,
            suite,
        })
    }

    /// The key of a root, and the bytes that it takes at least.
    fn root_key(&self, spec: &ImageSpec) -> Result<(ImageId, u64), ImageError> {
        let mut recipe = Recipe::new("root", RECIPE);
        let needs = match &spec.source {
            Source::Debian { suite, packages } => {
                recipe.field("policy", &[root::POLICY]);
                recipe.field("suite", suite.as_bytes());
                for package in packages {
                    recipe.field("package", package.as_bytes());
                }
                let mirror = self.mirror.as_deref().unwrap_or_default();
                recipe.field("mirror", mirror.as_bytes());
                DEBIAN_NEEDS
            }
            Source::Tar(path) => {
                let mut file = fs::File::open(path).at("open", path)?;
                let size = file.metadata().at("read", path)?.len();
                let hash = hash_file(&mut file).at("read", path)?;
                recipe.field("archive", &hash);
                size
            }
            Source::Dir(path) => {
                let path = fs::canonicalize(path).at("find", path)?;
                tree::fingerprint(&path, &mut recipe)?;
                tree::size(&path)?
            }
            Source::Host => 0,
        };
        hash_files(&spec.files, &mut recipe);
        Ok((recipe.key(), needs))
    }

    fn build_root(&self, spec: &ImageSpec, target: &Path, job: &Job<'_>) -> Result<(), ImageError> {
        match &spec.source {
            Source::Debian { suite, packages } => {
                let plain = self.plain(suite, packages)?;
                let plain = plain.as_ref().map(|it| it.path.join("root"));
                let mirror = self.mirror.as_deref();
                root::debian(suite, packages, mirror, plain.as_deref(), target, job)?;
            }
            Source::Tar(path) => root::tar(path, target, job)?,
            Source::Dir(path) => root::copy(path, target, job)?,
            // It is never built.
            Source::Host => {}
        }
        root::add_files(&spec.files, target)?;
        if matches!(spec.source, Source::Debian { .. }) {
            root::stamp(target)?;
        }
        Ok(())
    }

    /// The image of the same suite without packages, if it is in the cache and fresh.
    fn plain(&self, suite: &str, packages: &[String]) -> Result<Option<Artefact>, ImageError> {
        if packages.is_empty() {
            return Ok(None);
        }
        let (key, _) = self.root_key(&ImageSpec::debian(suite, &[]))?;
        let found = self.cache.find(ArtefactKind::Image, &key)?;
        Ok(found.filter(|it| it.age().is_some_and(|age| age < FRESH)))
    }

    /// What a VM needs beyond the root.
    fn boot(
        &self,
        spec: &ImageSpec,
        base: &Base,
        shared_folders: bool,
        progress: &dyn Fn(Step),
    ) -> Result<(Boot, Held), ImageError> {
        let is_host = spec.source == Source::Host;
        let shares = shared_folders || is_host;
        let suite = base.suite.as_deref();
        let choice = if is_host {
            // The host's own may be anything, and is often unreadable.
            kernel::from_debian(&base.root, suite, shares)
        } else {
            kernel::choose(&base.root, suite, shares)?
        };
        let mirror = self.mirror.as_deref();
        let key = choice.key(mirror)?;
        let plan = Plan {
            kind: ArtefactKind::Kernel,
            key: &key,
            what: &choice.name(),
            needs: choice.needs(),
            told: true,
        };
        let kernel = self.artefact(&plan, progress, &|dir, job| choice.build(dir, mirror, job))?;
        let files = KernelFiles::read(&kernel.path, &choice)?;
        let parts = Parts {
            agent: self.agent,
            kernel: &key,
            version: &files.version,
            modules: &files.modules,
            shared_folders: shares,
        };
        let (initrd, initrd_held) = self.initrd(&parts, progress)?;
        let mut held = kernel.held.and(&initrd_held);
        let root = if is_host {
            BootRoot::Share9p(base.root.clone())
        } else {
            let disk = self.disk(spec, base, progress)?;
            held = held.and(&disk.held);
            BootRoot::Erofs(disk.path.join("root.erofs"))
        };
        let boot = Boot {
            kernel: files.image,
            initrd,
            root,
            modules: files.disk,
            kernel_version: files.version,
        };
        Ok((boot, held))
    }

    fn initrd(
        &self,
        parts: &Parts<'_>,
        progress: &dyn Fn(Step),
    ) -> Result<(PathBuf, Held), ImageError> {
        let plan = Plan {
            kind: ArtefactKind::Initrd,
            key: &initrd::key(parts),
            what: &format!("initrd for {}", parts.version),
            needs: 0,
            told: false,
        };
        let artefact = self.artefact(&plan, progress, &|dir, _| {
            initrd::build(parts, &dir.join("initrd.cpio"))
        })?;
        Ok((artefact.path.join("initrd.cpio"), artefact.held))
    }

    /// The root as a disk. One made from a directory in place is known by that directory's state.
    fn disk(
        &self,
        spec: &ImageSpec,
        base: &Base,
        progress: &dyn Fn(Step),
    ) -> Result<Artefact, ImageError> {
        let mut recipe = Recipe::new("disk", RECIPE);
        recipe.field("image", base.id.as_str().as_bytes());
        if matches!(spec.source, Source::Dir(_)) && spec.files.is_empty() {
            tree::fingerprint(&base.root, &mut recipe)?;
        }
        let key = recipe.key();
        let plan = Plan {
            kind: ArtefactKind::Disk,
            key: &key,
            what: &format!("disk of {spec}"),
            needs: 0,
            told: true,
        };
        self.artefact(&plan, progress, &|dir, job| {
            // A disk is about as large as the files in it.
            crate::space::require(dir, job.what, tree::size(&base.root)?)?;
            let disk = dir.join("root.erofs");
            tool::run(&mkfs_erofs::tool(&base.root, &disk), job, &mut |_| ())
        })
    }

    fn artefact(
        &self,
        plan: &Plan<'_>,
        progress: &dyn Fn(Step),
        build: &dyn Fn(&Path, &Job<'_>) -> Result<(), ImageError>,
    ) -> Result<Artefact, ImageError> {
        self.cache.artefact(plan, progress, &self.cancel, build)
    }
}

fn hash_file(file: &mut fs::File) -> std::io::Result<Vec<u8>> {
    use sha2::{Digest, Sha256};
    use std::io::Read;

    let mut hash = Sha256::new();
    let mut block = vec![0; 1 << 20];
    loop {
        match file.read(&mut block)? {
            0 => return Ok(hash.finalize().to_vec()),
            count => hash.update(&block[..count]),
        }
    }
}

fn hash_files(files: &[AddedFile], recipe: &mut Recipe) {
    for file in files {
        recipe.field("file", file.path.as_os_str().as_encoded_bytes());
        recipe.field("mode", &file.mode.to_be_bytes());
        recipe.field("contents", &file.contents);
    }
}
