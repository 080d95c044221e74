//! Images that need no network.

use std::cell::Cell;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;

use libtest_mimic::Failed;
use machinist_image::{
    AddedFile, ArtefactKind, ImageError, ImageSpec, Prune, Source, Step, Store, Want,
};

use super::builder::{AGENT, directory};

/// A tree with what copying and unpacking like to lose.
fn tree(path: &Path) {
    fs::create_dir_all(path.join("etc")).unwrap();
    fs::write(path.join("etc/file"), "contents").unwrap();
    chown(path.join("etc/file"), Some(1234), Some(4321)).unwrap();
    fs::write(path.join("tool"), "tool").unwrap();
    fs::set_permissions(path.join("tool"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::hard_link(path.join("tool"), path.join("same-tool")).unwrap();
    symlink("/etc/file", path.join("link")).unwrap();
}

fn same_tree(path: &Path) {
    let file = fs::metadata(path.join("etc/file")).unwrap();
    assert_eq!((file.uid(), file.gid()), (1234, 4321));
    let tool = fs::metadata(path.join("tool")).unwrap();
    assert_eq!(tool.mode() & 0o7777, 0o4755);
    let same = fs::metadata(path.join("same-tool")).unwrap();
    assert_eq!(tool.ino(), same.ino());
    assert_eq!(
        fs::read_link(path.join("link")).unwrap(),
        Path::new("/etc/file")
    );
}

pub(crate) fn tar_and_dir() -> Result<(), Failed> {
    let place = directory();
    let source = place.path().join("source");
    tree(&source);
    let archive = place.path().join("root.tar.gz");
    let packed = Command::new("tar")
        .arg("-czf")
        .arg(&archive)
        .arg("-C")
        .arg(&source)
        .arg(".")
        .status()?;
    assert!(packed.success());

    let store = Store::open(&place.path().join("cache"), AGENT)?;
    let built = Cell::new(0);
    let count = |step: Step| {
        if matches!(step, Step::Finished { .. }) {
            built.set(built.get() + 1);
        }
    };
    let mut spec = ImageSpec {
        source: Source::Tar(archive),
        files: Vec::new(),
    };
    let unpacked = store.ensure(&spec, Want::Container, &count)?;
    same_tree(&unpacked.root);
    store.ensure(&spec, Want::Container, &count)?;
    assert_eq!(built.get(), 1);

    spec.source = Source::Dir(source.clone());
    let in_place = store.ensure(&spec, Want::Container, &count)?;
    assert_eq!(in_place.root, fs::canonicalize(&source)?);
    assert_eq!(built.get(), 1);

    spec.files.push(AddedFile {
        path: "/link/../new/file".into(),
        mode: 0o640,
        contents: b"added".to_vec(),
    });
    assert!(matches!(
        store.ensure(&spec, Want::Container, &count),
        Err(ImageError::Spec(_))
    ));
    spec.files[0].path = "/new/file".into();
    let copy = store.ensure(&spec, Want::Container, &count)?;
    same_tree(&copy.root);
    assert_eq!(fs::read(copy.root.join("new/file"))?, b"added");
    assert!(!source.join("new").exists());
    // A change in the directory is another image.
    fs::write(source.join("etc/file"), "changed")?;
    let changed = store.ensure(&spec, Want::Container, &count)?;
    assert_ne!(changed.id, copy.id);
    Ok(())
}

pub(crate) fn no_archive() -> Result<(), Failed> {
    let place = directory();
    let archive = place.path().join("root.tar");
    fs::write(&archive, "no archive")?;
    let spec = ImageSpec {
        source: Source::Tar(archive),
        files: Vec::new(),
    };
    let store = Store::open(&place.path().join("cache"), AGENT)?;
    let error = store.ensure(&spec, Want::Container, &|_| ()).unwrap_err();
    let start = "tar failed (exit status: 2) on tar:";
    assert!(error.to_string().starts_with(start), "{error}");
    Ok(())
}

pub(crate) fn prune() -> Result<(), Failed> {
    let place = directory();
    let source = place.path().join("source");
    tree(&source);
    let store = Store::open(&place.path().join("cache"), AGENT)?;
    let image = |name: &str| {
        let spec = ImageSpec {
            source: Source::Dir(source.clone()),
            files: vec![AddedFile {
                path: format!("/{name}").into(),
                mode: 0o644,
                contents: vec![0; 100_000],
            }],
        };
        store.ensure(&spec, Want::Container, &|_| ())
    };
    let kept = image("kept")?;
    drop(image("dropped")?);
    let list = store.list()?;
    assert_eq!(list.len(), 2);
    assert!(
        list.iter()
            .all(|entry| entry.kind == ArtefactKind::Image && entry.size > 100_000)
    );
    assert_eq!(list.iter().filter(|entry| entry.in_use).count(), 1);
    assert_eq!(store.show(kept.id.short())?.len(), 1);

    let mut all = Prune {
        all: true,
        dry_run: true,
        ..Prune::default()
    };
    assert_eq!(store.prune(&all)?.removed.len(), 1);
    assert_eq!(store.list()?.len(), 2);
    all.dry_run = false;
    // As another process would: what is in use is in use for everybody.
    let pruned = Store::open(&place.path().join("cache"), AGENT)?.prune(&all)?;
    assert_eq!((pruned.removed.len(), pruned.in_use.len()), (1, 1));
    same_tree(&kept.root);
    drop(kept);
    assert_eq!(store.prune(&all)?.removed.len(), 1);
    assert!(store.list()?.is_empty());
    image("kept")?;
    Ok(())
}

pub(crate) fn format() -> Result<(), Failed> {
    let place = directory();
    fs::write(place.path().join("format"), "machinist image cache 999\n")?;
    let error = Store::open(place.path(), AGENT).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("has format machinist image cache 999"),
        "{error}"
    );
    assert_eq!(
        error.hint(),
        Some(format!("remove {}", place.path().display()))
    );
    Ok(())
}
