//! What cannot be ended now: named and never claimed, and proven late when it can be.

use std::time::Duration;

use supervisor::group::{Exit, SurvivorCause};

use crate::{
    support::{END, Node, in_each_isolation},
    tracer::tracer,
};

/// An end that cannot succeed; what it takes to see that.
const SHORT: Duration = Duration::from_millis(300);

#[tokio::test]
async fn what_a_foreign_tracer_holds_is_named_and_proven_when_it_lets_go() {
    in_each_isolation(async |node: Node| {
        let mut reports = node.reports();
        let group = node.sh("sleep 1000 & echo $! > $1; wait", &reports).await;
        let pid: u32 = reports.line().await.parse().unwrap();
        let Some(mut tracer) = tracer(pid) else {
            group.end(END).await.unwrap();
            return;
        };
        let why = group.end(SHORT).await.unwrap_err();
        assert_eq!(why.survivors.iter().map(|survivor| survivor.pid).collect::<Vec<_>>(), [pid], "{why}");
        let survivor = &why.survivors[0];
        assert_eq!(survivor.cause(), SurvivorCause::Traced { by: tracer.id() });
        assert_eq!((survivor.comm.as_str(), survivor.uid), ("sleep", nix::unistd::getuid().as_raw()));
        assert!(survivor.start_time > 0);
        assert_eq!(group.exited().await.unwrap(), Exit::Signal(9), "the main process did die");

        drop(tracer.stdin.take());
        tracer.wait().unwrap();
        let proof = group.end(END).await.unwrap();
        assert!(proof.took >= SHORT, "it took from the first strike on");
        assert_eq!(group.end(END).await.unwrap(), proof);
    })
    .await;
}

#[tokio::test]
async fn a_main_process_held_by_a_tracer_is_not_waited_for_longer_than_said() {
    in_each_isolation(async |node: Node| {
        let group = node.run("sleep", &["1000"]).await;
        let Some(mut tracer) = tracer(group.pid()) else {
            group.end(END).await.unwrap();
            return;
        };
        let why = group.end(SHORT).await.unwrap_err();
        assert_eq!(
            why.survivors.iter().map(|survivor| survivor.pid).collect::<Vec<_>>(),
            [group.pid()],
            "{why}"
        );
        drop(tracer.stdin.take());
        tracer.wait().unwrap();
        assert_eq!(group.end(END).await.unwrap().exit, Exit::Signal(9));
    })
    .await;
}
