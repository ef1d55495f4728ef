//! A bell that functions ring, and processes by names that are not used twice.

use std::{
    collections::HashMap,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{fs::PermissionsExt as _, net::SocketAddr},
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    task::JoinHandle,
};

use super::{Reply, TestNode, within};

/// A process that cannot be confused with a later one of the same number.
pub struct Pidfd(std::sync::Arc<std::os::fd::OwnedFd>);

impl Pidfd {
    /// `None` if there is no such process any more.
    pub fn open(pid: u32) -> Option<Self> {
        let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
        let fd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()?;
        Some(Self(std::sync::Arc::new(fd)))
    }

    /// Resolves when the process is gone.
    pub async fn gone(&self) {
        let fd = std::sync::Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || ended(&fd, None)).await.unwrap();
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::pidfd_send_signal(&self.0, signal).unwrap();
    }

    pub fn is_gone(&self) -> bool {
        ended(&self.0, Some(rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 }))
    }
}

/// A pidfd is readable from the end of its process on.
fn ended(pidfd: &std::os::fd::OwnedFd, limit: Option<rustix::event::Timespec>) -> bool {
    let mut fds = [rustix::event::PollFd::new(pidfd, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut fds, limit.as_ref()).unwrap() > 0
}

/// Where functions say that they are at the point the test waits for.
pub struct Bell {
    listener: UnixListener,
    /// Names it; see `functions/probe.py`.
    pub port: u64,
    /// Where it hangs, if that is a place in the file system.
    path: Option<PathBuf>,
}

/// One ring; the line to the code that rang stays open.
pub struct Ring {
    pub facts: Value,
    /// The process that rang, as we see it: the kernel says so, whatever namespace it is in.
    pub pid: u32,
    /// The same by a name that is not reused.
    pub process: Pidfd,
    stream: tokio::io::BufReader<UnixStream>,
}

impl Bell {
    pub async fn hang() -> Self {
        static BELLS: AtomicU64 = AtomicU64::new(0);
        let port = u64::from(std::process::id()) * 1_000 + BELLS.fetch_add(1, Ordering::Relaxed);
        let name = SocketAddr::from_abstract_name(format!("quell-bell-{port}")).unwrap();
        let listener = std::os::unix::net::UnixListener::bind_addr(&name).unwrap();
        listener.set_nonblocking(true).unwrap();
        Self { listener: UnixListener::from_std(listener).unwrap(), port, path: None }
    }

    /// One that is rung from other networks as well: a name without a file is known in one alone. In a folder
    /// that every user may pass through, and that is not an instance's own as `/tmp` is.
    pub async fn hang_in_a_folder() -> Self {
        let bell = Self::hang().await;
        let path = PathBuf::from(format!("/var/tmp/quell-bell-{}", bell.port));
        drop(std::fs::remove_file(&path)); // of a test that was killed, under the same number
        let listener = UnixListener::bind(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
        let port = bell.port;
        Self { listener, path: Some(path), port }
    }

    pub fn path(&self) -> &str {
        self.path.as_deref().and_then(Path::to_str).expect("it hangs in a folder")
    }

    pub async fn ring(&self) -> Ring {
        within("a ring of the bell", async {
            let (stream, _) = self.listener.accept().await.unwrap();
            let mut stream = tokio::io::BufReader::new(stream);
            let mut line = String::new();
            stream.read_line(&mut line).await.unwrap();
            let facts: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("rang with {line:?}"));
            let pid = stream.get_ref().peer_cred().unwrap().pid().unwrap().cast_unsigned();
            let process = Pidfd::open(pid).expect("whoever rang is there");
            Ring { pid, process, facts, stream }
        })
        .await
    }

    /// Everybody who has rung since; whoever was stopped before he could say who he is has not.
    pub async fn rung(&self) -> Vec<Ring> {
        let mut rings = Vec::new();
        loop {
            let accepted = tokio::select! {
                biased;
                accepted = self.listener.accept() => Some(accepted.unwrap()),
                () = std::future::ready(()) => None,
            };
            let Some((stream, _)) = accepted else { return rings };
            let cred = stream.peer_cred().unwrap();
            let mut stream = BufReader::new(stream);
            let mut line = String::new();
            drop(within("a line", stream.read_line(&mut line)).await); // a reset is an end as well
            let process = Pidfd::open(cred.pid().unwrap().cast_unsigned());
            if let (Ok(facts), Some(process)) = (serde_json::from_str(&line), process) {
                rings.push(Ring { pid: cred.pid().unwrap().cast_unsigned(), process, facts, stream });
            }
        }
    }

    /// That nobody has rung since. To be asked once nobody is left who could.
    pub async fn is_silent(&self) -> bool {
        tokio::select! {
            biased;
            _ = self.listener.accept() => false,
            () = std::future::ready(()) => true,
        }
    }

    /// Several rings by their tag.
    pub async fn rings(&self, count: usize) -> HashMap<String, Ring> {
        let mut rings = HashMap::new();
        for _ in 0..count {
            let ring = self.ring().await;
            rings.insert(ring.facts["tag"].as_str().unwrap_or("").to_owned(), ring);
        }
        rings
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            drop(std::fs::remove_file(path)); // gone already is as well
        }
    }
}

