//! What can be known of a NixOS system, its kernel and its initrd before anything boots.

use std::env::consts::ARCH;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::closure::Nix;
use super::magic::{self, Sort};
use super::place::{Place, resolve};
use super::{Kernel, System, SystemError};
use crate::config::Kind;

/// Without these the machine does not come up: what our initrd needs (`NEEDED` in the image crate, which
/// this one may not know), the host's store, and the disk's file system.
const MODULES: [&str; 9] = [
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
    "virtio_net",
    "overlay",
    "erofs",
    "9pnet_virtio",
    "9p",
    "ext4",
];

/// How a toplevel is had.
const TOPLEVEL: &str = "give the toplevel of a NixOS system, such as the link that `nix build \
    .#nixosConfigurations.NAME.config.system.build.toplevel` makes";

/// What somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemOptions {
    /// The toplevel, or a link to it.
    pub toplevel: PathBuf,
    /// The kernel; else the system's own.
    pub kernel: Option<PathBuf>,
    /// The initrd; else the system's own.
    pub initrd: Option<PathBuf>,
    /// What is to run it; else a VM where the system has a kernel, else a container.
    pub kind: Option<Kind>,
}

impl SystemOptions {
    /// Looks at all of it; programs are looked for in `search`, as in `PATH`. Blocks.
    ///
    /// # Errors
    /// All that is wrong.
    pub fn look(&self, search: &Path) -> Result<System, Vec<SystemError>> {
        let looked = Look::new(self).map_err(|error| vec![error])?;
        let mut wrong = Vec::new();
        let version = looked.toplevel(&mut wrong);
        let kind = self.kind.unwrap_or_else(|| looked.kind());
        let kernel = match kind {
            Kind::Vm => looked.kernel(&mut wrong),
            Kind::Container => {
                looked.no_kernel(&mut wrong);
                None
            }
        };
        if wrong.is_empty() {
            // It takes the longest, and says nothing of use of what is no system.
            let nix = Nix::find(search);
            let asked = nix.and_then(|nix| nix.closure(&looked.place.root, &looked.place.path));
            if let Err(error) = asked {
                wrong.push(error.into());
            }
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        Ok(System {
            root: looked.place.root,
            toplevel: looked.place.path,
            version,
            kernel,
        })
    }
}

/// Looking at one.
struct Look<'a> {
    asked: &'a SystemOptions,
    place: Place,
}

impl<'a> Look<'a> {
    fn new(asked: &'a SystemOptions) -> Result<Self, SystemError> {
        let given = &asked.toplevel;
        let path =
            fs::canonicalize(given).map_err(|error| unreadable("--system", given, &error))?;
        let sort = path.is_file().then(|| magic::of(&path));
        let why = match sort {
            Some(Ok(Sort::Kernel { .. })) => "it is a kernel, not a system",
            Some(Ok(Sort::Initrd(_))) => "it is an initrd, not a system",
            Some(_) => "it is a file, not a system",
            None => "it is in no Nix store",
        };
        match Place::of(&path) {
            Some(place) if path.is_dir() => Ok(Self { asked, place }),
            _ => Err(SystemError::new("--system", given, why, TOPLEVEL)),
        }
    }

    /// Where something of the system is.
    fn find(&self, inside: &str) -> io::Result<PathBuf> {
        resolve(&self.place.root, &self.place.path.join(inside))
    }

    /// What would run it, where nobody says.
    fn kind(&self) -> Kind {
        match self.asked.kernel.is_some() || self.find("kernel").is_ok() {
            true => Kind::Vm,
            false => Kind::Container,
        }
    }

    fn wrong(&self, inside: &str, why: impl Into<String>, mend: &str) -> SystemError {
        let path = self.place.path.join(inside);
        SystemError::new("--system", &path, why, mend)
    }

    /// The system itself; its version.
    fn toplevel(&self, wrong: &mut Vec<SystemError>) -> String {
        let before = wrong.len();
        let word = |inside: &str| fs::read_to_string(self.find(inside)?);
        let own = format!("{ARCH}-linux");
        match word("system") {
            Ok(system) if system.trim() == own => {}
            Ok(system) => wrong.push(self.wrong(
                "system",
                format!("it is for {}, and this host runs {own}", system.trim()),
                "build it for this host's processor",
            )),
            Err(error) => wrong.push(self.no("system", &error)),
        }
        let version = word("nixos-version").unwrap_or_else(|error| {
            wrong.push(self.no("nixos-version", &error));
            String::new()
        });
        if wrong.len() > before {
            // What is no system has no init either.
            return version;
        }
        if self.find("etc-metadata-image").is_ok() {
            let mend = "set `system.etc.overlay.enable = false`";
            let why = "its /etc is an overlay, which only its own initrd mounts";
            wrong.push(self.wrong("etc-metadata-image", why, mend));
        }
        if let Err(error) = self.init() {
            wrong.push(error);
        }
        if let Err(error) = self.find("sw/bin/nix-store") {
            let mend = "a builder needs Nix: set `nix.enable = true`";
            wrong.push(self.wrong("sw/bin/nix-store", error.to_string(), mend));
        }
        version.trim().to_owned()
    }

