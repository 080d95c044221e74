//! What a store does, over all of its parts.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use machinist_guest::Settled;
use machinist_image::Prune;

use super::*;

const ROOMY: u64 = 1 << 30;

fn draft(name: &str) -> Draft {
    let mut parts = Parts::default();
    parts.add("name", name);
    Draft {
        machine: name.into(),
        image: "debian".into(),
        system_ready: true,
        settled: Settled::default(),
        parts,
        digests: BTreeMap::new(),
    }
}

fn key(name: &str) -> SnapshotKey {
    draft(name).parts.key()
}

fn fill(making: &Making) {
    for name in [MEMORY, STATE, CONSOLE] {
        fs::write(making.dir().join(name), vec![b'x'; 100_000]).unwrap();
    }
}

async fn make(store: &SnapshotStore, name: &str) -> Saved {
    match store.claim(&key(name)).await.unwrap() {
        Claim::Ours(making) => {
            fill(&making);
            making.commit(draft(name)).unwrap()
        }
        _ => panic!("{name} is not ours to make"),
    }
}

fn names(store: &SnapshotStore) -> Vec<String> {
    let list = store.list().unwrap();
    list.into_iter().map(|info| info.manifest.machine).collect()
}

#[tokio::test]
async fn another_users_store_is_of_no_use_and_no_trouble() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: this needs root, to become another user");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let own = dir.path().join("snapshots");
    let store = SnapshotStore::open(&own, ROOMY).unwrap();
    let saved = make(&store, "web").await;
    let theirs = own.clone();
    // Who somebody is, is so for a thread.
    let claim = std::thread::spawn(move || {
        let nobody = rustix::process::Uid::from_raw(65534);
        rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
        let store = SnapshotStore::open(&theirs, ROOMY).unwrap();
        assert!(store.list().is_err());
        assert!(store.find(&key("web")).is_none());
        store.try_claim(&key("web")).unwrap()
    });
    match claim.join().unwrap() {
        Some(Claim::Unable(reason)) => {
            assert!(
                reason.contains(" belongs to root, and this runs as "),
                "{reason}"
            )
        }
        _ => panic!("it can be used"),
    }
    // The owner's is as it was.
    assert!(matches!(
        store.claim(&key("web")).await.unwrap(),
        Claim::There(_)
    ));
    assert!(saved.is_still_there());
}

#[tokio::test]
async fn root_restores_nothing_that_somebody_else_has_made() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: this needs root, to give a directory away");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    make(&SnapshotStore::open(dir.path(), ROOMY).unwrap(), "web").await;
    std::os::unix::fs::chown(dir.path(), Some(1), None).unwrap();
    let store = SnapshotStore::open(dir.path(), ROOMY).unwrap();
    match store.claim(&key("web")).await.unwrap() {
        Claim::Unable(reason) => assert!(reason.contains(" belongs to "), "{reason}"),
        _ => panic!("it is used"),
    }
    // What is named as made by others is.
    let own = tempfile::tempdir().unwrap();
    let store = SnapshotStore::open(own.path(), ROOMY).unwrap();
    let store = store.with_source(dir.path());
    assert!(store.find(&key("web")).is_some());
}

#[tokio::test]
async fn one_makes_it_and_the_others_find_it() {
    let dir = tempfile::tempdir().unwrap();
    // Two stores on one directory are like two processes: locks are of open files.
    let stores = [0; 2].map(|_| SnapshotStore::open(dir.path(), ROOMY).unwrap());
    let claims = stores.iter().cycle().take(6).map(|store| {
        let store = store.clone();
        tokio::spawn(async move {
            match store.claim(&key("web")).await.unwrap() {
                Claim::There(_) => 0,
                Claim::Ours(making) => {
                    fill(&making);
                    tokio::time::sleep(Duration::from_millis(120)).await;
                    making.commit(draft("web")).unwrap();
                    1
                }
                Claim::Unable(reason) => panic!("{reason}"),
            }
        })
    });
    let claims: Vec<_> = claims.collect();
    let mut made = 0;
    for claim in claims {
        made += claim.await.unwrap();
    }
    assert_eq!(made, 1);
}

