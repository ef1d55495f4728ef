//! Ending: whatever a runtime does, nothing of it is alive when the proof is there.

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use supervisor::group::{Exit, Group, Step};

use crate::support::{END, Node, Watched, in_each_isolation};

#[tokio::test]
async fn a_daemon_and_another_session_die_with_the_leaf_and_are_not_claimed_without_one() {
    in_each_isolation(async |node: Node| {
        let mut reports = node.reports();
        let script = "setsid sh -c 'echo $$ > $1; exec sleep 1000' sh $1 &\n\
                      ( setsid sh -c 'echo $$ > $1; exec sleep 1000' sh $1 < /dev/null > /dev/null 2>&1 & )\n\
                      sleep 1000 & echo $! > $1; wait";
        let group = node.sh(script, &reports).await;
        let mut processes = Vec::new();
        for _ in 0..3 {
            processes.push(reports.process().await);
        }
        let proof = group.end(END).await.unwrap();
        let dead = processes.iter().filter(|process| process.is_dead()).count();
        if group.mechanism().has_leaf() {
            assert_eq!(dead, 3);
            assert_eq!(proof.steps, [Step::Populated0, Step::ExitCollected, Step::LeafRemoved]);
            assert_eq!(proof.others, 3);
            assert!(!group.leaf_path().unwrap().exists());
        } else {
            assert_eq!(dead, 1);
            assert_eq!(proof.steps, [Step::GroupEmpty, Step::ExitCollected]);
            assert!(proof.cannot_see.iter().any(|text| text.contains("setsid")), "{:?}", proof.cannot_see);
            processes.iter().filter(|process| !process.is_dead()).for_each(Watched::kill);
        }
        assert!(proof.phases.main_exited <= proof.phases.emptied && proof.phases.emptied <= proof.took);
    })
    .await;
}

#[tokio::test]
async fn a_proof_is_given_again_as_it_was() {
    in_each_isolation(async |node: Node| {
        let group = node.run("sleep", &["1000"]).await;
        let (first, second) = tokio::join!(group.end(END), group.end(END));
        assert_eq!(first, second);
        assert_eq!(group.end(END).await, first);
        // The numbers of a collected process are not its own any more: nothing may be signalled.
        group.terminate().unwrap();
    })
    .await;
}

#[tokio::test]
async fn who_ignores_the_soft_signal_dies_of_the_hard_one() {
    in_each_isolation(async |node: Node| {
        let mut reports = node.reports();
        let group = node
            .sh("trap 'echo asked > $1' TERM; echo ready > $1; while :; do sleep 0.01; done", &reports)
            .await;
        assert_eq!(reports.line().await, "ready");
        group.terminate().unwrap();
        assert_eq!(reports.line().await, "asked");
        assert_eq!(group.end(END).await.unwrap().exit, Exit::Signal(9));
    })
    .await;
}

/// Resolves when the main process is seen stopped; it is a child of this test.
async fn stopped(group: &Group) {
    let pid = Pid::from_raw(group.pid().cast_signed()).unwrap();
    let options = WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT;
    tokio::task::spawn_blocking(move || waitid(WaitId::Pid(pid), options).unwrap().unwrap()).await.unwrap();
}

#[tokio::test]
async fn a_stopped_runtime_hears_the_soft_signal_and_dies_of_the_hard_one() {
    in_each_isolation(async |node: Node| {
        let group = node.run("sh", &["-c", "kill -s STOP $$; sleep 1000"]).await;
        stopped(&group).await;
        group.terminate().unwrap();
        assert_eq!(group.exited().await.unwrap(), Exit::Signal(15));
        assert_eq!(group.end(END).await.unwrap().exit, Exit::Signal(15));

        let group = node.run("sh", &["-c", "kill -s STOP $$; sleep 1000"]).await;
        stopped(&group).await;
        assert_eq!(group.end(END).await.unwrap().exit, Exit::Signal(9));
    })
    .await;
}

#[tokio::test]
async fn a_fork_storm_is_over_when_it_is_proven() {
    in_each_isolation(async |node: Node| {
        let mut reports = node.reports();
        // 256 processes at most, ended somewhere on the way there.
        let storm =
            "report(os.getpid())\nfor _ in range(8): os.fork()\nreport(os.getpid())\ntime.sleep(1000)";
        let group = node.python(storm, &reports).await;
        let first = reports.process().await;
        let another = reports.process().await;
        let proof = group.end(END).await.unwrap();
        assert!(first.is_dead() && another.is_dead());
        assert_eq!(proof.exit, Exit::Signal(9));
        assert_eq!(group.members(), []);
    })
    .await;
}

