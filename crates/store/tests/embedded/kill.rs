//! What was acknowledged survives SIGKILL of the process that wrote it (I6).

use std::{
    env,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use cancel::{CancelId, RequestId};
use store::{Embedded, Store};

use crate::samples::*;

const FOLDER: &str = "STORE_TEST_CHILD_FOLDER";
const NAME: &str = "kill::what_was_acknowledged_survives_sigkill";
/// Lines read before the kill: enough for many groups and for a checkpoint or two.
const LINES: usize = 3_000;
/// Writers side by side in the child, so that groups have more than one write.
const WRITERS: u128 = 16;
/// Kills of one folder, one after the other: each must also survive the next one's recovery.
const LIVES: usize = 3;

#[tokio::test]
async fn what_was_acknowledged_survives_sigkill() {
    if let Some(folder) = env::var_os(FOLDER) {
        return write_for_ever(Path::new(&folder)).await;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut printed = Vec::new();
    for _ in 0..LIVES {
        printed.extend(live_and_be_killed(dir.path()));
        let store = Embedded::open(dir.path()).unwrap();
        for id in &printed {
            let row = store.invocation(RequestId(*id)).await.unwrap();
            let row = row.unwrap_or_else(|| panic!("{id} was acknowledged"));
            assert_eq!(row.payload, invocation(*id).payload);
            assert_eq!(row.fenced_by, Some(CancelId(*id)), "so was its cancel");
        }
        let first_free = store.invocations(query()).await.unwrap().rows.first().unwrap().request.0 + 1;
        store.put_fact("next", first_free.to_string()).await.unwrap();
        store.close().await.unwrap();
    }
}

/// Starts a child on the folder, kills it in the middle of its writing, and returns every id it printed,
/// the last before the kill too: those are the ones a too early acknowledgement would lose.
fn live_and_be_killed(folder: &Path) -> Vec<u128> {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", NAME, "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut ids = lines.filter_map(|line| line.unwrap().strip_prefix("kept ")?.parse().ok());
    let mut printed: Vec<u128> = ids.by_ref().take(LINES).collect();
    assert_eq!(printed.len(), LINES);
    child.kill().unwrap();
    assert!(!child.wait().unwrap().success(), "it was still writing");
    printed.extend(ids);
    printed
}

/// Accepts and cancels requests, and prints each id once both are acknowledged.
async fn write_for_ever(folder: &Path) {
    let store = std::sync::Arc::new(Embedded::open(folder).unwrap());
    let next = store.fact("next").await.unwrap().map_or(0, |next| next.parse().unwrap());
    let writers = (0..WRITERS).map(|writer| {
        let store = std::sync::Arc::clone(&store);
        tokio::spawn(async move {
            for id in (next + writer..).step_by(WRITERS as usize) {
                let accepted = store.accept(invocation(id));
                let canceled = store.record_cancel(receipt(id, &[id]));
                accepted.await.unwrap();
                canceled.await.unwrap();
                println!("kept {id}"); // fails when the parent is gone, which ends this process
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
}