    fn no(&self, inside: &str, error: &io::Error) -> SystemError {
        self.wrong(inside, error.to_string(), TOPLEVEL)
    }

    /// What is to be run for an init.
    fn init(&self) -> Result<(), SystemError> {
        let name = super::init_name(&self.place.root, &self.place.path);
        let path = self.find(name).map_err(|error| self.no(name, &error))?;
        let about = fs::metadata(&path).map_err(|error| self.no(name, &error))?;
        if about.permissions().mode() & 0o111 == 0 {
            return Err(self.wrong(name, "it is not executable", TOPLEVEL));
        }
        let interpreter = super::interpreter(&path).map_err(|error| self.no(name, &error))?;
        let Some(interpreter) = interpreter else {
            let why = "it is no script: only its own initrd can bring this system up";
            let mend = "set `system.nixos-init.enable = false`";
            return Err(self.wrong(name, why, mend));
        };
        let found = resolve(&self.place.root, &interpreter);
        found.map(drop).map_err(|error| {
            let why = format!("its interpreter {}: {error}", interpreter.display());
            self.wrong(name, why, TOPLEVEL)
        })
    }

    /// A container has the host's kernel.
    fn no_kernel(&self, wrong: &mut Vec<SystemError>) {
        let given = [
            ("--kernel", &self.asked.kernel),
            ("--initrd", &self.asked.initrd),
        ];
        for (option, path) in given {
            if let Some(path) = path {
                let mend = "leave it out, or say `--kind vm`";
                let why = "a container has the kernel of its host";
                wrong.push(SystemError::new(option, path, why, mend));
            }
        }
    }

    /// What a VM boots.
    fn kernel(&self, wrong: &mut Vec<SystemError>) -> Option<Kernel> {
        let kernel = self.part("--kernel", self.asked.kernel.as_deref(), "kernel", wrong)?;
        let initrd = match (&self.asked.initrd, self.find("initrd")) {
            // It may do without.
            (None, Err(_)) => None,
            (given, _) => Some(self.part("--initrd", given.as_deref(), "initrd", wrong)?),
        };
        let version = sorts(&kernel, initrd.as_ref(), wrong)?;
        let modules = self.modules(&kernel, version.as_deref(), wrong)?;
        Some(Kernel {
            image: kernel.found,
            version: modules.file_name()?.to_string_lossy().into_owned(),
            modules,
        })
    }

    /// A file that was named, or else is the system's own.
    fn part(
        &self,
        option: &'static str,
        given: Option<&Path>,
        own: &'static str,
        wrong: &mut Vec<SystemError>,
    ) -> Option<Part> {
        let (shown, found) = match given {
            Some(path) => (path.to_owned(), fs::canonicalize(path)),
            None => (self.place.path.join(own), self.find(own)),
        };
        let sort = found.and_then(|found| Ok((magic::of(&found)?, found)));
        match sort {
            Ok((sort, found)) => Some(Part { shown, found, sort }),
            Err(error) => {
                wrong.push(unreadable(option, &shown, &error));
                None
            }
        }
    }

    /// The modules of this kernel.
    fn modules(
        &self,
        kernel: &Part,
        version: Option<&str>,
        wrong: &mut Vec<SystemError>,
    ) -> Option<PathBuf> {
        let inside = "kernel-modules/lib/modules";
        let all = self.find(inside).and_then(|path| versions(&path));
        let there = match all {
            Ok((_, there)) if there.is_empty() => Err("there are none".to_owned()),
            Ok(all) => Ok(all),
            Err(error) => Err(error.to_string()),
        };
        let (all, there) = match there {
            Ok(found) => found,
            Err(why) => {
                let mend = "give a system with its kernel's modules (`boot.kernel.enable`)";
                wrong.push(self.wrong(inside, why, mend));
                return None;
            }
        };
        let fitting = match version {
            Some(version) => there.iter().find(|it| *it == version),
            None if there.len() == 1 => there.first(),
            None => None,
        };
        let Some(fitting) = fitting else {
            let version = version.unwrap_or("of an unknown version");
            let why = format!(
                "it is {version}, and the system's modules are for {}",
                there.join(", ")
            );
            let mend = "give the kernel of the same system, or leave --kernel out";
            wrong.push(SystemError::new("--kernel", &kernel.shown, why, mend));
            return None;
        };
        let modules = all.join(fitting);
        match lacking(&modules) {
            Ok(lacks) if lacks.is_empty() => Some(modules),
            Ok(lacks) => {
                let why = format!("the kernel has no module {}", lacks.join(", "));
                wrong.push(self.wrong(inside, why, "take a kernel that has them"));
                None
            }
            Err(error) => {
                wrong.push(self.wrong(inside, format!("modules.dep: {error}"), TOPLEVEL));
                None
            }
        }
    }
}

