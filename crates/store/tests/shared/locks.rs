//! What nodes lock: trees, by numbers that all of them reckon alike, and each other.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, Command, Stdio},
};

use cancel::{Level, RequestId};
use store::{Fenced, NewInvocation, Shared, Store, StoreError};

use crate::{
    fences::{child, reaching},
    lives::FenceOf,
    samples::*,
    subject::*,
};

/// A session that holds what it has locked until it is dropped.
struct Holding(Child);

impl Holding {
    fn of(config: &str, lock: &str) -> Self {
        let mut psql = Command::new(crate::server::programs().join("psql"));
        let mut child =
            psql.args(["-qAtX", config]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lock = format!("\\o /dev/null\nBEGIN; {lock};\n\\o\nSELECT 'held';\n");
        child.stdin.as_mut().unwrap().write_all(lock.as_bytes()).unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "held\n");
        Self(child)
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        drop(self.0.stdin.take()); // psql ends with it, and its session with psql
        self.0.wait().unwrap();
    }
}

/// The first half of the numbers of trees' locks; part of the format, as is the second.
const TREES: u32 = 0x5175_6574;

#[tokio::test(flavor = "multi_thread")]
async fn the_lock_of_a_tree_is_the_same_to_whoever_accepts_fences_and_records() {
    let home = home();
    let (a, b, c) = (home.node(0), home.node(1), home.node(2));
    soon(async {
        for (nth, root) in [0x8123_4567_89ab_cdef_f012_3456_789a_bcde, u128::from(u32::MAX) << 64 | 7]
            .into_iter()
            .enumerate()
        {
            let base = 100 * (nth as u128 + 1);
            a.accept(NewInvocation { request: RequestId(root), ..invocation(base) }).await.unwrap();
            let number = (root ^ (root >> 32) ^ (root >> 64) ^ (root >> 96)) as u32;
            let lock = format!("SELECT pg_advisory_lock({TREES}, {})", number.cast_signed());
            let holding = Holding::of(&home.config, &lock);
            let accepted = a.accept(child(base + 1, root, &[root]));
            let fenced = b.fence(FenceOf { cancel: base + 2, target: root }.ask());
            let recorded = c.record_cancel(reaching(base + 3, &[base + 4], root, Level::Ask));
            let waiting = format!(
                "DO $$ BEGIN
                     FOR i IN 1..1000 LOOP
                         IF (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
                             AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                             AND classid = {TREES} AND objid = {number}) = 3 THEN RETURN; END IF;
                         PERFORM pg_sleep(0.01);
                     END LOOP;
                     RAISE EXCEPTION 'not all three wait for it';
                 END $$"
            );
            let config = home.config.clone();
            tokio::task::spawn_blocking(move || crate::server::sql(&config, &waiting)).await.unwrap();
            drop(holding);
            let (accepted, fenced) = (accepted.await, fenced.await.unwrap());
            assert!(matches!(accepted, Ok(()) | Err(StoreError::Banned)), "{accepted:?}");
            assert!(matches!(fenced, Fenced::Stopping { .. }), "{fenced:?}");
            recorded.await.unwrap();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_a_transaction_open_is_not_waited_for_by_whoever_would_take_it_over() {
    let home = home();
    let (a, b) = (home.node(0), home.open(1));
    soon(async {
        b.join(joining(1)).await.unwrap(); // its lease is over at once
        b.accept(invocation(1)).await.unwrap();
        // As it is left by a node that hangs in the middle of one.
        let open = format!("SELECT 1 FROM nodes WHERE node = '{}' FOR KEY SHARE", name(1));
        let holding = Holding::of(&home.config, &open);
        assert!(!a.take_over(name(1)).await.unwrap());
        // What it would have done to whoever waited.
        a.renew().await.unwrap();
        a.accept(invocation(2)).await.unwrap();
        drop(holding);
        // Its session ends on its own time.
        while !a.take_over(name(1)).await.unwrap() {
            tokio::task::yield_now().await;
        }
        assert_eq!(b.accept(invocation(3)).await, Err(StoreError::Lapsed));
    })
    .await;
}