/// Leaves a thread alive in a process whose main thread has exited: `cgroup.kill` does not reach it.
const MAIN_THREAD_EXITS: &str = "\
def lives():\n    \
    while open('/proc/self/stat').read().rsplit(')', 1)[1].split()[0] != 'Z': time.sleep(0.001)\n    \
    report(os.getpid())\n    \
    time.sleep(1000)\n\
threading.Thread(target=lives).start()\n\
ctypes.CDLL(None).syscall({'x86_64': 60}.get(os.uname().machine, 93), 0)";

#[tokio::test]
async fn a_runtime_whose_main_thread_has_exited_is_not_taken_for_dead() {
    in_each_isolation(async |node: Node| {
        let mut reports = node.reports();
        let group = node.python(MAIN_THREAD_EXITS, &reports).await;
        let process = reports.process().await;
        assert!(!process.is_dead());
        assert_eq!(group.members().iter().map(|member| member.state).collect::<Vec<_>>(), ['Z']);
        group.end(END).await.unwrap();
        assert!(process.is_dead());
    })
    .await;
}

#[tokio::test]
async fn a_child_whose_main_thread_has_exited_dies_too() {
    in_each_isolation(async |node: Node| {
        let mut reports = node.reports();
        // In a session of its own no signal to the group reaches it, and `cgroup.kill` does not either:
        // it must be found and killed alone. Without a leaf nothing could find it there.
        let leave = if node.has_leaves() { "os.setsid()" } else { "pass" };
        let program = format!("if os.fork(): time.sleep(1000)\n{leave}\n{MAIN_THREAD_EXITS}");
        let group = node.python(&program, &reports).await;
        let process = reports.process().await;
        let proof = group.end(END).await.unwrap();
        assert!(process.is_dead());
        assert_eq!(proof.exit, Exit::Signal(9));
        if group.mechanism().has_leaf() {
            assert_eq!(proof.others, 1);
        }
    })
    .await;
}

#[tokio::test]
async fn a_child_that_outlives_its_runtime_is_ended_and_does_not_delay_the_exit() {
    in_each_isolation(async |node: Node| {
        let mut reports = node.reports();
        // It keeps the pipes of the runtime open.
        let group = node.sh("sleep 1000 & echo $! > $1; exit 3", &reports).await;
        let child = reports.process().await;
        assert_eq!(group.exited().await.unwrap(), Exit::Code(3));
        assert!(!child.is_dead());
        let proof = group.end(END).await.unwrap();
        assert!(child.is_dead());
        assert_eq!(proof.exit, Exit::Code(3));
        if group.mechanism().has_leaf() {
            assert_eq!(proof.others, 1);
        }
    })
    .await;
}

#[tokio::test]
async fn groups_that_a_runtime_made_below_its_leaf_are_emptied_and_removed() {
    in_each_isolation(async |node: Node| {
        if !node.has_leaves() {
            return;
        }
        let mut reports = node.reports();
        let group = node.held("python3", &["-c", NESTS, reports.path(), &leaf_of(&node, 1)]).await;
        assert_eq!(group.leaf_path().unwrap().to_str().unwrap(), leaf_of(&node, 1));
        group.go().unwrap();
        let process = reports.process().await;
        assert!(group.leaf_path().unwrap().join("a/b/empty").exists());
        let proof = group.end(END).await.unwrap();
        assert!(process.is_dead());
        assert_eq!(proof.steps.last(), Some(&Step::LeafRemoved));
        assert!(!group.leaf_path().unwrap().exists());
    })
    .await;
}

fn leaf_of(node: &Node, instance: u64) -> String {
    node.containment.base().unwrap().join(format!("i{instance}")).to_str().unwrap().to_owned()
}

/// Moves a process whose main thread has exited, in a session of its own, into a group two below the
/// leaf, next to an empty one, and nests 100 more.
const NESTS: &str = "\
import os, sys, time, threading, ctypes\n\
deep = sys.argv[2] + '/a/b'\n\
os.makedirs(deep + '/empty')\n\
os.makedirs(deep + '/d' * 100)\n\
if os.fork(): time.sleep(1000)\n\
os.setsid()\n\
open(deep + '/cgroup.procs', 'w').write('0')\n\
def lives():\n    \
    while open('/proc/self/stat').read().rsplit(')', 1)[1].split()[0] != 'Z': time.sleep(0.001)\n    \
    open(sys.argv[1], 'w').write(str(os.getpid()) + '\\n')\n    \
    time.sleep(1000)\n\
threading.Thread(target=lives).start()\n\
ctypes.CDLL(None).syscall({'x86_64': 60}.get(os.uname().machine, 93), 0)";
