//! Opening: what is kept, what is private, what is refused.

use std::{
    fs::{self, File},
    os::unix::fs::{FileExt as _, PermissionsExt as _},
    path::Path,
};

use bytes::Bytes;
use cancel::{CancelId, RequestId};
use rusqlite::Connection;
use store::{Embedded, Status, Store, StoreError};

use crate::samples::*;

fn refusal(dir: &Path) -> String {
    match Embedded::open(dir) {
        Err(StoreError::Unopenable(why)) => why,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it opened"),
    }
}

fn database(dir: &Path) -> Connection {
    Connection::open(dir.join("quell.db")).unwrap()
}

#[tokio::test]
async fn a_new_life_finds_everything_that_was_acknowledged() {
    let (store, dir) = fresh();
    let credential = credential("AK1", Some("ann"));
    store.create_function(function("f", "d"), Bytes::from_static(b"code")).await.unwrap();
    store.accept(invocation(1)).await.unwrap();
    store.mark_running(RequestId(1), 2, 50).await.unwrap();
    store.record_cancel(receipt(9, &[1])).await.unwrap();
    store.settle(settlement(1, Status::Fail, 60)).await.unwrap();
    store.put_credential(credential.clone()).await.unwrap();
    store.put_fact("lives", "3".into()).await.unwrap();
    assert_eq!(store.keep_fact("lives", "4".into()).await.unwrap(), "3", "there is one already");
    assert_eq!(store.keep_fact("colour", "red".into()).await.unwrap(), "red");
    store.close().await.unwrap();
    drop(store);

    let store = Embedded::open(dir.path()).unwrap();
    assert_eq!(store.function(key("f")).await.unwrap(), Some(function("f", "d")));
    assert_eq!(store.code("d".into()).await.unwrap(), Some(Bytes::from_static(b"code")));
    let row = store.invocation(RequestId(1)).await.unwrap().unwrap();
    assert_eq!((row.status, row.error_code, row.attempts), (Status::Fail, 4208, 2));
    assert_eq!((row.created_ms, row.started_ms, row.ended_ms), (1, Some(50), Some(60)));
    assert_eq!((row.fenced_by, row.payload), (Some(CancelId(9)), Bytes::from_static(b"event 1")));
    assert_eq!(row.error_message, "function invocation canceled");
    let receipt = store.receipt(CancelId(9)).await.unwrap().unwrap();
    assert_eq!((receipt.target, receipt.body.as_str()), (RequestId(1), r#"{"cancel":9}"#));
    assert_eq!(store.credential("AK1").await.unwrap().as_deref(), Some(&credential));
    assert_eq!(store.credential_of("ann").await.unwrap().as_deref(), Some(&credential));
    assert_eq!(store.credentials(Some("p".into())).await.unwrap(), vec![credential]);
    assert_eq!(store.credentials(Some("other".into())).await.unwrap(), vec![]);
    assert_eq!(store.fact("lives").await.unwrap(), Some("3".into()));
    assert_eq!(store.fact("node").await.unwrap(), None);
}

#[tokio::test]
async fn a_folder_has_one_owner_at_a_time() {
    let (store, dir) = fresh();
    let second = Embedded::open(dir.path()).err();
    assert_eq!(second, Some(StoreError::Locked(dir.path().display().to_string())));
    store.close().await.unwrap();
    assert!(Embedded::open(dir.path()).is_ok(), "a closed store has let go, even before it is dropped");
}

#[test]
fn a_store_that_is_dropped_without_being_closed_lets_go_of_its_folder() {
    let (store, dir) = fresh();
    drop(store);
    assert!(Embedded::open(dir.path()).is_ok());
}

#[test]
fn the_folder_and_its_files_are_for_their_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("not").join("there");
    let _store = Embedded::open(&folder).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    let files: Vec<_> = fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()).collect();
    assert!(files.len() >= 2, "{files:?}");
    for file in files {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}

#[test]
fn a_path_that_is_no_folder_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    File::create(&file).unwrap();
    assert!(refusal(&file).contains(&file.display().to_string()));
}

#[test]
fn a_database_of_a_newer_program_is_refused_and_not_touched() {
    let (store, dir) = fresh();
    drop(store);
    database(dir.path()).pragma_update(None, "user_version", 99).unwrap();
    let before = fs::read(dir.path().join("quell.db")).unwrap();
    let why = refusal(dir.path());
    assert!(why.contains("version 99") && why.contains("use the newer program"), "{why}");
    assert_eq!(fs::read(dir.path().join("quell.db")).unwrap(), before);
}

#[test]
fn a_database_of_another_program_is_refused_and_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    database(dir.path()).execute_batch("CREATE TABLE songs (name TEXT)").unwrap();
    let before = fs::read(dir.path().join("quell.db")).unwrap();
    let why = refusal(dir.path());
    assert!(why.contains("not a database of quell"), "{why}");
    assert_eq!(fs::read(dir.path().join("quell.db")).unwrap(), before);
}

#[test]
fn a_file_that_is_no_database_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("quell.db"), vec![b'x'; 8_192]).unwrap();
    let why = refusal(dir.path());
    assert!(why.contains("quell.db") && why.contains("not a database"), "{why}");
}

#[tokio::test]
async fn a_database_with_a_damaged_page_is_refused() {
    let (store, dir) = fresh();
    for id in 0..200 {
        drop(store.accept(invocation(id)));
    }
    store.close().await.unwrap();
    drop(store);
    let page: i64 = database(dir.path())
        .query_row("SELECT rootpage FROM sqlite_schema WHERE name = 'invocations_by_function'", [], |row| {
            row.get(0)
        })
        .unwrap();
    let file = File::options().write(true).open(dir.path().join("quell.db")).unwrap();
    file.write_all_at(&[0xff; 4_096], (page.unsigned_abs() - 1) * 4_096).unwrap();
    let why = refusal(dir.path());
    assert!(why.contains("quell.db"), "{why}");
}

#[tokio::test]
async fn a_database_cut_short_is_refused() {
    let (store, dir) = fresh();
    for id in 0..200 {
        drop(store.accept(invocation(id)));
    }
    store.close().await.unwrap();
    drop(store);
    let file = File::options().write(true).open(dir.path().join("quell.db")).unwrap();
    let length = file.metadata().unwrap().len();
    file.set_len(length / 2).unwrap();
    let why = refusal(dir.path());
    assert!(why.contains("quell.db"), "{why}");
}
