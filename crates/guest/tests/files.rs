//! Files and trees, by the real agent on this machine.

mod common;

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};

use common::Local;
use machinist_guest::GuestError;

#[tokio::test]
async fn trees_go_there_and_back() {
    let local = Local::start().await;
    let dir = local.dir.path();
    let from = dir.join("from");
    fs::create_dir_all(from.join("sub")).unwrap();
    let big: Vec<u8> = (0..5_000_000_u32).map(|i| (i % 251) as u8).collect();
    fs::write(from.join("sub/big"), &big).unwrap();
    fs::set_permissions(from.join("sub/big"), PermissionsExt::from_mode(0o640)).unwrap();
    symlink("sub/big", from.join("link")).unwrap();
    let sparse = fs::File::create(from.join("sparse")).unwrap();
    sparse.set_len(1 << 33).unwrap();
    sparse.write_all_at(b"x", 1 << 32).unwrap();

    // Parents that are missing are made.
    local
        .agent
        .copy_in(&from, &dir.join("guest/deep"))
        .await
        .unwrap();
    let copied = local
        .agent
        .copy_out(&dir.join("guest/deep"), &dir.join("back"))
        .await
        .unwrap();
    assert_eq!(copied.target, dir.join("back"));
    assert!(copied.skipped.is_empty());
    let back = dir.join("back");
    assert!(fs::read(back.join("sub/big")).unwrap() == big);
    assert_eq!(
        fs::metadata(back.join("sub/big")).unwrap().mode() & 0o777,
        0o640
    );
    assert_eq!(
        fs::read_link(back.join("link")).unwrap().to_str(),
        Some("sub/big")
    );
    let sparse = fs::metadata(back.join("sparse")).unwrap();
    assert_eq!(sparse.len(), 1 << 33);
    assert!(sparse.blocks() < 1000);

    // Into a directory, by its own name; a single file as well.
    local
        .agent
        .copy_in(&from.join("sub/big"), &dir.join("guest"))
        .await
        .unwrap();
    assert_eq!(
        fs::metadata(dir.join("guest/big")).unwrap().len(),
        5_000_000
    );
    let copied = local
        .agent
        .copy_out(&dir.join("guest/big"), &back)
        .await
        .unwrap();
    assert_eq!(copied.target, back.join("big"));
}

#[tokio::test]
async fn what_fails_says_why() {
    let local = Local::start().await;
    let dir = local.dir.path();
    let error = local
        .agent
        .copy_out(&dir.join("none"), &dir.join("to"))
        .await
        .unwrap_err();
    assert!(
        matches!(error, GuestError::Refused { errno: 2, .. }),
        "{error}"
    );
    assert!(error.to_string().contains("none: No such file"), "{error}");
    assert!(!dir.join("to").exists());

    let error = local
        .agent
        .copy_in(&dir.join("none"), &dir.join("to"))
        .await
        .unwrap_err();
    assert!(matches!(error, GuestError::Tree(_)), "{error}");

    fs::write(dir.join("file"), vec![1; 1_000_000]).unwrap();
    let error = local
        .agent
        .copy_in(&dir.join("file"), "/proc/nothing/x".as_ref())
        .await;
    assert!(
        matches!(error, Err(GuestError::Refused { .. })),
        "{error:?}"
    );

    let error = local
        .agent
        .copy_out("/dev/null".as_ref(), &dir.join("to"))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("/dev/null is a device"),
        "{error}"
    );
    // The agent is none the worse for it.
    local
        .agent
        .copy_in(&dir.join("file"), &dir.join("copy"))
        .await
        .unwrap();
}

#[tokio::test]
async fn files_without_a_length_are_read_to_their_end() {
    let local = Local::start().await;
    let to = local.dir.path().join("status");
    local
        .agent
        .copy_out("/proc/self/status".as_ref(), &to)
        .await
        .unwrap();
    assert!(fs::read_to_string(to).unwrap().contains("\nPid:"));
}
