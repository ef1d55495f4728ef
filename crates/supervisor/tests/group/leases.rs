//! The end of a node's lease ends what it runs, whatever the node does, and whatever the runtime does.

use std::{process::Command, sync::Arc, time::Duration};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use supervisor::group::{Containment, Exit, Group, Isolation, LeaseClock, Template};

use super::support::{END, HARD_LIMIT, Node, Reports, Watched, fresh_name, helper, within};

/// Long beside what a machine is busy with otherwise, so that a renewal is in time.
const LEASE: Duration = Duration::from_secs(2);
const RENEWED_EVERY: Duration = Duration::from_millis(100);
/// What [`DEFIANT`] starts, itself included.
const DEFIANT_PROCESSES: usize = 3;

/// Ignores the soft signal, and leaves its session and its parent; says "there" once for each process.
const DEFIANT: &str = "\
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for _ in range(2):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            report('there')
            while True: time.sleep(1000)
        os._exit(0)
    os.wait()
report('there')
while True: time.sleep(1000)";

fn now() -> Duration {
    LeaseClock::boottime_now().unwrap()
}

fn clock() -> LeaseClock {
    LeaseClock::starting_with(now() + LEASE).unwrap()
}

/// Does something as a node does that renews its lease, and renews it no more when that is done.
async fn renewing<T>(clock: &LeaseClock, work: impl Future<Output = T>) -> T {
    let mut every = tokio::time::interval(RENEWED_EVERY);
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = every.tick() => clock.run_until(now() + LEASE),
        }
    }
}

async fn all_there(reports: &mut Reports) {
    for _ in 0..DEFIANT_PROCESSES {
        assert_eq!(reports.line().await, "there");
    }
}

/// The runtime's processes, pinned, as this machine knows them.
fn pinned(group: &Group) -> Vec<Watched> {
    let found: Vec<_> = group.members().iter().map(|member| Watched::of(member.pid.cast_signed())).collect();
    assert_eq!(found.len(), DEFIANT_PROCESSES);
    found
}

/// All of them, for as many as work here.
fn isolations() -> Vec<Isolation> {
    let all = [Isolation::Auto, Isolation::Cgroup, Isolation::Subreaper, Isolation::ProcessGroup];
    let works = |isolation: &Isolation| match Containment::probe(&fresh_name(), *isolation, &helper()) {
        Ok(probed) => probed.close().is_ok(),
        Err(error) => {
            println!("not here: {isolation:?}: {error}");
            false
        }
    };
    all.into_iter().filter(works).collect()
}

#[tokio::test]
async fn when_the_lease_is_over_a_runtime_ends_with_all_it_started_and_nobody_did_anything() {
    for isolation in isolations() {
        within(async {
            let clock = clock();
            let node = Node::leased(isolation, &clock);
            let mut reports = node.reports();
            let (group, processes) = renewing(&clock, async {
                let group = node.python(DEFIANT, &reports).await;
                all_there(&mut reports).await;
                let processes = pinned(&group);
                (group, processes)
            })
            .await;
            let limit = clock.runs_until();
            let exit = group.exited().await.unwrap();
            processes.iter().for_each(Watched::wait);
            let seen = now();
            assert!(seen >= limit, "{isolation:?}: it had the time until then");
            println!("{isolation:?} ({}): all gone {:?} after", group.mechanism(), seen - limit);
            assert_eq!(exit, Exit::LeaseOver, "{isolation:?}");
            let proof = group.end(END).await.unwrap();
            assert_eq!(proof.exit, Exit::LeaseOver);
            assert!(proof.exit.to_string().starts_with("lease_over"));
        })
        .await;
    }
}

#[tokio::test]
async fn a_lease_that_is_renewed_lasts_until_its_last_end() {
    const BEYOND: &str = "\
while time.clock_gettime(time.CLOCK_BOOTTIME) < float(sys.argv[2]): time.sleep(0.01)
report('beyond')
while True: time.sleep(1000)";
    for isolation in isolations() {
        within(async {
            let clock = clock();
            let first = clock.runs_until();
            let node = Node::leased(isolation, &clock);
            let mut reports = node.reports();
            let after = (first + Duration::from_millis(1)).as_secs_f64().to_string();
            let program = format!(
                "import sys, time\n\
                 def report(text):\n    \
                     with open(sys.argv[1], 'w') as fifo: fifo.write(text + '\\n')\n\
                 {BEYOND}"
            );
            let group = renewing(&clock, async {
                let group = node.run("python3", &["-c", &program, reports.path(), &after]).await;
                assert_eq!(reports.line().await, "beyond");
                group
            })
            .await;
            let last = clock.runs_until();
            assert!(last > first);
            assert_eq!(group.exited().await.unwrap(), Exit::LeaseOver, "{isolation:?}");
            assert!(now() >= last);
            group.end(END).await.unwrap();
        })
        .await;
    }
}

