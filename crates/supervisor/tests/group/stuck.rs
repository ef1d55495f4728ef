//! What cannot be ended now: named and never claimed, and proven late when it can be.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use supervisor::group::{Exit, SurvivorCause};

use crate::support::{END, Node, in_each_isolation};

/// An end that cannot succeed; what it takes to see that.
const SHORT: Duration = Duration::from_millis(300);

/// Seizes a process with a stop at its exit: SIGKILL parks it there until the tracer is gone.
const TRACER: &str = "\
import ctypes, sys\n\
libc = ctypes.CDLL(None, use_errno=True)\n\
SEIZE, TRACEEXIT = 0x4206, 0x40\n\
if libc.ptrace(SEIZE, int(sys.argv[1]), None, ctypes.c_void_p(TRACEEXIT)) != 0:\n    \
    print('refused', ctypes.get_errno(), flush=True)\n\
else:\n    \
    print('seized', flush=True)\n\
sys.stdin.read()";

/// A tracer outside of every group, that ends when its stdin is closed.
fn tracer(pid: u32) -> Option<Child> {
    let mut child = Command::new("python3")
        .args(["-c", TRACER, &pid.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut said).unwrap();
    if said.starts_with("seized") {
        return Some(child);
    }
    println!("no tracing here, so nothing is tested: {said}");
    drop(child.stdin.take());
    child.wait().unwrap();
    None
}

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
