//! One request of several is stopped in the Lambda client for Python, which is not changed: by the shim that its image
//! has for it.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

#[path = "support/mod.rs"]
mod support;

use std::collections::HashSet;

use rustix::process::Signal;
use serde_json::json;
use support::{
    Bell, Mode,
    lambda::{Client, echo, instance_of, result, start, told, waiting},
    within,
};

#[tokio::test]
async fn one_of_eight_is_stopped_in_python_and_the_others_finish_in_their_processes() {
    let (node, bell) = (start().await, Bell::hang_in_a_folder().await);
    Client::Python.deploy(&node, "f", (8, 1), json!({})).await;
    for _ in 0..2 {
        let (mut answers, mut rings) = waiting(&node, &bell, "f", 8).await;
        let pids: HashSet<u32> = rings.values().map(|ring| ring.pid).collect();
        for victim in ["f3", "f5"] {
            let mut target = rings.remove(victim).unwrap();
            let cancel = node.cancel("f", &target.request(), Mode::Plain).await;
            assert_eq!((cancel.status, cancel.header("x-quell-stop")), (200, "stopped"), "{cancel:?}");
            assert_eq!(told(&node, &cancel).await, (json!("acknowledged"), json!(["asked"])));
            let stopped = within("the target", answers.remove(victim).unwrap()).await.unwrap();
            assert_eq!(stopped.error().1, "FSS.4208");
            assert_eq!(target.last_words().await, "cleaned\n");
            assert!(!target.process.is_gone(), "its process serves the next");
        }
        // Their places are taken at once by the same processes.
        for tag in ["g1", "g2"] {
            let event = json!({ "do": "wait", "bell": bell.path(), "tag": tag });
            answers.insert(tag.to_owned(), node.invoke("f", &event));
        }
        rings.extend(bell.rings(2).await);
        assert!(rings.values().all(|ring| pids.contains(&ring.pid)), "no process was started");
        for ring in rings.values_mut() {
            ring.release().await;
        }
        for (tag, answer) in answers {
            let reply = within(&tag, answer).await.unwrap();
            assert_eq!((reply.status, reply.json()["tag"].as_str()), (200, Some(tag.as_str())));
        }
    }
    node.stop().await;
}

#[tokio::test]
async fn what_a_cancelled_request_has_started_is_gone_when_its_client_says_so() {
    let (node, bell) = (start().await, Bell::hang_in_a_folder().await);
    Client::Python.deploy(&node, "f", (1, 1), json!({})).await;
    let answer = node.invoke("f", &json!({ "do": "spawn", "bell": bell.path() }));
    let ring = bell.ring().await;
    let child = ring.started();
    let cancel = node.cancel("f", &ring.request(), Mode::Plain).await;
    assert_eq!(told(&node, &cancel).await.0, "acknowledged");
    assert!(child.is_gone() && !ring.process.is_gone());
    assert_eq!(within("its answer", answer).await.unwrap().error().1, "FSS.4208");
    node.stop().await;
}

#[tokio::test]
async fn cancelling_in_python_can_be_switched_off() {
    let (node, bell) = (start().await, Bell::hang_in_a_folder().await);
    let off = json!({ "user_data": json!({ "QUELL_CANCELLATION": "off" }).to_string() });
    Client::Python.deploy(&node, "f", (1, 1), off).await;
    let answer = node.invoke("f", &json!({ "do": "wait", "bell": bell.path() }));
    let ring = bell.ring().await;
    let cancel = node.cancel("f", &ring.request(), Mode::Plain).await;
    assert_eq!(told(&node, &cancel).await, (json!("reaped"), json!(["terminated", "killed"])));
    assert_eq!(within("its answer", answer).await.unwrap().error().1, "FSS.4208");
    node.stop().await;
}

