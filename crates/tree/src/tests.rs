use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use machinist_wire::Blob;
use machinist_wire::tree::{Entry, Meta, encode_entry};
use proptest::prelude::*;

use super::*;

fn transfer(from: &Path, to: &Path, options: Options, piece: usize) -> Result<(), TreeError> {
    let mut packer = Packer::new(from)?;
    let name = from.file_name().unwrap();
    let mut unpacker = Unpacker::new(to, name, options)?;
    let mut bytes = Vec::new();
    while packer.pack(&mut bytes)? {}
    for piece in bytes.chunks(piece) {
        unpacker.push(piece)?;
    }
    unpacker.finish()
}

#[test]
fn a_tree_arrives_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::create_dir_all(from.join("a/b")).unwrap();
    fs::write(from.join("a/file"), vec![7; 200_000]).unwrap();
    fs::write(from.join("a/b/empty"), "").unwrap();
    fs::hard_link(from.join("a/file"), from.join("same")).unwrap();
    symlink("../nowhere", from.join("a/link")).unwrap();
    fs::set_permissions(from.join("a/file"), PermissionsExt::from_mode(0o4751)).unwrap();
    fs::set_permissions(from.join("a"), PermissionsExt::from_mode(0o555)).unwrap();
    let all = Options {
        owners: true,
        privileged_modes: true,
    };
    transfer(&from, &to, all, 1000).unwrap();
    assert_eq!(fs::read(to.join("a/file")).unwrap(), vec![7; 200_000]);
    assert_eq!(
        fs::read_link(to.join("a/link")).unwrap(),
        Path::new("../nowhere")
    );
    for path in ["", "a", "a/b", "a/file", "a/b/empty", "a/link", "same"] {
        let was = fs::symlink_metadata(from.join(path)).unwrap();
        let is = fs::symlink_metadata(to.join(path)).unwrap();
        assert_eq!(was.mode(), is.mode(), "{path}");
        assert_eq!(
            (was.mtime(), was.mtime_nsec()),
            (is.mtime(), is.mtime_nsec()),
            "{path}"
        );
        assert_eq!((was.uid(), was.gid()), (is.uid(), is.gid()));
    }
    let inode = |path: &str| fs::metadata(to.join(path)).unwrap().ino();
    assert_eq!(inode("a/file"), inode("same"));
    // Into a directory that is there it goes by its own name, and without the privileged bits.
    transfer(&from, &to, Options::default(), 1 << 20).unwrap();
    assert_eq!(
        fs::metadata(to.join("from/a/file")).unwrap().mode() & 0o7777,
        0o751
    );
}

#[test]
fn holes_stay_holes() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    let file = fs::File::create(&from).unwrap();
    file.set_len(1 << 34).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"in the midst", 1 << 33).unwrap();
    transfer(&from, &to, Options::default(), 4096).unwrap();
    let meta = fs::metadata(&to).unwrap();
    assert_eq!(meta.len(), 1 << 34);
    assert!(meta.blocks() < 1000, "{} blocks", meta.blocks());
    let mut found = [0; 12];
    let file = fs::File::open(&to).unwrap();
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut found, 1 << 33).unwrap();
    assert_eq!(&found, b"in the midst");
}

#[test]
fn special_files_do_not_travel() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    fs::create_dir(&from).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(from.join("socket")).unwrap();
    let error = Packer::new(&from.join("socket")).err().unwrap();
    assert!(
        error
            .to_string()
            .ends_with("socket is a socket, which cannot be copied")
    );
    let mut packer = Packer::new(&from).unwrap();
    let mut bytes = Vec::new();
    while packer.pack(&mut bytes).unwrap() {}
    let target = dir.path().join("to");
    let mut unpacker = Unpacker::new(&target, "x".as_ref(), Options::default()).unwrap();
    unpacker.push(&bytes).unwrap();
    unpacker.finish().unwrap();
    assert_eq!(
        unpacker.skipped(),
        [(Blob::from("socket"), "socket".to_owned())]
    );
}

fn directory(path: &str) -> Entry {
    Entry::Directory {
        path: path.into(),
        meta: Meta {
            mode: 0o755,
            ..Meta::default()
        },
    }
}

fn file(path: &str) -> Entry {
    Entry::File {
        path: path.into(),
        meta: Meta {
            mode: 0o644,
            ..Meta::default()
        },
        size: 0,
    }
}

