//! Cancels that race with answers: whatever wins, nobody is ever given what belongs to another request.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

#[path = "support/mod.rs"]
mod support;

use std::{
    collections::HashMap,
    os::{linux::net::SocketAddrExt as _, unix::net::SocketAddr},
    rc::Rc,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use support::{Mode, Reply, TestNode};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::UnixListener,
    sync::{mpsc, oneshot},
};

/// How many of each kind of instance, so that 5,000 cancels race in all.
const RACES: usize = 2_500;
/// Requests at once.
const AT_ONCE: usize = 16;
/// Every so many cancels one is by force, which takes the others of the instance with it.
const FORCED: usize = 50;
/// For all of it; it takes a tenth of that.
const LIMIT: Duration = Duration::from_secs(240);

/// Who waits for the request id of which tag.
type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<String>>>>;

/// Hears from all instances which request has which tag.
fn listen(name: &str, waiting: Waiting) {
    let address = SocketAddr::from_abstract_name(format!("quell-bell-{name}")).unwrap();
    let listener = std::os::unix::net::UnixListener::bind_addr(&address).unwrap();
    listener.set_nonblocking(true).unwrap();
    let listener = UnixListener::from_std(listener).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let waiting = Arc::clone(&waiting);
            tokio::spawn(async move {
                let mut lines = BufReader::new(stream).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    let said: Value = serde_json::from_str(&line).unwrap();
                    let waits = waiting.lock().unwrap().remove(&said["tag"].as_u64().unwrap());
                    if let Some(waits) = waits {
                        drop(waits.send(said["request"].as_str().unwrap().to_owned()));
                    }
                }
            });
        }
    });
}

/// Its number, its answer, and that of the cancel if there was one.
type Race = (usize, Reply, Option<Reply>);

/// What came of all races.
#[derive(Debug, Default)]
struct Tally {
    answered: usize,
    canceled: usize,
    co_tenants: usize,
}

#[tokio::test]
async fn five_thousand_cancels_race_with_answers_and_no_answer_ever_crosses() {
    tokio::task::LocalSet::new().run_until(race()).await;
}

async fn race() {
    let node = Rc::new(TestNode::start().await);
    let (waiting, name) = (Waiting::default(), format!("race-{}", std::process::id()));
    listen(&name, Arc::clone(&waiting));
    let package = support::zip(&[("bootstrap", include_bytes!("functions/faulty.py"))]);
    for (function, concurrency, instances) in [("shared", 8, 2), ("alone", 1, 16)] {
        let race = json!({
            "runtime": "Custom",
            "handler": "faulty.race",
            "code_type": "zip",
            "func_code": { "file": support::base64(&package) },
            "user_data": json!({ "port": name }).to_string(),
            "strategy_config": { "concurrency": instances, "concurrent_num": concurrency },
            "quell": { "grace_ms": 30_000 },
        });
        node.deploy(function, "", race).await;
        let (racers, mut results) = mpsc::channel(AT_ONCE);
        let at = Arc::new(AtomicUsize::new(0));
        for _ in 0..AT_ONCE {
            let (node, waiting, racers, at) = (node.clone(), waiting.clone(), racers.clone(), at.clone());
            tokio::task::spawn_local(async move {
                loop {
                    let tag = at.fetch_add(1, Ordering::Relaxed);
                    if tag >= RACES || racers.send(one(&node, function, tag, &waiting).await).await.is_err() {
                        return;
                    }
                }
            });
        }
        drop(racers);
        let mut tally = Tally::default();
        let all = async {
            while let Some((tag, reply, cancel)) = results.recv().await {
                judge(tag, &reply, cancel.as_ref(), &mut tally);
            }
        };
        tokio::time::timeout(LIMIT, all).await.expect("the races end");
        let raced = tally.answered + tally.canceled + tally.co_tenants;
        assert_eq!(raced, RACES, "{function}: a racer did not come through: {tally:?}");
        assert!(tally.answered > 0 && tally.canceled > 0, "{function}: one side always won: {tally:?}");
    }
    Rc::into_inner(node).unwrap().stop().await;
}

/// One request and its cancel, which is sent as soon as the runtime has it.
async fn one(node: &TestNode, function: &str, tag: usize, waiting: &Waiting) -> Race {
    let (heard, mut request) = oneshot::channel();
    // Across both functions no tag comes twice.
    let number = u64::try_from(tag).unwrap() + if function == "shared" { 0 } else { 1 << 32 };
    waiting.lock().unwrap().insert(number, heard);
    let mut answer = node.invoke(function, &json!({ "tag": number }));
    let mode = match tag % FORCED {
        0 => Mode::Force,
        odd if odd % 2 == 1 => Mode::Plain,
        _ => Mode::Recursive,
    };
    let (request, reply) = tokio::select! {
        told = &mut request => (told.unwrap(), None),
        reply = &mut answer => match reply.unwrap() {
            // Its runtime had told of it before it answered: that is on its way.
            reply if reply.status == 200 => (request.await.unwrap(), Some(reply)),
            // The force of another took it along before its runtime had told of it.
            reply => return (tag, reply, None),
        },
    };
    let cancel = node.cancel(function, &request, mode).await;
    let reply = match reply {
        Some(reply) => reply,
        None => answer.await.unwrap(),
    };
    (tag, reply, Some(cancel))
}

/// Answer and cancel must agree, and the answer must be the request's own.
fn judge(tag: usize, reply: &Reply, cancel: Option<&Reply>, tally: &mut Tally) {
    if reply.status == 200 {
        let body = reply.json();
        let own = body["tag"].as_u64().map(|number| number & 0xffff_ffff);
        assert_eq!(own, Some(tag as u64), "an answer crossed: {reply:?}");
        assert_eq!(body["request"], reply.header("x-cff-request-id"), "an answer crossed: {reply:?}");
        let (status, code, message) = cancel.expect("it was told of before it was answered").error();
        assert_eq!((status, code.as_str()), (400, "FSS.0400"), "{tag}: both won: {cancel:?}");
        assert!(message.contains("SUCCESS"), "{message}");
        tally.answered += 1;
        return;
    }
    assert_eq!(reply.error().1, "FSS.4208", "{tag}: {reply:?}");
    match cancel {
        Some(cancel) if cancel.status == 200 => {
            assert_eq!(cancel.header("x-quell-stop"), "stopped", "{tag}: {cancel:?}");
            tally.canceled += 1;
        }
        // The force of another had taken it along before its own cancel came.
        Some(cancel) => {
            assert_eq!(cancel.status, 400, "{tag}: {cancel:?}");
            tally.co_tenants += 1;
        }
        None => tally.co_tenants += 1,
    }
}
