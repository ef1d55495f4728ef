//! Three nodes with one database, and each of the things that happen to machines, wires and databases at 3 a.m.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

#[path = "support/mod.rs"]
mod support;

use nix::sys::signal::Signal;
use reqwest::Method;
use serde_json::json;
use support::{
    Mode, TestNode,
    parts::{closed, leaf, spread, written_down},
    site::{ONE_EACH, three, three_with},
    within,
};

#[tokio::test]
async fn the_work_of_a_killed_node_is_run_by_another_and_what_was_cancelled_is_not() {
    let (_site, mut nodes, bell) = three().await;
    let (root, rings) = spread(&nodes, &bell).await;
    let reply = nodes[1].cancel("part", &rings["leaf"].request(), Mode::Plain).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    nodes[0].kill();
    for tag in ["root"] {
        within("the end of what ran there", rings[tag].process.gone()).await;
    }
    // After its lease somebody else takes it up: it rings again, and makes a middle of its own.
    let mut again = within("another node", bell.ring()).await;
    assert_eq!((again.facts["tag"].as_str(), again.request()), (Some("root"), root.clone()));
    again.release().await;
    assert_eq!(nodes[1].settled("part", &root).await, ("SUCCESS".to_owned(), 0));
    assert_eq!(nodes[1].listed("part", &rings["leaf"].request()).await, ("FAIL".to_owned(), 4208));
}

#[tokio::test]
async fn a_cancel_that_finds_a_node_dead_is_answered_by_its_next_life() {
    // So long that nobody takes over: the node itself comes back, and settles what was fenced meanwhile.
    let (site, mut nodes, bell) = three_with("60").await;
    let request = nodes[0].invoke_async("part", &leaf(&bell, "one")).await;
    let ring = bell.ring().await;
    written_down(&nodes, &request).await;
    nodes[0].kill();
    let fenced = nodes[1].fence("part", &request).await;
    within("the end of what ran there", ring.process.gone()).await;
    nodes[0] = site.start(0, &ONE_EACH).await;
    let reply = nodes[1].cancel("part", &request, Mode::Plain).await;
    assert_eq!((reply.status, reply.header("x-quell-stop")), (200, "stopped"), "{reply:?}");
    assert_eq!(nodes[2].listed("part", &request).await, ("FAIL".to_owned(), 4208));
    let receipt = closed(&nodes, fenced.header("x-quell-cancel-id")).await;
    assert_eq!(receipt["parts"][0]["result"], "stopped", "{receipt:#}");
    assert!(bell.is_silent().await, "it does not begin again");
}

