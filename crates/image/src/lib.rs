//! From the name of an image to something bootable, cached by content.
//!
//! [`Store::ensure`] takes an [`ImageSpec`] and what it is [`Want`]ed for, and returns an [`Image`]:
//! at once where the cache has it, after a build where it does not. A build is made beside the cache
//! and renamed into it when it is complete, so nothing half made is ever seen, and one lock per key
//! lets two processes that want the same thing build it once.
//!
//! What the guest sees of an image (kernel command line, initrd, disks) is written in
//! `docs/images.md`.
#![forbid(unsafe_code)]

mod cache;
mod catalogue;
mod error;
mod export;
mod image;
mod initrd;
mod kernel;
mod key;
mod lock;
mod progress;
mod root;
mod space;
mod spec;
mod store;
mod tool;
mod tree;

pub use cache::Held;
pub use catalogue::{ArtefactKind, Entry, Prune, Pruned};
pub use error::{ImageError, PathError};
pub use image::{Boot, BootRoot, Image};
pub use initrd::{InitrdError, UnpackError};
pub use kernel::KernelError;
pub use key::{ImageId, ImageIdError};
pub use progress::{Cancel, Step};
pub use space::NoSpace;
pub use spec::{AddedFile, ImageSpec, Source, SpecError, Want};
pub use store::Store;
pub use tool::ToolError;
