//! What the writer does when the disk is full, and when too much waits: with a connection of the tests'
//! own, whose disk can be made as small as one likes.

use std::sync::mpsc::{Receiver, Sender, channel};

use rusqlite::Connection;

use super::*;

/// A writer over a table of one column, in a folder of its own.
fn writer() -> (Writer, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let connection = Connection::open(dir.path().join("db")).unwrap();
    connection.pragma_update(None, "journal_mode", "WAL").unwrap();
    connection.execute_batch("CREATE TABLE t (v INTEGER NOT NULL UNIQUE, body BLOB)").unwrap();
    (Writer::start(connection, ()).unwrap(), dir)
}

fn insert(value: i64, bytes: u32) -> impl FnOnce(&Connection) -> Result<(), StoreError> {
    move |db| {
        let done = db.execute("INSERT INTO t VALUES (?1, zeroblob(?2))", (value, bytes));
        done.map(drop).map_err(unwritable)
    }
}

fn pages(most: i64) -> impl FnOnce(&Connection) -> Result<(), StoreError> {
    move |db| {
        // 0 asks for no change; anything below the present size means the present size.
        let set: rusqlite::Result<i64> =
            db.query_row(&format!("PRAGMA max_page_count = {most}"), [], |row| row.get(0));
        set.map(drop).map_err(unwritable)
    }
}

fn rows(db: &Connection) -> Result<Vec<i64>, StoreError> {
    let mut select = db.prepare("SELECT v FROM t ORDER BY v").map_err(unwritable)?;
    let rows = select.query_map([], |row| row.get(0)).map_err(unwritable)?;
    rows.collect::<Result<_, _>>().map_err(unwritable)
}

/// Holds the writer inside a write: what is queued meanwhile is one group, or waits.
struct Held {
    go: Sender<()>,
    done: StoreFuture<()>,
}

fn hold(writer: &Writer) -> Held {
    let (go, gone) = channel();
    let (started, has_started): (Sender<()>, Receiver<()>) = channel();
    let done = writer.write(move |_| {
        started.send(()).unwrap();
        gone.recv().ok();
        Ok(())
    });
    has_started.recv().unwrap();
    Held { go, done }
}

impl Held {
    async fn release(self) {
        self.go.send(()).unwrap();
        self.done.await.unwrap();
    }
}

#[tokio::test]
async fn a_write_that_fails_takes_no_other_of_its_group_with_it() {
    let (writer, _dir) = writer();
    let held = hold(&writer);
    let first = writer.write(insert(1, 0));
    let half = writer.write(|db| {
        insert(2, 0)(db)?;
        Err::<(), _>(StoreError::Exists)
    });
    let twice = writer.write(insert(1, 0));
    let last = writer.write(insert(3, 0));
    held.release().await;
    assert_eq!(first.await, Ok(()));
    assert_eq!(half.await, Err(StoreError::Exists));
    assert!(matches!(twice.await, Err(StoreError::Unwritable(_))));
    assert_eq!(last.await, Ok(()));
    assert_eq!(writer.write(rows).await, Ok(vec![1, 3]), "the failed one's first half is undone too");
}