/// A kernel or an initrd.
struct Part {
    /// As the user knows it.
    shown: PathBuf,
    /// Where it is.
    found: PathBuf,
    sort: Sort,
}

/// Whether both are what they are to be; the kernel's version, where that is so and it tells.
fn sorts(
    kernel: &Part,
    initrd: Option<&Part>,
    wrong: &mut Vec<SystemError>,
) -> Option<Option<String>> {
    let before = wrong.len();
    let swapped = matches!(kernel.sort, Sort::Initrd(_))
        && initrd.is_some_and(|initrd| matches!(initrd.sort, Sort::Kernel { .. }));
    let exchange = "they look swapped: exchange --kernel and --initrd";
    let mut version = None;
    let mut is_wrong = |option, part: &Part, why: String, mend: &str| {
        let mend = if swapped { exchange } else { mend };
        wrong.push(SystemError::new(option, &part.shown, why, mend));
    };
    let mend = "give the file that a system's `kernel` leads to";
    match &kernel.sort {
        Sort::Kernel { arch, version: own } if *arch == ARCH => version.clone_from(own),
        Sort::Kernel { arch, .. } => {
            let why = format!("it is a kernel for {arch}, and this host runs {ARCH}");
            is_wrong("--kernel", kernel, why, mend);
        }
        Sort::Initrd(packed) => {
            let why = format!("it is an initrd ({packed}), not a kernel");
            is_wrong("--kernel", kernel, why, mend);
        }
        Sort::Other(what) => {
            let why = format!("it is {what}, not a kernel");
            is_wrong("--kernel", kernel, why, mend);
        }
    }
    let mend = "give the file that a system's `initrd` leads to";
    match initrd.map(|initrd| (initrd, &initrd.sort)) {
        None | Some((_, Sort::Initrd(_))) => {}
        Some((initrd, Sort::Kernel { .. })) => {
            let why = "it is a kernel, not an initrd".to_owned();
            is_wrong("--initrd", initrd, why, mend);
        }
        Some((initrd, Sort::Other(what))) => {
            let why = format!("it is {what}, not an initrd");
            is_wrong("--initrd", initrd, why, mend);
        }
    }
    (wrong.len() == before).then_some(version)
}

fn unreadable(option: &'static str, path: &Path, error: &io::Error) -> SystemError {
    SystemError::new(option, path, error.to_string(), "look at its path")
}

/// The kernels that a directory has modules for.
fn versions(path: &Path) -> io::Result<(PathBuf, Vec<String>)> {
    let entries = fs::read_dir(path)?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names = names.collect::<io::Result<Vec<String>>>()?;
    names.sort();
    Ok((path.to_owned(), names))
}

/// Which modules are neither inside of the kernel nor beside it.
fn lacking(modules: &Path) -> io::Result<Vec<&'static str>> {
    let dep = fs::read_to_string(modules.join("modules.dep"))?;
    let builtin = fs::read_to_string(modules.join("modules.builtin"))?;
    let paths = dep.lines().map(|line| line.split(':').next());
    let paths: Vec<&str> = paths.flatten().chain(builtin.lines()).collect();
    let has = |name: &str| {
        paths.iter().any(|path| {
            let file = path.rsplit('/').next().unwrap_or(path);
            let stem = file.split(".ko").next().unwrap_or(file);
            stem.replace('-', "_") == name
        })
    };
    Ok(MODULES.into_iter().filter(|name| !has(name)).collect())
}

/// The first line of a file.
pub(super) fn first_line(path: &Path) -> io::Result<Vec<u8>> {
    const LONGEST: u64 = 4096;
    let mut head = Vec::new();
    fs::File::open(path)?.take(LONGEST).read_to_end(&mut head)?;
    head.truncate(head.iter().position(|&byte| byte == b'\n').unwrap_or(0));
    Ok(head)
}