#[tokio::test]
async fn what_a_dead_maker_left_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let store = SnapshotStore::open(dir.path(), ROOMY).unwrap();
    let left = dir.path().join("tmp").join(key("web").as_str());
    fs::create_dir_all(left.join("run")).unwrap();
    fs::write(left.join(MEMORY), "half").unwrap();
    let Claim::Ours(making) = store.claim(&key("web")).await.unwrap() else {
        panic!("it is not ours to make");
    };
    assert_eq!(fs::read_dir(making.dir()).unwrap().count(), 0);
    fill(&making);
    // A maker that gives up leaves nothing, and the next one makes it.
    drop(making);
    assert!(!left.exists());
    make(&store, "web").await;
    // What nobody wants any more goes when the store is opened.
    fs::create_dir_all(&left).unwrap();
    SnapshotStore::open(dir.path(), ROOMY).unwrap();
    assert!(!left.exists());
}

#[tokio::test]
async fn the_oldest_goes_when_there_is_too_much_but_not_what_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let store = SnapshotStore::open(dir.path(), 1_000_000).unwrap();
    let used = make(&store, "used").await;
    for name in ["old", "new"] {
        make(&store, name).await;
    }
    assert_eq!(names(&store), ["new", "old", "used"]);
    make(&store, "newest").await;
    assert_eq!(names(&store), ["newest", "new", "used"]);
    let all = Prune {
        all: true,
        ..Prune::default()
    };
    let freed = store.prune(&all).unwrap();
    assert_eq!((freed.removed.len(), freed.in_use.len()), (2, 1));
    assert_eq!(freed.bytes, 2 * used.manifest().usage);
    drop(used);
    assert_eq!(store.prune(&all).unwrap().removed.len(), 1);
    assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
}

#[tokio::test]
async fn nobody_else_may_read_it() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("snapshots");
    let store = SnapshotStore::open(&dir, ROOMY).unwrap();
    let Claim::Ours(making) = store.claim(&key("web")).await.unwrap() else {
        panic!("it is not ours to make");
    };
    fill(&making);
    let open = fs::Permissions::from_mode(0o644);
    fs::set_permissions(making.dir().join(STATE), open).unwrap();
    let saved = making.commit(draft("web")).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&dir), mode(saved.dir())), (0o700, 0o700));
    let entries: Vec<_> = fs::read_dir(saved.dir()).unwrap().flatten().collect();
    assert_eq!(entries.len(), 5);
    for entry in entries {
        assert_eq!(mode(&entry.path()), 0o600, "{entry:?}");
    }
}

#[tokio::test]
async fn what_is_moved_or_of_others_is_found() {
    let temp = tempfile::tempdir().unwrap();
    let (before, after) = (temp.path().join("before"), temp.path().join("after"));
    make(&SnapshotStore::open(&before, ROOMY).unwrap(), "web").await;
    fs::rename(&before, &after).unwrap();
    let moved = SnapshotStore::open(&after, ROOMY).unwrap();
    let found = moved.find(&key("web")).unwrap();
    moved.verify(&found).unwrap();
    // Of others: their whole store, or one snapshot.
    for source in [after.clone(), found.dir().to_owned()] {
        let own = SnapshotStore::open(&temp.path().join("own"), ROOMY).unwrap();
        let own = own.with_source(&source);
        let theirs = own.find(&key("web")).unwrap();
        own.verify(&theirs).unwrap();
        assert!(own.find(&key("db")).is_none());
        // It is not ours to throw away.
        own.discard(theirs);
        assert!(moved.find(&key("web")).is_some());
    }
}

#[tokio::test]
async fn what_does_not_restore_is_thrown_away_and_what_never_does_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let store = SnapshotStore::open(dir.path(), ROOMY).unwrap();
    store.discard(make(&store, "web").await);
    assert!(store.find(&key("web")).is_none());
    store.discard(make(&store, "web").await);
    store.refuse(&key("web"), "QEMU ended");
    let Claim::Unable(reason) = store.claim(&key("web")).await.unwrap() else {
        panic!("it is tried again");
    };
    assert_eq!(reason, "QEMU ended");
    let all = Prune {
        all: true,
        ..Prune::default()
    };
    store.prune(&all).unwrap();
    make(&store, "web").await;
}

#[test]
fn a_store_of_another_format_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("format"), "machinist snapshots 99\n").unwrap();
    let error = SnapshotStore::open(dir.path(), ROOMY).unwrap_err();
    assert!(error.to_string().contains("snapshots 99"), "{error}");
}