impl Ring {
    pub fn request(&self) -> String {
        self.facts["request"].as_str().unwrap().to_owned()
    }

    /// The process that whoever rang had started and named by its own number for it.
    pub fn started(&self) -> Pidfd {
        let named = self.facts["child"].as_u64().unwrap().to_string();
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid)).unwrap();
        let lists = tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("children")).unwrap());
        let children: Vec<u32> = lists
            .flat_map(|list| list.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>())
            .collect();
        let called = |pid: &&u32| {
            // The last of its numbers is the one in the innermost namespace.
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
            numbers.split_whitespace().next_back() == Some(named.as_str())
        };
        let pid = children.iter().find(called).unwrap_or_else(|| panic!("no {named} in {children:?}"));
        Pidfd::open(*pid).expect("what it started is there")
    }

    pub fn child(&self, at: usize) -> String {
        self.facts["children"][at].as_str().unwrap().to_owned()
    }

    /// The line itself.
    pub fn into_stream(self) -> tokio::io::BufReader<UnixStream> {
        self.stream
    }

    /// Lets the code that waits go on.
    pub async fn release(&mut self) {
        self.tell("go").await;
    }

    /// The same, and tells it what to do.
    pub async fn tell(&mut self, word: &str) {
        assert!(self.may_tell(word).await, "whoever rang is gone");
    }

    /// The same to one that may be gone; whether it was there.
    pub async fn may_tell(&mut self, word: &str) -> bool {
        self.stream.get_mut().write_all(word.as_bytes()).await.is_ok()
    }

    /// The next word it says, with an end of line.
    pub async fn word(&mut self) -> String {
        let mut line = String::new();
        within("a word", self.stream.read_line(&mut line)).await.unwrap();
        line.trim_end().to_owned()
    }

    /// The next line it says.
    pub async fn line(&mut self) -> Value {
        let mut line = String::new();
        within("a line", self.stream.read_line(&mut line)).await.unwrap();
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("said {line:?}"))
    }

    /// The same, or null if it is gone instead.
    pub async fn last_or_line(&mut self) -> Value {
        let mut line = String::new();
        drop(within("a line", self.stream.read_line(&mut line)).await); // a reset is an end as well
        serde_json::from_str(&line).unwrap_or_default()
    }

    /// What else it said until its end of the line closed.
    pub async fn last_words(&mut self) -> String {
        let mut words = Vec::new();
        // A reset is an end as well.
        drop(within("the end of a line", self.stream.read_to_end(&mut words)).await);
        String::from_utf8_lossy(&words).into_owned()
    }
}

/// Synchronous requests that wait to be released, all running on the function's instances; by tag.
pub async fn waiting(
    node: &TestNode,
    bell: &Bell,
    function: &str,
    count: usize,
) -> (HashMap<String, JoinHandle<Reply>>, HashMap<String, Ring>) {
    let mut answers = HashMap::new();
    for at in 0..count {
        let tag = format!("{function}{at}");
        let event = json!({ "do": "wait", "bell": bell.path(), "tag": tag });
        answers.insert(tag, node.invoke(function, &event));
    }
    (answers, bell.rings(count).await)
}
