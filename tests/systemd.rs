//! A node below a service manager: sockets that are handed over, what the manager is told, restarts that refuse
//! nobody. The test plays systemd.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

#[path = "support/mod.rs"]
mod support;

use std::{
    fs::File,
    net::{SocketAddr, TcpListener},
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, RawFd},
    path::Path,
    process::{Command, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use nix::{
    fcntl::{FcntlArg, fcntl},
    sys::signal::Signal,
};
use serde_json::{Value, json};
use support::{LIMIT, TestNode, within};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UnixDatagram},
    task::JoinSet,
    time::timeout,
};

/// Between two looks at something that nothing tells of.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// A node that is fed looks at its core three times in this.
const WATCHDOG: Duration = Duration::from_millis(900);

const OUT_OF_THE_WAY: RawFd = 64;

/// A service manager with one socket of a node.
struct Played {
    dir: TempDir,
    data: TempDir,
    socket: TcpListener,
    address: SocketAddr,
    /// What the node tells.
    ear: UnixDatagram,
}

impl Played {
    fn new() -> Self {
        let (dir, data) = (tempfile::tempdir().unwrap(), TestNode::folder());
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let ear = UnixDatagram::bind(dir.path().join("notify")).unwrap();
        Self { dir, data, socket, address, ear }
    }

    /// Starts a node, and waits until it says that it is ready.
    async fn start(&self, variables: &[(&str, &str)]) -> TestNode {
        let mut command = handing(&[self.socket.as_fd()], self.data.path());
        command.env("NOTIFY_SOCKET", self.dir.path().join("notify"));
        command.envs(variables.iter().copied());
        let node = TestNode::start_by(command, self.data.path()).await;
        let news = self.news().await;
        assert_eq!(news, format!("READY=1\nSTATUS=listening on http://{}", self.address));
        node
    }

    /// What the node tells next.
    async fn news(&self) -> String {
        let mut buffer = [0; 512];
        let length = within("what the node tells", self.ear.recv(&mut buffer)).await.unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }
}

