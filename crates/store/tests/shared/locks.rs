//! The locks of trees, whose numbers all nodes reckon alike.

use cancel::{Level, RequestId};
use store::{Fenced, NewInvocation, Shared, Store, StoreError};

use crate::{
    fences::{child, reaching},
    lives::FenceOf,
    samples::*,
    subject::*,
};

/// A session that holds the lock of a tree by its number, until it is dropped.
struct Holding(std::process::Child);

impl Holding {
    fn of(config: &str, number: u32) -> Self {
        use std::io::{BufRead as _, Write as _};
        let mut psql = std::process::Command::new(crate::server::programs().join("psql"));
        let pipe = std::process::Stdio::piped;
        let mut child = psql.args(["-qAtX", config]).stdin(pipe()).stdout(pipe()).spawn().unwrap();
        let lock = format!("SELECT pg_advisory_lock({TREES}, {}), 'held';\n", number.cast_signed());
        child.stdin.as_mut().unwrap().write_all(lock.as_bytes()).unwrap();
        let mut line = String::new();
        std::io::BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "|held\n");
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
            let holding = Holding::of(&home.config, number);
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
