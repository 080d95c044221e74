//! Images of the image store, for tests that boot them by other means.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::{Command, Ran};

/// The root directory of `image` with `packages`, built unless it is in the user's cache. Nobody may
/// write to it.
///
/// # Errors
/// It cannot be built.
pub fn root(image: &str, packages: &[&str]) -> Result<PathBuf> {
    machinist(
        ["image", "build", image]
            .into_iter()
            .chain(options(packages)),
    )?;
    let mut sorted = packages.to_vec();
    sorted.sort_unstable();
    let name = match sorted.as_slice() {
        [] => image.to_owned(),
        names => format!("{image} with {}", names.join(", ")),
    };
    let shown = machinist(["image", "show", "--format", "json", &name])?.json()?;
    let path = shown[0]["path"]
        .as_str()
        .context("an image without a path")?;
    Ok(PathBuf::from(path).join("root"))
}

fn options<'a>(packages: &'a [&'a str]) -> impl Iterator<Item = &'a str> {
    packages.iter().flat_map(|name| ["--package", name])
}

fn machinist<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Ran> {
    let here = std::env::temp_dir();
    Command::new(&here).args(words).run()?.exits(0)
}