#[tokio::test]
async fn what_is_cleaned_up_is_not_interrupted_again_and_its_process_goes_on() {
    let (node, bell) = (start().await, Bell::hang_in_a_folder().await);
    for (name, requests) in [("one", 1), ("two", 2)] {
        let quell = json!({ "quell": { "grace_ms": 60_000 } });
        Client::Python.deploy(&node, name, (requests, 1), quell).await;
        let answer = node.invoke(name, &json!({ "do": "tidy", "bell": bell.path() }));
        let mut ring = bell.ring().await;
        let request = ring.request();
        node.fence(name, &request).await;
        assert_eq!(ring.word().await, "cleaning");
        // Signals that come late, and one who asks again.
        for _ in 0..20 {
            ring.process.signal(Signal::USR1);
        }
        let cancel = tokio::join!(node.cancel(name, &request, Mode::Plain), ring.release()).0;
        assert_eq!((cancel.status, cancel.header("x-quell-stop")), (200, "stopped"), "{cancel:?}");
        assert_eq!(told(&node, &cancel).await, (json!("acknowledged"), json!(["asked"])));
        assert_eq!(ring.last_words().await, "cleaned\n");
        assert_eq!(within("its answer", answer).await.unwrap().error().1, "FSS.4208");
        assert!(!ring.process.is_gone(), "{name}");
        // Nobody is at work: a signal without a request is nobody's.
        ring.process.signal(Signal::USR1);
        let after = echo(&node, name).await;
        assert_eq!(instance_of(&after), instance_of(&ring.facts), "{name}");
    }
    node.stop().await;
}

#[tokio::test]
async fn code_that_swallows_its_exceptions_is_stopped_as_well() {
    let (node, bell) = (start().await, Bell::hang_in_a_folder().await);
    Client::Python.deploy(&node, "f", (1, 1), json!({ "quell": { "grace_ms": 60_000 } })).await;
    for _ in 0..3 {
        let answer = node.invoke("f", &json!({ "do": "careless", "bell": bell.path() }));
        let ring = bell.ring().await;
        let cancel = node.cancel("f", &ring.request(), Mode::Plain).await;
        assert_eq!(told(&node, &cancel).await, (json!("acknowledged"), json!(["asked"])));
        assert_eq!(within("its answer", answer).await.unwrap().error().1, "FSS.4208");
        assert_eq!(echo(&node, "f").await["me"], ring.facts["me"], "the same process");
    }
    node.stop().await;
}

#[tokio::test]
async fn a_process_of_several_that_ends_fails_its_request_at_once_and_its_instance_is_replaced() {
    let (node, bell) = (start().await, Bell::hang_in_a_folder().await);
    Client::Python.deploy(&node, "f", (3, 2), json!({})).await;
    for rounds in 0..3 {
        let (answers, mut rings) = waiting(&node, &bell, "f", 2).await;
        let (status, code, message) = result(&node, "f", json!({ "do": "leave" })).await.error();
        assert_eq!((status, code.as_str()), (500, "FSS.4204"), "{message}");
        assert!(message.contains("the process that served it ended"), "{message}");
        // What comes now goes elsewhere, and the others finish where they are.
        let old = instance_of(&rings["f0"].facts).to_owned();
        assert_ne!(instance_of(&echo(&node, "f").await), old, "{rounds}");
        for ring in rings.values_mut() {
            assert_eq!((instance_of(&ring.facts), ring.process.is_gone()), (old.as_str(), false));
            ring.release().await;
        }
        for (tag, answer) in answers {
            assert_eq!(within(&tag, answer).await.unwrap().status, 200, "{tag}");
        }
        within("the drained instance", rings["f0"].process.gone()).await;
    }
    node.stop().await;
}

#[tokio::test]
async fn a_request_whose_process_was_killed_is_tried_again_and_one_that_was_idle_is_missed_as_well() {
    let (node, bell) = (start().await, Bell::hang_in_a_folder().await);
    Client::Python.deploy(&node, "f", (2, 2), json!({})).await;
    let request = node.invoke_async("f", &json!({ "do": "wait", "bell": bell.path() })).await;
    let first = bell.ring().await;
    first.process.signal(Signal::KILL);
    let mut second = bell.ring().await;
    assert_eq!(second.request(), request);
    assert_ne!(instance_of(&second.facts), instance_of(&first.facts), "on a new instance");
    second.release().await;
    assert_eq!(node.settled("f", &request).await, ("SUCCESS".into(), 0));
    // Both processes of the second instance have had work, and one of them is killed while it has none.
    let (answers, mut rings) = waiting(&node, &bell, "f", 2).await;
    for ring in rings.values_mut() {
        ring.release().await;
    }
    for (tag, answer) in answers {
        assert_eq!(within(&tag, answer).await.unwrap().status, 200, "{tag}");
    }
    rings["f0"].process.signal(Signal::KILL);
    within("the rest of its instance", rings["f1"].process.gone()).await;
    assert_ne!(instance_of(&echo(&node, "f").await), instance_of(&rings["f1"].facts));
    node.stop().await;
}