fn link(path: &str, target: &str) -> Entry {
    Entry::Link {
        path: path.into(),
        meta: Meta::default(),
        target: target.into(),
    }
}

fn hard(path: &str, original: &str) -> Entry {
    Entry::HardLink {
        path: path.into(),
        original: original.into(),
    }
}

/// What a guest that lies may send to get at the host's files.
fn lies() -> Vec<Vec<Entry>> {
    let root = || directory("");
    vec![
        vec![root(), file("../secret")],
        vec![root(), file("/secret")],
        vec![root(), link("out", ".."), file("out/secret")],
        vec![
            root(),
            link("out", ".."),
            directory("out/new"),
            file("out/secret"),
        ],
        vec![
            root(),
            directory("d"),
            file("d/x"),
            link("d", "../.."),
            file("d/secret"),
        ],
        vec![link("", ".."), file("secret")],
        vec![root(), hard("mine", "../secret")],
        vec![root(), link("out", ".."), hard("mine", "out/secret")],
        vec![root(), root()],
        vec![file("late"), root()],
        vec![Entry::Data {
            offset: 0,
            length: 0,
        }],
        vec![Entry::End],
        vec![root(), Entry::End, file("after")],
    ]
}

#[test]
fn lies_reach_nothing() {
    for (number, lie) in lies().into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("secret"), "untouched").unwrap();
        fs::create_dir(dir.path().join("place")).unwrap();
        let target = dir.path().join("place/tree");
        let mut unpacker = Unpacker::new(&target, "x".as_ref(), Options::default()).unwrap();
        let bytes: Vec<u8> = lie.iter().flat_map(encode_entry).collect();
        assert!(unpacker.push(&bytes).is_err(), "lie {number} was believed");
        assert_eq!(fs::read(dir.path().join("secret")).unwrap(), b"untouched");
        let names = fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(names, 2, "lie {number} made something");
    }
}

#[test]
fn links_in_the_target_are_replaced_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("secret"), "untouched").unwrap();
    let place = dir.path().join("place");
    fs::create_dir(&place).unwrap();
    symlink("../secret", place.join("file")).unwrap();
    let mut unpacker = Unpacker::new(&place, "file".as_ref(), Options::default()).unwrap();
    let bytes: Vec<u8> = [file(""), Entry::End]
        .iter()
        .flat_map(encode_entry)
        .collect();
    unpacker.push(&bytes).unwrap();
    unpacker.finish().unwrap();
    assert_eq!(fs::read(dir.path().join("secret")).unwrap(), b"untouched");
    assert!(fs::symlink_metadata(place.join("file")).unwrap().is_file());
}

fn entry() -> impl Strategy<Value = Entry> {
    let name = prop_oneof![
        "",
        "[ab]",
        "[ab]/[ab]",
        "\\.\\.",
        "\\.\\./[ab]",
        "/[ab]",
        "[ab]/\\.\\./\\.\\./[ab]"
    ];
    let target = prop_oneof!["\\.\\.", "[ab]", "/", "\\.\\./\\.\\."];
    (0..5_u8, name.clone(), target, name).prop_map(|(kind, path, target, original)| match kind {
        0 => directory(&path),
        1 => file(&path),
        2 => link(&path, &target),
        3 => hard(&path, &original),
        _ => Entry::Data {
            offset: 3,
            length: 0,
        },
    })
}

proptest! {
    #[test]
    fn no_tree_gets_out(entries in prop::collection::vec(entry(), 0..30)) {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a", "b"] {
            fs::write(dir.path().join(name), "untouched").unwrap();
        }
        fs::create_dir(dir.path().join("place")).unwrap();
        let target = dir.path().join("place/tree");
        let mut unpacker = Unpacker::new(&target, "x".as_ref(), Options::default()).unwrap();
        unpacker.push(&encode_entry(&directory(""))).unwrap();
        for entry in entries {
            if unpacker.push(&encode_entry(&entry)).is_err() {
                break;
            }
        }
        for name in ["a", "b"] {
            prop_assert_eq!(fs::read(dir.path().join(name)).unwrap(), b"untouched");
            prop_assert_eq!(fs::metadata(dir.path().join(name)).unwrap().nlink(), 1);
        }
        prop_assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
        prop_assert_eq!(fs::read_dir(dir.path().join("place")).unwrap().count(), 1);
    }
}