#[tokio::test]
async fn nothing_is_executed_once_the_lease_is_over() {
    for isolation in isolations() {
        within(async {
            let clock = LeaseClock::starting_with(Duration::from_nanos(1)).unwrap();
            let node = Node::leased(isolation, &clock);
            let group = node.held("touch", &["executed"]).await;
            // It is over already, so whether this still reaches somebody is of no interest.
            drop(group.go());
            assert_eq!(group.exited().await.unwrap(), Exit::LeaseOver, "{isolation:?}");
            group.end(END).await.unwrap();
            assert!(!node.dir.path().join("executed").exists());
        })
        .await;
    }
}

#[tokio::test]
async fn who_waits_for_go_when_the_lease_ends_does_not_go() {
    for isolation in isolations() {
        within(async {
            let clock = clock();
            let node = Node::leased(isolation, &clock);
            let group = renewing(&clock, node.held("touch", &["executed"])).await;
            assert_eq!(group.exited().await.unwrap(), Exit::LeaseOver, "{isolation:?}");
            assert!(now() >= clock.runs_until());
            group.end(END).await.unwrap();
            assert!(!node.dir.path().join("executed").exists());
        })
        .await;
    }
}

#[tokio::test]
async fn a_runtime_has_neither_the_page_nor_the_timer() {
    const LOOK: &str = "\
found = [os.readlink('/proc/self/fd/' + n) for n in os.listdir('/proc/self/fd') if os.path.lexists('/proc/self/fd/' + n)]
found += open('/proc/self/maps').read().split()
report(any('quell-lease' in each or 'timerfd' in each for each in found))";
    for isolation in isolations() {
        within(async {
            let clock = clock();
            let node = Node::leased(isolation, &clock);
            let mut reports = node.reports();
            renewing(&clock, async {
                let group = node.python(LOOK, &reports).await;
                assert_eq!(reports.line().await, "False", "{isolation:?}");
                assert_eq!(group.exited().await.unwrap(), Exit::Code(0), "no lease was over");
                group.end(END).await.unwrap();
            })
            .await;
        })
        .await;
    }
}

/// A template as small as can be: it forks one instance, which starts a process outside of its session.
const TEMPLATE: &str = "\
import json, os, signal, socket, sys, time
def report(text):
    with open(sys.argv[1], 'w') as fifo: fifo.write(text + '\\n')
control = socket.socket(fileno=os.dup(0))
control.send(json.dumps('ready').encode())
order, handed, _, _ = socket.recv_fds(control, 262144, 4, socket.MSG_CMSG_CLOEXEC)
if os.fork() == 0:
    control.close()
    if os.fork(): os._exit(0)
    line, out, err, helper = handed
    os.setpgid(0, 0)
    for number, each in ((0, line), (1, out), (2, err)):
        os.dup2(each, number)
        os.close(each)
    pidfd = os.pidfd_open(os.getpid())
    with socket.socket(fileno=os.dup(0)) as shown: socket.send_fds(shown, [b'i'], [pidfd])
    os.close(pidfd)
    assert os.read(0, 1) == b'm'
    waits, goes = os.pipe()
    runtime = os.fork()
    if runtime == 0:
        os.setpgid(0, 0)
        os.close(goes)
        os.close(helper)
        os.dup2(os.open('/dev/null', os.O_RDONLY), 0)
        if os.read(waits, 1) != b'g': os._exit(125)
PROGRAM
    os.close(waits)
    os.set_inheritable(goes, True)
    os.execve(helper, ['quell', *json.loads(order)['helper'], str(runtime), str(goes)], {})
os.wait()
for each in handed: os.close(each)
control.send(json.dumps('forked').encode())
control.recv(1)";

fn template() -> String {
    let indented: Vec<String> = DEFIANT.lines().map(|line| format!("        {line}")).collect();
    TEMPLATE.replace("PROGRAM", &indented.join("\n"))
}

