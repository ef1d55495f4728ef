//! What cannot be ended now: named and never claimed, and proven late when it can be.

use std::time::Duration;

use supervisor::group::{Exit, Group, NotProven, SurvivorCause};

use crate::{
    deaf_disk::DeafDisk,
    support::{END, Node, Watched, in_each_isolation},
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

#[tokio::test]
async fn a_child_that_waits_for_a_disk_is_named_and_proven_when_the_disk_fails() {
    in_each_isolation(async |node: Node| {
        let Some(disk) = DeafDisk::mount() else { return };
        let group = node.run("sh", &["-c", "cat \"$1\" & wait", "sh", &disk.file()]).await;
        let child = disk.asked();
        let why = waits_for_the_disk(&group, child).await;
        assert_eq!(why.survivors[0].comm, "cat");
        assert_eq!(group.exited().await.unwrap(), Exit::Signal(9), "the main process did die");
        is_proven_late(&group, child, disk).await;
    })
    .await;
}

#[tokio::test]
async fn a_main_process_that_waits_for_a_disk_is_named_and_proven_when_the_disk_fails() {
    in_each_isolation(async |node: Node| {
        let Some(disk) = DeafDisk::mount() else { return };
        let group = node.run("cat", &[&disk.file()]).await;
        assert_eq!(disk.asked(), group.pid());
        waits_for_the_disk(&group, group.pid()).await;
        is_proven_late(&group, group.pid(), disk).await;
    })
    .await;
}

/// The pools of threads that do the disk work of node and Python: the main thread dies, one of them cannot.
#[tokio::test]
async fn a_thread_that_waits_for_a_disk_is_the_reason_and_not_that_the_main_thread_is_gone() {
    in_each_isolation(async |node: Node| {
        let Some(disk) = DeafDisk::mount() else { return };
        let program = "import os, sys, threading\n\
                       threading.Thread(target=os.stat, args=(sys.argv[1],)).start()";
        let group = node.run("python3", &["-c", program, &disk.file()]).await;
        let thread = disk.asked();
        assert_ne!(thread, group.pid());
        let why = waits_for_the_disk(&group, group.pid()).await;
        assert_eq!(why.survivors[0].comm, "python3");
        is_proven_late(&group, group.pid(), disk).await;
    })
    .await;
}

/// An end that is not proven, of a group of which `pid` waits for a disk.
async fn waits_for_the_disk(group: &Group, pid: u32) -> NotProven {
    let why = group.end(SHORT).await.unwrap_err();
    assert_eq!(why.survivors.iter().map(|survivor| survivor.pid).collect::<Vec<_>>(), [pid], "{why}");
    let survivor = &why.survivors[0];
    assert_eq!((survivor.cause(), survivor.state), (SurvivorCause::Uninterruptible, 'D'), "{why}");
    assert!(!Watched::of(pid.cast_signed()).is_dead(), "and that was the truth");
    why
}

/// Takes the reason away.
async fn is_proven_late(group: &Group, pid: u32, disk: DeafDisk) {
    let process = Watched::of(pid.cast_signed());
    drop(disk);
    let proof = group.end(END).await.unwrap();
    assert!(process.is_dead() && proof.took >= SHORT, "it took from the first strike on: {proof:?}");
    assert_eq!(proof.exit, Exit::Signal(9));
    assert_eq!(group.end(END).await.unwrap(), proof);
}
