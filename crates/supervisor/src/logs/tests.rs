//! The writer and the reader together, on a real folder.

use bytes::Bytes;
use cancel::{Attempt, RequestId};
use store::{FunctionFilter, FunctionKey};

use super::{read::Reader, *};

const REQUEST: RequestId = RequestId(0xabc);

fn key(name: &str) -> FunctionKey {
    FunctionKey { project: "p".into(), package: "k".into(), name: name.into(), version: "latest".into() }
}

fn settings(dir: &std::path::Path) -> LogSettings {
    LogSettings { instance_bytes: 1 << 20, function_bytes: 2 << 20, ..LogSettings::at(dir.to_owned()) }
}

fn line(n: u64, held: Option<RequestId>) -> Printed {
    let text = Bytes::from(format!("line {n} {}", "x".repeat(100)));
    Printed { n, stream: Stream::Stdout, held: held.map(|id| (id, Attempt(1))), text }
}

fn reader(dir: &std::path::Path, of: LogOf) -> Reader {
    let named = Named { of, project: "p".to_owned(), function: None, stem: None };
    Reader::new(dir, named, None)
}

fn last(lines: usize) -> LogQuery {
    LogQuery { since_ms: None, lines, last: true }
}

fn read(bytes: &[u8]) -> Vec<LogLine> {
    bytes.split_inclusive(|byte| *byte == b'\n').map(|line| serde_json::from_slice(line).unwrap()).collect()
}

fn size(dir: &std::path::Path) -> u64 {
    files::parts(files::all(dir)).iter().map(|part| part.size_and_time().unwrap().0).sum()
}

#[tokio::test]
async fn parts_are_rotated_and_the_oldest_go_of_an_instance_and_of_a_function() {
    let dir = tempfile::tempdir().unwrap();
    let logs = Logs::open(settings(dir.path())).unwrap();
    for instance in 1..=4 {
        let log = logs.of(InstanceId(instance), &key("f"));
        for batch in 0..100 {
            log.put((1..=200).map(|n| line(batch * 200 + n, None)).collect());
            logs.flush().await; // so that none is lost on its way
        }
    }
    logs.flush().await;
    assert!(size(dir.path()) <= 2 << 20, "{}", size(dir.path()));
    let mut all = reader(dir.path(), LogOf::Instance("i4".to_owned()));
    let (bytes, found) = all.page(last(10_000));
    let lines = read(&bytes);
    assert!(found && bytes.len() <= 1 << 20 && lines[0].n > 1);
    assert_eq!(lines.last().unwrap().n, 20_000);
    assert!(lines.windows(2).all(|pair| pair[0].n + 1 == pair[1].n), "whole lines, in their order");
    let (bytes, _) = reader(dir.path(), LogOf::Function(FunctionFilter::whole(key("f")))).page(last(3));
    assert_eq!(read(&bytes).iter().map(|line| line.n).collect::<Vec<_>>(), [19_998, 19_999, 20_000]);
    assert!(
        !reader(dir.path(), LogOf::Instance("i1".to_owned())).page(last(1)).1,
        "the oldest instance is gone"
    );
    assert_eq!(logs.lost(), 0);
}

#[tokio::test]
async fn lines_that_are_missing_are_marked_also_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let logs = Logs::open(settings(dir.path())).unwrap();
    let log = logs.of(InstanceId(1), &key("f"));
    log.put(vec![line(1, Some(REQUEST)), line(2, None)]);
    log.put(vec![line(6, Some(REQUEST))]);
    log.name.printed.store(9, Ordering::Relaxed); // three more that the queue had no room for
    drop(log);
    logs.flush().await;
    let (bytes, _) = reader(dir.path(), LogOf::Instance("i1".to_owned())).page(last(10));
    let shown: Vec<(u64, u64)> = read(&bytes).iter().map(|line| (line.n, line.lost)).collect();
    assert_eq!(shown, [(1, 0), (2, 0), (3, 3), (6, 0), (7, 3)]);
    // They were its last, and it was the request's: so is the mark, as far as is known.
    let (bytes, _) = reader(dir.path(), LogOf::Request(REQUEST)).page(last(10));
    assert_eq!(read(&bytes).iter().map(|line| line.n).collect::<Vec<_>>(), [1, 3, 6, 7]);
    assert!(!reader(dir.path(), LogOf::Request(RequestId(1))).page(last(10)).1);
}

#[tokio::test]
async fn who_reads_too_late_finds_a_mark_instead_of_what_was_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let logs = Logs::open(settings(dir.path())).unwrap();
    let log = logs.of(InstanceId(1), &key("f"));
    log.put(vec![line(1, None)]);
    logs.flush().await;
    let mut follower = reader(dir.path(), LogOf::Instance("i1".to_owned()));
    assert_eq!(read(&follower.page(last(10)).0).len(), 1);
    assert!(follower.news().0.is_empty());
    for batch in 0..100 {
        log.put((2..=201).map(|n| line(batch * 200 + n, None)).collect());
        logs.flush().await;
    }
    let (mut next, mut lost) = (2, 0);
    loop {
        let (bytes, more) = follower.news();
        for line in read(&bytes) {
            assert_eq!(line.n, next, "in order, and each is there or in a mark");
            next = line.n + line.lost.max(1);
            lost += line.lost;
        }
        if !more {
            break;
        }
    }
    assert_eq!(next, 20_002);
    assert!(lost > 10_000, "{lost}");
}

#[tokio::test]
async fn a_new_life_finds_what_is_there_within_its_own_bounds_and_age() {
    let dir = tempfile::tempdir().unwrap();
    for life in 0..2_u64 {
        let logs = Logs::open(settings(dir.path())).unwrap();
        let log = logs.of(InstanceId(life + 1), &key("f"));
        log.put((1..=3_000).map(|n| line(n, None)).collect());
        logs.flush().await;
    }
    assert_eq!(files::of_project(dir.path(), "p").len(), 1);
    let before = size(dir.path());
    let smaller = LogSettings { total_bytes: before / 2, ..settings(dir.path()) };
    let logs = Logs::open(smaller).unwrap();
    logs.flush().await;
    assert!((1..=before / 2).contains(&size(dir.path())));
    assert!(reader(dir.path(), LogOf::Instance("i2".to_owned())).page(last(1)).1, "the younger one is kept");
    drop(logs);
    let none = Logs::open(LogSettings { keep: Duration::ZERO, ..settings(dir.path()) }).unwrap();
    none.flush().await;
    assert_eq!((size(dir.path()), files::all(dir.path()).len()), (0, 0), "nor are there empty folders");
}