/// A node that is handed these descriptors.
fn handing(descriptors: &[BorrowedFd<'_>], data: &Path) -> Command {
    let mut script = "export LISTEN_PID=$$ WATCHDOG_PID=$$; exec \"$@\"".to_owned();
    for (to, descriptor) in (3..).zip(descriptors) {
        // Copies that children inherit, out of the way of each other's redirection.
        let from = fcntl(descriptor, FcntlArg::F_DUPFD(OUT_OF_THE_WAY)).unwrap();
        script += &format!(" {to}<&{from} {from}<&-");
    }
    let node = TestNode::command(data, &[]);
    let mut command = Command::new("bash");
    command.args(["-c", &script, "bash"]).arg(node.get_program()).args(node.get_args());
    command.env("LISTEN_FDS", descriptors.len().to_string());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// One request on a connection of its own: the status of its answer.
async fn asked(address: SocketAddr) -> std::io::Result<u16> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET /quell/v1/health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let status = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    status.ok_or_else(|| std::io::Error::other(format!("no answer: {answer:?}")))
}

#[tokio::test]
async fn a_node_serves_on_the_socket_it_is_handed_and_tells_what_it_does() {
    let manager = Played::new();
    let mut node = manager.start(&[]).await;
    assert_eq!(node.endpoint, format!("http://{}", manager.address), "and not where --listen says");
    assert_eq!(node.get("/quell/v1/node").await.status, 200);
    let client = std::fs::read(manager.data.path().join("client.json")).unwrap();
    let client: Value = serde_json::from_slice(&client).unwrap();
    assert_eq!(client["endpoint"], json!(node.endpoint));
    // Without a manager this signal would end it.
    node.signal(Signal::SIGHUP);
    assert_eq!(manager.news().await, "RELOADING=1\nSTATUS=reading files again");
    assert_eq!(manager.news().await.lines().next(), Some("READY=1"));
    node.signal(Signal::SIGTERM);
    let news = manager.news().await;
    let lines: Vec<&str> = news.lines().collect();
    // --drain 30, --kill-timeout 10, and the rest.
    assert_eq!(lines, ["STOPPING=1", "STATUS=draining, 55 s at most", "EXTEND_TIMEOUT_USEC=55000000"]);
    let (status, log) = node.ended().await;
    assert!(status.success(), "{log:?}");
}

/// Clients that ask again and again, each time on a new connection, until they are told to stop.
struct Clients {
    tasks: JoinSet<()>,
    stop: Arc<AtomicBool>,
    /// Answers of a node that serves, and of one that drains.
    served: Arc<AtomicU32>,
}

impl Clients {
    fn begin(address: SocketAddr, count: u32) -> Self {
        let (stop, served) = (Arc::<AtomicBool>::default(), Arc::<AtomicU32>::default());
        let mut tasks = JoinSet::new();
        for _ in 0..count {
            let (stop, served) = (Arc::clone(&stop), Arc::clone(&served));
            tasks.spawn(async move {
                while !stop.load(SeqCst) {
                    match within("an answer", asked(address)).await.expect("nobody is refused or cut off") {
                        200 => drop(served.fetch_add(1, SeqCst)),
                        status => assert_eq!(status, 503, "draining"),
                    }
                }
            });
        }
        Self { tasks, stop, served }
    }

    /// Waits for so many more answers of a node that serves.
    async fn more(&mut self, answers: u32) {
        let wanted = self.served.load(SeqCst) + answers;
        within("answers", async {
            while self.served.load(SeqCst) < wanted {
                if let Some(ended) = self.tasks.try_join_next() {
                    ended.unwrap();
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        })
        .await;
    }

    async fn end(mut self) {
        self.stop.store(true, SeqCst);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
    }
}

#[tokio::test]
async fn restarts_refuse_no_connection_and_cut_off_no_request() {
    let manager = Played::new();
    let mut node = manager.start(&[]).await;
    let mut clients = Clients::begin(manager.address, 8);
    for _ in 0..5 {
        clients.more(50).await;
        node.signal(Signal::SIGTERM);
        assert!(manager.news().await.starts_with("STOPPING=1"));
        let (status, log) = node.ended().await;
        assert!(status.success(), "{log:?}");
        // Nobody is there; who comes now waits for the next life.
        let between = tokio::spawn(asked(manager.address));
        node = manager.start(&[]).await;
        assert_eq!(within("an answer", between).await.unwrap().unwrap(), 200);
    }
    clients.more(50).await;
    clients.end().await;
    node.stop().await;
}

#[tokio::test]
async fn the_watchdog_hears_of_a_node_while_it_works() {
    let manager = Played::new();
    let limit = WATCHDOG.as_micros().to_string();
    let node = manager.start(&[("WATCHDOG_USEC", &limit)]).await;
    for _ in 0..3 {
        assert_eq!(manager.news().await, "WATCHDOG=1");
    }
    node.signal(Signal::SIGSTOP);
    within("it to be stopped", async {
        let stat = format!("/proc/{}/stat", node.pid());
        while !std::fs::read_to_string(&stat).unwrap().contains(") T ") {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    })
    .await;
    let mut buffer = [0; 512];
    while manager.ear.try_recv(&mut buffer).is_ok() {} // what it had said before
    let word = timeout(WATCHDOG, manager.news()).await;
    assert!(word.is_err(), "a manager would restart it now: {word:?}");
    node.signal(Signal::SIGCONT);
    assert_eq!(manager.news().await, "WATCHDOG=1");
    node.stop().await;
}

#[tokio::test]
async fn what_is_handed_to_a_node_is_not_handed_on_to_functions() {
    let manager = Played::new();
    let node = manager.start(&[]).await;
    let source = "import os\n\
        def handler(event, context):\n    \
            fds = [os.readlink(f'/proc/self/fd/{fd}') for fd in os.listdir('/proc/self/fd') if os.path.islink(f'/proc/self/fd/{fd}')]\n    \
            return {'names': sorted(os.environ), 'sockets': [fd for fd in fds if fd.startswith('socket:')]}\n";
    node.deploy("f", source, json!({})).await;
    let reply = within("an answer", node.invoke("f", &json!({}))).await.unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text());
    let seen = reply.json();
    let names: Vec<&str> = seen["names"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(names.contains(&"RUNTIME_API_ADDR"), "{names:?}");
    for name in ["LISTEN_", "NOTIFY_", "WATCHDOG_"] {
        assert!(!names.iter().any(|known| known.starts_with(name)), "{names:?}");
    }
    let ours = std::fs::read_link(format!("/proc/self/fd/{}", manager.socket.as_raw_fd())).unwrap();
    let sockets = seen["sockets"].as_array().unwrap();
    assert!(!sockets.contains(&json!(ours.to_str().unwrap())), "{sockets:?}");
    node.stop().await;
}

/// What a node says that cannot start with these descriptors.
fn refused(descriptors: &[BorrowedFd<'_>], variables: &[(&str, &str)]) -> String {
    let data = tempfile::tempdir().unwrap();
    let folder = data.path().join("data");
    let mut command = handing(descriptors, &folder);
    command.envs(variables.iter().copied());
    let Output { status, stderr, .. } = command.output().unwrap();
    assert_eq!(status.code(), Some(1));
    assert!(!folder.exists(), "it made nothing before it looked");
    String::from_utf8(stderr).unwrap()
}

#[test]
fn what_is_handed_over_and_cannot_be_listened_on_is_refused_with_the_reason() {
    let bind = || TcpListener::bind("127.0.0.1:0").unwrap();
    let (one, two) = (bind(), bind());
    let words = refused(&[one.as_fd(), two.as_fd()], &[]);
    assert!(words.contains("2 sockets were handed over") && words.contains("one address"), "{words}");
    let file = File::open("/etc/hostname").unwrap();
    let words = refused(&[file.as_fd()], &[]);
    assert!(words.contains("descriptor 3") && words.contains("is /etc/hostname"), "{words}");
    let dir = tempfile::tempdir().unwrap();
    let unix = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
    let words = refused(&[unix.as_fd()], &[]);
    assert!(words.contains("needs a port, not a path"), "{words}");
    let words = refused(&[one.as_fd()], &[("LISTEN_FDS", "some")]);
    assert!(words.contains("LISTEN_FDS is \"some\""), "{words}");
}

#[tokio::test]
async fn sockets_of_another_process_are_left_alone() {
    let data = TestNode::folder();
    let mut command = TestNode::command(data.path(), &[]);
    command.env("LISTEN_PID", "1").env("LISTEN_FDS", "1");
    let node = TestNode::start_by(command, data.path()).await;
    assert_eq!(node.get("/quell/v1/node").await.status, 200);
    assert!(timeout(LIMIT, node.stop()).await.is_ok());
}
