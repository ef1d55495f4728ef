//! What people see and type at a terminal: questions, colours, the live tree.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

#[path = "support/mod.rs"]
mod support;

use serde_json::json;
use support::{Bell, Ring, TestNode, pty::AtTerminal};

/// A node where one request runs, and one waits behind it.
async fn one_and_one() -> (TestNode, Ring, String, String) {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    node.deploy_probe("f", 1, 1, json!({})).await;
    let event = json!({ "do": "wait", "port": bell.port });
    let running = node.invoke_async("f", &event).await;
    let ring = bell.ring().await;
    let waiting = node.invoke_async("f", &event).await;
    (node, ring, running, waiting)
}

fn at_terminal(node: &TestNode, args: &[&str], env: &[(&str, &str)]) -> AtTerminal {
    let mut command = TestNode::client_command(&node.dir, args);
    command.envs(env.iter().copied());
    AtTerminal::run(command)
}

#[tokio::test]
async fn a_cancel_of_many_shows_its_plan_asks_and_does_what_was_answered() {
    let (node, ring, running, waiting) = one_and_one().await;
    let args = ["cancel", "--where", "status=waiting"];
    let mut said_no = at_terminal(&node, &args, &[]);
    said_no.prints("Cancel 1 request? [y/N]");
    assert!(said_no.screen.contains(&waiting) && !said_no.screen.contains(&running), "{}", said_no.screen);
    said_no.types("n\n");
    let (status, screen) = said_no.ended().await;
    assert!(status.code() == Some(1) && screen.contains("nothing was cancelled"), "{status} {screen}");
    assert_eq!(node.listed("f", &waiting).await.0, "WAIT");

    let mut said_yes = at_terminal(&node, &args, &[]);
    said_yes.prints("[y/N]");
    // Whoever comes after the plan was not in it.
    let late = node.invoke_async("f", &json!({})).await;
    said_yes.types("y\n");
    let (status, screen) = said_yes.ended().await;
    assert!(status.success() && screen.contains("1 request: 1 stopped"), "{status} {screen}");
    assert_eq!(node.listed("f", &waiting).await, ("DISCARD".into(), 4208));
    assert_eq!(node.listed("f", &late).await.0, "WAIT");
    assert!(!ring.process.is_gone());
    node.stop().await;
}

#[tokio::test]
async fn ctrl_c_and_sigterm_at_a_question_end_at_once_and_nothing_is_done() {
    use nix::sys::signal::Signal::{SIGINT, SIGTERM};
    let (node, ring, running, waiting) = one_and_one().await;
    for signal in [SIGINT, SIGTERM] {
        for (args, asked, said) in [
            (&["cancel", "--where", "status=waiting"] as &[&str], "[y/N]", "nothing was cancelled"),
            (&["functions", "delete", "f"], "Delete urn:", "nothing was deleted"),
        ] {
            let mut asking = at_terminal(&node, args, &[]);
            asking.prints(asked);
            asking.signal(signal);
            let (status, screen) = asking.ended().await;
            assert!(
                status.code() == Some(130) && screen.contains(said),
                "{args:?} {signal}: {status} {screen}"
            );
        }
    }
    assert_eq!(node.listed("f", &waiting).await.0, "WAIT");
    assert_eq!(node.listed("f", &running).await.0, "RUNNING");
    assert!(!ring.process.is_gone());
    node.stop().await;
}

#[tokio::test]
async fn ctrl_c_during_a_cancel_or_an_invocation_says_what_goes_on() {
    use nix::sys::signal::Signal::SIGINT;
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    // Nobody listens to what it is asked, and the grace is long.
    node.deploy_probe("f", 1, 1, json!({ "quell": { "grace_ms": 60_000 } })).await;
    let event = json!({ "do": "stubborn", "port": bell.port });
    let calling = at_terminal(&node, &["invoke", "f", "--event", &event.to_string()], &[]);
    let ring = bell.ring().await;
    calling.signal(SIGINT);
    let (status, screen) = calling.ended().await;
    assert!(status.code() == Some(130), "{status} {screen}");
    assert!(screen.contains("it goes on") && screen.contains("quell ls --where function=f"), "{screen}");
    let request = ring.request();
    assert!(!ring.process.is_gone());

    let stopping = at_terminal(&node, &["cancel", &request], &[]);
    // The node has it as soon as it says so.
    support::within("the fence", async {
        while node.tree(&request).await[&request]["stopping"] != "ask" {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
    stopping.signal(SIGINT);
    let (status, screen) = stopping.ended().await;
    assert!(status.code() == Some(130), "{status} {screen}");
    assert!(
        screen.contains("the node goes on with the cancel") && screen.contains("quell receipts"),
        "{screen}"
    );
    node.cancel("f", &request, support::Mode::Force).await;
    assert!(ring.process.is_gone());
    node.stop().await;
}

#[tokio::test]
async fn colours_are_for_terminals_and_for_those_who_want_them() {
    let (node, _ring, running, _waiting) = one_and_one().await;
    let (status, coloured) = at_terminal(&node, &["ls"], &[]).ended().await;
    assert!(status.success() && coloured.contains("\x1b[32mrunning async\x1b[0m"), "{coloured:?}");
    let (_, plain) = at_terminal(&node, &["ls"], &[("NO_COLOR", "1")]).ended().await;
    assert!(plain.contains(&running) && !plain.contains('\x1b'), "{plain:?}");
    let piped = TestNode::client_command(&node.dir, &["ls"]).output().unwrap();
    assert!(!String::from_utf8(piped.stdout).unwrap().contains('\x1b'));
    node.stop().await;
}

#[tokio::test]
async fn the_live_tree_plans_and_cancels_and_gives_the_terminal_back() {
    let (node, ring, running, waiting) = one_and_one().await;
    let mut top = at_terminal(&node, &["top"], &[]);
    top.prints("2 live requests");
    top.prints(&waiting);
    // The first is chosen; the second is planned and cancelled.
    top.types("jc");
    top.prints(&format!("A cancel of {waiting} (it alone, by asking) would stop 1"));
    top.prints("Cancel? y: yes");
    assert_eq!(node.listed("f", &waiting).await.0, "WAIT", "a plan touches nothing");
    top.types("y");
    top.prints(&format!("stopped {waiting}, receipt "));
    assert_eq!(node.listed("f", &waiting).await, ("DISCARD".into(), 4208));
    top.types("q");
    let (status, screen) = top.ended().await;
    assert!(status.success(), "{status}");
    let (begins, ends) = (screen.find("\x1b[?1049h").unwrap(), screen.rfind("\x1b[?1049l").unwrap());
    assert!(begins < ends && screen[ends..].contains("\x1b[?25h"), "the screen and the cursor are back");
    assert!(screen.contains(&running) && !ring.process.is_gone());
    node.stop().await;
}