#[tokio::test]
async fn a_cancel_under_way_waits_for_a_database_that_comes_back_and_its_receipt_tells_the_end() {
    // So long that neither the node that sleeps nor the others lose theirs.
    let (mut site, nodes, bell) = three_with("60").await;
    let request = nodes[0].invoke_async("part", &leaf(&bell, "one")).await;
    let ring = bell.ring().await;
    written_down(&nodes, &request).await;
    nodes[0].signal(Signal::SIGSTOP);
    let cancel = nodes[1].cancel("part", &request, Mode::Force);
    tokio::pin!(cancel);
    let parts = async {
        while site.database.ask("SELECT count(*) FROM parts WHERE state = 0") != "1" {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        reply = &mut cancel => panic!("answered while the node that has it sleeps: {reply:?}"),
        () = within("a part for the node that sleeps", parts) => {}
    }
    site.database.crash();
    tokio::select! {
        reply = &mut cancel => panic!("answered though nobody knows whether it is stopped: {reply:?}"),
        () = tokio::time::sleep(std::time::Duration::from_secs(3)) => {}
    }
    site.database.begin();
    nodes[0].signal(Signal::SIGCONT);
    let reply = cancel.await;
    assert_eq!((reply.status, reply.header("x-quell-stop")), (200, "stopped"), "{reply:?}");
    assert!(ring.process.is_gone(), "it is stopped when that is said");
    let receipt = closed(&nodes, reply.header("x-quell-cancel-id")).await;
    assert_eq!((&receipt["result"], &receipt["parts"][0]["result"]), (&json!("stopped"), &json!("stopped")));
}

#[tokio::test]
async fn an_end_that_is_not_written_yet_is_told_to_nobody() {
    let (mut site, nodes, bell) = three_with("60").await;
    let request = nodes[0].invoke_async("part", &leaf(&bell, "one")).await;
    let mut ring = bell.ring().await;
    written_down(&nodes, &request).await;
    site.database.crash();
    ring.release().await;
    assert_eq!(ring.last_words().await, "");
    // Tried again after 1, 2 and 4 s: when the database is back there is time to ask before it is written.
    tokio::time::sleep(std::time::Duration::from_secs(4)).await;
    site.database.begin();
    within("an end that is not written yet", async {
        while nodes[0].view().await["unwritten"] != json!(1) {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    // Should the node die now, the request would run again.
    let reply = nodes[0].cancel("part", &request, Mode::Plain).await;
    let (status, _) = nodes[1].listed("part", &request).await;
    assert!(reply.status == 503 || status == "SUCCESS", "it is {status} by the store: {reply:?}");
    assert_eq!(nodes[0].settled("part", &request).await, ("SUCCESS".to_owned(), 0));
    let late = nodes[0].cancel("part", &request, Mode::Plain).await;
    assert_eq!(late.error(), (400, "FSS.0400".to_owned(), "Invalid RequestId: SUCCESS".to_owned()));
}

#[tokio::test]
async fn a_receipt_that_a_node_left_open_says_stopped_only_when_the_others_have_stopped_it() {
    let (site, mut nodes, bell) = three_with("60").await;
    let request = nodes[0].invoke_async("part", &leaf(&bell, "one")).await;
    let ring = bell.ring().await;
    written_down(&nodes, &request).await;
    nodes[0].signal(Signal::SIGSTOP);
    let fenced = nodes[1].fence("part", &request).await;
    let cancel = fenced.header("x-quell-cancel-id").to_owned();
    nodes[1].kill();
    nodes[1] = site.start(1, &ONE_EACH).await;
    let receipt = nodes[2].receipt(&cancel).await;
    assert!(!ring.process.is_gone(), "its node sleeps, and its lease is long");
    assert_eq!(receipt["result"], "running", "nobody has stopped it: {receipt:#}");
    nodes[0].signal(Signal::SIGCONT);
    let receipt = closed(&nodes, &cancel).await;
    assert_eq!((&receipt["result"], &receipt["parts"][0]["result"]), (&json!("stopped"), &json!("stopped")));
}

#[tokio::test]
async fn a_node_that_sleeps_beyond_its_lease_runs_nothing_meanwhile_and_comes_back() {
    let (_site, mut nodes, bell) = three().await;
    let request = nodes[0].invoke_async("part", &leaf(&bell, "one")).await;
    let first = bell.ring().await;
    nodes[0].signal(Signal::SIGSTOP);
    // Its helper ends it with the lease, though the daemon cannot; and only then somebody else begins.
    let mut second = within("another node", bell.ring()).await;
    assert!(first.process.is_gone(), "the same request runs on two nodes");
    assert_eq!(second.request(), request);
    nodes[0].signal(Signal::SIGCONT);
    nodes[0].lives_again();
    second.release().await;
    assert_eq!(nodes[0].settled("part", &request).await, ("SUCCESS".to_owned(), 0));
    let caller = nodes[0].invoke("part", &leaf(&bell, "two"));
    within("it works again", bell.ring()).await.release().await;
    assert_eq!(caller.await.unwrap().status, 200);
}

#[tokio::test]
async fn what_a_hanging_node_lost_with_its_lease_has_not_failed_though_it_wakes_before_it_is_taken_over() {
    let (_site, mut nodes, bell) = three().await;
    let none = json!({ "max_async_retry_attempts": 0 });
    let config = "/v2/default/fgs/functions/part/async-invoke-config";
    assert_eq!(nodes[0].send(Method::PUT, config, &[], none.to_string().as_bytes()).await.status, 200);
    let request = nodes[0].invoke_async("part", &leaf(&bell, "one")).await;
    let first = bell.ring().await;
    nodes[0].signal(Signal::SIGSTOP);
    // Its helper strikes when three tenths of the lease are left; the others wait for its end.
    within("its helper", first.process.gone()).await;
    nodes[0].signal(Signal::SIGCONT);
    nodes[0].lives_again();
    let mut second = within("another attempt", bell.ring()).await;
    assert_eq!(second.request(), request);
    second.release().await;
    assert_eq!(nodes[1].settled("part", &request).await, ("SUCCESS".to_owned(), 0));
}

#[tokio::test]
async fn a_node_that_is_cut_off_from_the_database_stops_what_it_runs_within_its_lease() {
    let (site, mut nodes, bell) = three().await;
    let request = nodes[0].invoke_async("part", &leaf(&bell, "one")).await;
    let first = bell.ring().await;
    site.cut(0);
    let mut second = within("another node", bell.ring()).await;
    assert!(first.process.is_gone(), "the same request runs on two nodes");
    // Asked while the wire is cut, about a request that the lost node had.
    let reply = nodes[1].cancel("part", &request, Mode::Force).await;
    assert_eq!((reply.status, reply.header("x-quell-stop")), (200, "stopped"), "{reply:?}");
    assert!(second.last_or_line().await.is_null());
    site.mend(0);
    nodes[0].lives_again();
    assert_eq!(nodes[0].listed("part", &request).await, ("FAIL".to_owned(), 4208));
}

#[tokio::test]
async fn a_cancel_of_what_a_cut_off_node_runs_is_answered_when_its_lease_is_over() {
    let (site, mut nodes, bell) = three().await;
    let request = nodes[0].invoke_async("part", &leaf(&bell, "one")).await;
    let ring = bell.ring().await;
    site.cut(0);
    let reply = nodes[2].cancel("part", &request, Mode::Force).await;
    assert_eq!((reply.status, reply.header("x-quell-stop")), (200, "stopped"), "{reply:?}");
    assert!(ring.process.is_gone(), "it is stopped when that is said, by its own helper");
    let receipt = nodes[2].receipt(reply.header("x-quell-cancel-id")).await;
    assert_eq!(receipt["parts"][0]["result"], "lease_over", "{receipt:#}");
    assert!(bell.is_silent().await, "nobody runs it again");
    site.mend(0);
    nodes[0].lives_again();
    assert_eq!(nodes[0].listed("part", &request).await, ("FAIL".to_owned(), 4208));
}

#[tokio::test]
async fn a_database_that_comes_back_within_the_lease_stops_nothing() {
    // Long enough for a database that recovers on a busy machine.
    let (mut site, nodes, bell) = three_with("60").await;
    let request = nodes[0].invoke_async("part", &leaf(&bell, "one")).await;
    let mut ring = bell.ring().await;
    site.database.crash();
    site.database.begin();
    within("it accepts again", async {
        let path = "/v2/default/fgs/functions/part/invocations-async";
        while nodes[1].post(path, &leaf(&bell, "two")).await.status != 202 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    bell.ring().await.release().await;
    ring.release().await;
    assert_eq!(nodes[2].settled("part", &request).await, ("SUCCESS".to_owned(), 0));
}

#[tokio::test]
async fn a_database_that_stays_away_stops_everything_and_all_goes_on_when_it_is_back() {
    let (mut site, nodes, bell) = three().await;
    let request = nodes[0].invoke_async("part", &leaf(&bell, "one")).await;
    let first = bell.ring().await;
    site.database.crash();
    within("its end with the lease", first.process.gone()).await;
    let refused = nodes[0].post("/v2/default/fgs/functions/part/invocations-async", &leaf(&bell, "no")).await;
    assert_eq!(refused.error().0, 503);
    within("its word that it waits, and has not ended for good", async {
        loop {
            let ready = nodes[0].send_as(None, Method::GET, "/quell/v1/ready", &[], b"").await;
            if ready.text().contains("waits for the shared store") {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    site.database.begin();
    let mut second = within("it is run again", bell.ring()).await;
    assert_eq!(second.request(), request);
    second.release().await;
    assert_eq!(nodes[2].settled("part", &request).await, ("SUCCESS".to_owned(), 0));
}

#[tokio::test]
async fn a_node_waits_for_a_database_that_is_not_there_yet_and_can_be_ended_meanwhile() {
    let data = TestNode::folder();
    let url = "postgres://quell@127.0.0.1:1/postgres"; // nobody listens there
    let mut child = TestNode::command(data.path(), &["--store", url]).spawn().unwrap();
    let said = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().unwrap()));
    let mut said = said.map_while(Result::ok);
    let waits = said.find(|line| line.contains("the database is not there")).unwrap_or_default();
    assert!(waits.contains("127.0.0.1:1") && !waits.contains("quell@"), "{waits}");
    let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
    #[expect(clippy::disallowed_methods, reason = "our own child, not reaped yet: the pid is its own")]
    nix::sys::signal::kill(pid, Signal::SIGTERM).unwrap();
    assert!(said.any(|line| line.contains("ended before it had started")));
    assert!(child.wait().unwrap().success());
}

#[tokio::test]
async fn a_node_whose_database_does_not_answer_can_be_ended() {
    let (site, mut nodes, bell) = three().await;
    nodes[0].invoke_async("part", &leaf(&bell, "one")).await;
    let ring = bell.ring().await;
    site.cut(0);
    // Two: the second cuts the drain short.
    nodes[0].signal(Signal::SIGTERM);
    nodes[0].logs("draining");
    nodes[0].signal(Signal::SIGINT);
    within("the end of what ran", ring.process.gone()).await;
    nodes[0].ended().await;
    site.mend(0);
}