#[tokio::test]
async fn a_forked_instance_ends_with_the_lease_although_its_template_s_helper_is_stopped() {
    within(async {
        let clock = clock();
        let node = Node::leased(Isolation::Auto, &clock);
        if !node.has_leaves() {
            return; // nothing is forked then
        }
        let mut reports = node.reports();
        let (template, group, processes) = renewing(&clock, async {
            let order = node.order("python3", &["-c", &template(), reports.path()]);
            let template = Arc::new(node.spawner.spawn(order).await.unwrap());
            let template = Arc::new(Template::start(template).unwrap());
            let waiting = Arc::clone(&template);
            let ready = tokio::task::spawn_blocking(move || waiting.wait_ready(HARD_LIMIT));
            ready.await.unwrap().unwrap();
            let order = node.order("-", &[]);
            let group = node.spawner.fork(Arc::clone(&template), order).await.unwrap();
            group.go().unwrap();
            all_there(&mut reports).await;
            let processes = pinned(&group);
            (template, group, processes)
        })
        .await;
        // It would end what it was forked in, and so the instance: here that has to see to itself.
        let helper = Pid::from_raw(template.group().pid().cast_signed()).unwrap();
        let helper = pidfd_open(helper, PidfdFlags::empty()).unwrap();
        pidfd_send_signal(&helper, Signal::STOP).unwrap();
        assert_eq!(group.exited().await.unwrap(), Exit::LeaseOver);
        processes.iter().for_each(Watched::wait);
        assert!(now() >= clock.runs_until());
        pidfd_send_signal(&helper, Signal::CONT).unwrap();
        assert_eq!(template.group().exited().await.unwrap(), Exit::LeaseOver);
        group.end(END).await.unwrap();
        template.group().end(END).await.unwrap();
    })
    .await;
}

/// Where the daemon's part finds the FIFO it reports to, and which isolation it is to use.
const PART: &str = "QUELL_TEST_DAEMON_S_PART";
const PART_ISOLATION: &str = "QUELL_TEST_DAEMON_S_ISOLATION";

#[tokio::test]
#[ignore = "the daemon's part of the test below, which starts it in a process of its own"]
async fn the_daemon_that_is_stopped() {
    let told = std::env::var(PART).expect("started by the test below");
    let tell = |text: String| std::fs::write(&told, text + "\n").unwrap();
    let wanted = std::env::var(PART_ISOLATION).unwrap();
    let found = isolations().into_iter().find(|isolation| format!("{isolation:?}") == wanted);
    within(async {
        let clock = clock();
        let node = Node::leased(found.unwrap(), &clock);
        let mut reports = node.reports();
        let exit = renewing(&clock, async {
            let group = node.python(DEFIANT, &reports).await;
            all_there(&mut reports).await;
            for member in group.members() {
                tell(member.pid.to_string());
            }
            let exit = group.exited().await.unwrap();
            group.end(END).await.unwrap();
            exit
        })
        .await;
        tell(exit.to_string());
    })
    .await;
}

#[tokio::test]
async fn while_the_daemon_is_stopped_its_runtimes_end_and_it_is_told_why_when_it_comes_back() {
    for isolation in isolations() {
        within(async {
            let dir = tempfile::tempdir().unwrap();
            let mut reports = Reports::at(dir.path().join("told"));
            let mut daemon = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "leases::the_daemon_that_is_stopped", "--ignored", "--nocapture"])
                .env(PART, reports.path())
                .env(PART_ISOLATION, format!("{isolation:?}"))
                .spawn()
                .unwrap();
            let pidfd = pidfd_open(Pid::from_child(&daemon), PidfdFlags::empty()).unwrap();
            let mut processes = Vec::new();
            for _ in 0..DEFIANT_PROCESSES {
                processes.push(reports.process().await);
            }
            pidfd_send_signal(&pidfd, Signal::STOP).unwrap();
            processes.iter().for_each(Watched::wait);
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", daemon.id())).unwrap();
            let state = stat.rsplit_once(") ").unwrap().1.chars().next();
            assert_eq!(state, Some('T'), "it is stopped still");
            pidfd_send_signal(&pidfd, Signal::CONT).unwrap();
            let told = reports.line().await;
            assert!(told.starts_with("lease_over"), "{isolation:?}: {told}");
            assert!(daemon.wait().unwrap().success());
        })
        .await;
    }
}