#[tokio::test]
async fn a_full_disk_fails_the_whole_group_and_leaves_nothing_of_it() {
    let (writer, _dir) = writer();
    writer.write(insert(0, 0)).await.unwrap();
    writer.write(pages(1)).await.unwrap();
    let held = hold(&writer);
    let group = [
        writer.write(insert(1, 0)),
        writer.write(insert(2, 1 << 20)),
        // SQLite has given the transaction up by now: this one would commit alone.
        writer.write(insert(3, 0)),
    ];
    held.release().await;
    for write in group {
        match write.await {
            Err(StoreError::Unwritable(why)) => assert!(why.contains("full"), "{why}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(writer.write(rows).await, Ok(vec![0]));
}

#[tokio::test]
async fn the_writer_goes_on_when_the_disk_has_room_again() {
    let (writer, _dir) = writer();
    writer.write(pages(1)).await.unwrap();
    assert!(matches!(writer.write(insert(1, 1 << 20)).await, Err(StoreError::Unwritable(_))));
    writer.write(pages(1 << 20)).await.unwrap();
    assert_eq!(writer.write(insert(1, 1 << 20)).await, Ok(()));
    assert_eq!(writer.write(rows).await, Ok(vec![1]));
}

#[tokio::test]
async fn a_database_that_cannot_be_written_fails_every_write_of_the_group() {
    let (_kept, dir) = writer();
    let path = dir.path().join("db");
    let read_only = Connection::open_with_flags(path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let writer = Writer::start(read_only, ()).unwrap();
    for write in [writer.write(insert(1, 0)), writer.write(insert(2, 0))] {
        assert!(matches!(write.await, Err(StoreError::Unwritable(_))));
    }
}

#[tokio::test]
async fn new_work_is_refused_while_there_is_still_room_for_the_rest() {
    let (writer, _dir) = writer();
    let held = hold(&writer);
    let values = 0..(WRITES - RESERVED) as i64;
    let admitted: Vec<_> = values.map(|value| writer.admit(0, insert(value, 0))).collect();
    assert_eq!(writer.admit(0, insert(-1, 0)).await, Err(StoreError::Busy));
    let values = (WRITES - RESERVED) as i64..WRITES as i64;
    let known: Vec<_> = values.map(|value| writer.write(insert(value, 0))).collect();
    assert_eq!(writer.write(insert(-2, 0)).await, Err(StoreError::Busy));
    held.release().await;
    for write in admitted.into_iter().chain(known) {
        assert_eq!(write.await, Ok(()));
    }
    assert_eq!(writer.write(rows).await, Ok((0..WRITES as i64).collect()), "what was refused left nothing");
}

#[tokio::test]
async fn events_that_wait_are_bounded_in_bytes() {
    let (writer, _dir) = writer();
    let held = hold(&writer);
    let half = WAITING_BYTES as usize / 2;
    let first = writer.admit(half, insert(1, 0));
    let second = writer.admit(half, insert(2, 0));
    assert_eq!(writer.admit(1, insert(3, 0)).await, Err(StoreError::Busy));
    let known = writer.write(insert(4, 0));
    held.release().await;
    assert_eq!((first.await, second.await, known.await), (Ok(()), Ok(()), Ok(())));
    assert_eq!(writer.admit(usize::MAX, insert(5, 0)).await, Ok(()), "a huge one goes when it is alone");
}

#[tokio::test]
async fn closing_waits_for_what_is_queued_and_lets_go_of_what_is_held() {
    let dir = tempfile::tempdir().unwrap();
    let connection = Connection::open(dir.path().join("db")).unwrap();
    connection.execute_batch("CREATE TABLE t (v INTEGER, body BLOB)").unwrap();
    let (held_here, held_there) = channel::<()>();
    let writer = Writer::start(connection, held_here).unwrap();
    let held = hold(&writer);
    drop(writer.write(insert(1, 0)));
    let closed = writer.close();
    assert_eq!(writer.write(insert(2, 0)).await, Err(StoreError::Closed));
    assert_eq!(writer.close().await, Err(StoreError::Closed));
    assert_eq!(held_there.try_recv(), Err(std::sync::mpsc::TryRecvError::Empty), "it still writes");
    held.release().await;
    closed.await.unwrap();
    assert_eq!(held_there.try_recv(), Err(std::sync::mpsc::TryRecvError::Disconnected));
    let connection = Connection::open(dir.path().join("db")).unwrap();
    assert_eq!(rows(&connection), Ok(vec![1]), "nobody waited for it, and it is there");
}

#[tokio::test]
async fn dropping_a_writer_waits_for_what_is_queued() {
    let (writer, dir) = writer();
    for value in 0..1_000 {
        drop(writer.write(insert(value, 0)));
    }
    drop(writer);
    let connection = Connection::open(dir.path().join("db")).unwrap();
    assert_eq!(rows(&connection), Ok((0..1_000).collect()));
}
