//! What becomes of calls when the server, or the way to it, is lost.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use cancel::RequestId;
use store::{News, Postgres, Shared as _, Store as _, StoreError};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
};

use crate::{samples::*, server::Server, subject::*};

#[tokio::test]
async fn a_server_that_comes_back_is_used_again_and_that_is_told() {
    let server = Server::start();
    let home = home_on(&server);
    let store = home.node(0);
    soon(async {
        store.accept(invocation(1)).await.unwrap();
        let mut news = store.news();
        server.restart();
        while news.recv().await.unwrap() != News::Again {}
        store.accept(invocation(2)).await.unwrap();
        assert!(store.invocation(RequestId(1)).await.unwrap().is_some());
        store.renew().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn without_a_server_calls_fail_and_after_it_they_do_not() {
    let server = Server::start();
    let home = home_on(&server);
    let store = home.node(0);
    soon(async {
        store.accept(invocation(1)).await.unwrap();
        let mut news = store.news();
        server.kill();
        assert!(matches!(store.accept(invocation(2)).await, Err(StoreError::Unwritable(_))));
        assert!(matches!(store.invocation(RequestId(1)).await, Err(StoreError::Unreadable(_))));
        assert!(matches!(store.renew().await, Err(StoreError::Unwritable(_))));
        assert!(matches!(
            store.create_function(function("f", "d"), "x".into()).await,
            Err(StoreError::Unwritable(_))
        ));
        let many: Vec<_> = (10..300).map(|id| store.accept(invocation(id))).collect();
        for one in many {
            assert!(matches!(one.await, Err(StoreError::Unwritable(_))));
        }
        assert!(matches!(
            Postgres::connect(&home.config, None, None, name(1), home.folders[1].path()).err(),
            Some(StoreError::Unreadable(_))
        ));
        server.again();
        while news.recv().await.unwrap() != News::Again {}
        store.accept(invocation(3)).await.unwrap();
        let rows = store.unsettled(None, 10).await.unwrap();
        assert_eq!(rows.iter().map(|row| row.request.0).collect::<Vec<_>>(), [1, 3]);
        store.close().await.unwrap();
    })
    .await;
}

/// What the man in the middle does with the next COMMIT.
const PASS: u8 = 0;
const LOSE_IT: u8 = 1;
const LOSE_THE_ANSWER: u8 = 2;

/// Passes everything between the store and the server on, but for one COMMIT.
struct Middle {
    next: Arc<AtomicU8>,
    folder: tempfile::TempDir,
}

impl Middle {
    fn start(server: &Server) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join(".s.PGSQL.5432")).unwrap();
        let next = Arc::new(AtomicU8::new(PASS));
        let (armed, server) = (Arc::clone(&next), server.folder().join(".s.PGSQL.5432"));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, server.clone(), Arc::clone(&armed)));
            }
        });
        Self { next, folder }
    }
}

/// Ends both connections when it returns.
async fn pass(mut client: UnixStream, server: PathBuf, armed: Arc<AtomicU8>) {
    let mut server = UnixStream::connect(server).await.unwrap();
    let (mut asked, mut answered) = ([0; 8_192], [0; 8_192]);
    loop {
        tokio::select! {
            read = client.read(&mut asked) => {
                let Ok(read @ 1..) = read else { return };
                let commits = asked[..read].windows(7).any(|word| word == b"COMMIT\0");
                let what = if commits { armed.swap(PASS, Ordering::SeqCst) } else { PASS };
                if what == LOSE_IT {
                    return;
                }
                if server.write_all(&asked[..read]).await.is_err() {
                    return;
                }
                if what == LOSE_THE_ANSWER {
                    // The answer is there: it is done.
                    assert!(server.read(&mut answered).await.unwrap() > 0);
                    return;
                }
            }
            read = server.read(&mut answered) => {
                let Ok(read @ 1..) = read else { return };
                if client.write_all(&answered[..read]).await.is_err() {
                    return;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_was_not_answered_is_told_as_what_became_of_it() {
    let server = Server::start();
    let home = home_on(&server);
    let middle = Middle::start(&server);
    let folder = middle.folder.path().display().to_string();
    let config = home.config.replace(&server.folder().display().to_string(), &folder);
    let store = Postgres::connect(&config, None, None, name(0), home.folders[0].path()).unwrap();
    soon(async {
        store.join(joining(60_000)).await.unwrap();
        middle.next.store(LOSE_THE_ANSWER, Ordering::SeqCst);
        let group: Vec<_> = (1..=5).map(|id| store.accept(invocation(id))).collect();
        for one in group {
            assert_eq!(one.await, Ok(()), "it is there");
        }
        assert_eq!(store.accept(invocation(1)).await, Err(StoreError::Exists));
        middle.next.store(LOSE_IT, Ordering::SeqCst);
        let lost = store.accept(invocation(6)).await;
        assert!(matches!(lost, Err(StoreError::Unwritable(_))), "{lost:?}");
        assert_eq!(store.invocation(RequestId(6)).await, Ok(None));
        store.accept(invocation(6)).await.unwrap();
        // One with a transaction of its own.
        middle.next.store(LOSE_THE_ANSWER, Ordering::SeqCst);
        assert_eq!(store.release(vec![RequestId(6)]).await, Ok(vec![RequestId(6)]));
        middle.next.store(LOSE_IT, Ordering::SeqCst);
        assert!(matches!(store.release(vec![RequestId(5)]).await, Err(StoreError::Unwritable(_))));
        assert_eq!(store.unsettled(None, 10).await.unwrap().len(), 5);
    })
    .await;
}
