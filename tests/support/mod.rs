//! A node under test: the built binary, its API over HTTP, and a bell that functions ring.
#![allow(dead_code, unreachable_pub, missing_docs, unused_imports)] // each test file uses its part
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)] // a test that cannot go on fails

use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    time::Duration,
};

use base64::Engine as _;
use reqwest::{Method, header::HeaderMap};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Between two looks at something that nothing tells of.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

mod bell;
pub mod http;
pub mod javascript;
pub mod lambda;
pub mod load;
pub mod parts;
mod played;
pub mod postgres;
pub mod pty;
pub mod site;

pub use bell::{Bell, Pidfd, Ring, waiting};
pub use played::{Line, Played};

/// Nothing in these tests takes a tenth of this; what has not come by then will not.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Fails the test instead of hanging it.
pub async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, work).await {
        Ok(done) => done,
        Err(_) => panic!("{what}: nothing after {LIMIT:?}"),
    }
}

/// A running `quell serve`.
pub struct TestNode {
    child: Child,
    data: Option<TempDir>,
    pub dir: PathBuf,
    pub endpoint: String,
    pub token: String,
    http: reqwest::Client,
    /// Lines of stderr after the one that says where it listens.
    log: mpsc::Receiver<String>,
}

/// An answer of the node.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The error body, which must be exactly the API's own shape.
    #[track_caller]
    pub fn error(&self) -> (u16, String, String) {
        let body = self.json();
        let object = body.as_object().unwrap_or_else(|| panic!("no object: {body}"));
        assert_eq!(object.len(), 2, "exactly error_code and error_msg: {body}");
        assert!(!self.header("x-request-id").is_empty(), "every answer has X-Request-Id");
        (self.status, body["error_code"].as_str().unwrap().into(), body["error_msg"].as_str().unwrap().into())
    }
}

impl TestNode {
    /// A node with a data folder of its own.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The same with more options.
    pub async fn start_with(options: &[&str]) -> Self {
        let data = Self::folder();
        let mut node = Self::start_in(data.path(), options).await;
        node.data = Some(data);
        node
    }

    /// A folder that others may pass through: there, runtimes of a node that is root are somebody else.
    pub fn folder() -> tempfile::TempDir {
        let passable = std::fs::Permissions::from_mode(0o711);
        tempfile::Builder::new().permissions(passable).tempdir().unwrap()
    }

    /// A node on whose PATH these folders come first; it runs functions as itself, as these folders may be
    /// where nobody else can read.
    pub async fn start_with_path(folders: &[PathBuf]) -> Self {
        let data = Self::folder();
        let mut node = Self::start_in_with_path(data.path(), folders).await;
        node.data = Some(data);
        node
    }

    /// The same on an existing data folder.
    pub async fn start_in_with_path(dir: &Path, folders: &[PathBuf]) -> Self {
        let inherited = std::env::var_os("PATH").unwrap_or_default();
        let all = folders.iter().cloned().chain(std::env::split_paths(&inherited));
        let mut command = Self::command(dir, &["--runtime-user", "node"]);
        command.env("PATH", std::env::join_paths(all).unwrap());
        Self::begin(command, dir, false).await
    }

    /// A node whose stderr is closed once it listens: every line it logs after that fails.
    pub async fn start_deaf() -> Self {
        let data = Self::folder();
        let mut node = Self::begin(Self::command(data.path(), &[]), data.path(), true).await;
        node.data = Some(data);
        node
    }

    /// A node that finds programs in this folder alone.
    pub async fn start_on_path(bin: &Path) -> Self {
        let data = Self::folder();
        let mut command = Self::command(data.path(), &[]);
        command.env("PATH", bin);
        let mut node = Self::begin(command, data.path(), false).await;
        node.data = Some(data);
        node
    }

    /// A node on an existing data folder.
    pub async fn start_in(dir: &Path, options: &[&str]) -> Self {
        Self::begin(Self::command(dir, options), dir, false).await
    }

    /// A node that is started by this command, on this data folder.
    pub async fn start_by(command: Command, dir: &Path) -> Self {
        Self::begin(command, dir, false).await
    }

    async fn begin(mut command: Command, dir: &Path, deaf: bool) -> Self {
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (lines, log) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if std::env::var_os("QUELL_TEST_LOG").is_some() {
                    eprintln!("node: {line}");
                }
                let last = deaf && line.contains("listening on ");
                if lines.send(line).is_err() || last {
                    return;
                }
            }
        });
        let mut said = Vec::new();
        let endpoint = loop {
            match log.recv_timeout(LIMIT) {
                Ok(line) => match line.split_once("listening on ") {
                    // In a log of JSON the line goes on behind it.
                    Some((_, endpoint)) => break endpoint.split('"').next().unwrap_or_default().to_owned(),
                    None => said.push(line),
                },
                Err(_) => panic!("the node did not start; it said: {said:#?}"),
            }
        };
        let client: Value = serde_json::from_slice(&std::fs::read(dir.join("client.json")).unwrap()).unwrap();
        Self {
            child,
            data: None,
            dir: dir.to_owned(),
            endpoint,
            token: client["token"].as_str().unwrap().to_owned(),
            http: client_trusting(&client).build().unwrap(),
            log,
        }
    }

    pub fn command(dir: &Path, options: &[&str]) -> Command {
        let mut command = Self::quell();
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(dir)
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command
    }

    /// The command line as a client of the node with this data folder.
    pub fn client_command(dir: &Path, args: &[&str]) -> Command {
        let mut command = Self::quell();
        command.args(args).arg("--data").arg(dir);
        command
    }

    fn quell() -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quell"));
        for (name, _) in std::env::vars() {
            if name.starts_with("QUELL_") {
                command.env_remove(name);
            }
        }
        command
    }

    /// Waits for another life in the same process; connections of the last one are not used any more.
    pub fn lives_again(&mut self) {
        self.logs("listening on ");
        let client = std::fs::read(self.dir.join("client.json")).unwrap();
        self.http = client_trusting(&serde_json::from_slice(&client).unwrap()).build().unwrap();
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        self.send_as(Some(&self.token), method, path, headers, body).await
    }

    pub async fn send_as(
        &self,
        token: Option<&str>,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Reply {
        let mut request = self.http.request(method, format!("{}{path}", self.endpoint));
        if let Some(token) = token {
            request = request.header("X-Auth-Token", token);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.body(body.to_vec()).send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Reply { status, headers, body: response.bytes().await.unwrap().to_vec() }
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.send(Method::GET, path, &[], b"").await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        let json = [("Content-Type", "application/json")];
        self.send(Method::POST, path, &json, body.to_string().as_bytes()).await
    }

    /// Deploys a Python function from source. `more` is merged into the create body.
    pub async fn deploy(&self, name: &str, source: &str, more: Value) {
        let mut body = json!({
            "func_name": name,
            "package": "default",
            "runtime": "Python3.10",
            "handler": "index.handler",
            "timeout": 120,
            "memory_size": 128,
            "code_type": "inline",
            "func_code": { "file": base64(source.as_bytes()) },
        });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let reply = self.post("/v2/default/fgs/functions", &body).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
    }

    /// Deploys the probe with N requests an instance and at most `instances` instances.
    pub async fn deploy_probe(&self, name: &str, concurrency: u32, instances: u32, more: Value) {
        let mut body =
            json!({ "strategy_config": { "concurrency": instances, "concurrent_num": concurrency } });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.deploy(name, include_str!("../functions/probe.py"), body).await;
    }

    /// Invokes asynchronously; returns the request id.
    pub async fn invoke_async(&self, function: &str, event: &Value) -> String {
        let path = format!("/v2/default/fgs/functions/{function}/invocations-async");
        let reply = self.post(&path, event).await;
        assert_eq!(reply.status, 202, "{}", reply.text());
        reply.json()["request_id"].as_str().unwrap().to_owned()
    }

    /// Invokes synchronously in a task of its own.
    pub fn invoke(&self, function: &str, event: &Value) -> tokio::task::JoinHandle<Reply> {
        let url = format!("{}/v2/default/fgs/functions/{function}/invocations", self.endpoint);
        let request = self.http.post(url).header("X-Auth-Token", &self.token);
        let request = request.header("Content-Type", "application/json").body(event.to_string());
        tokio::spawn(async move {
            let response = request.send().await.unwrap();
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            Reply { status, headers, body: response.bytes().await.unwrap().to_vec() }
        })
    }

    pub async fn cancel(&self, function: &str, request: &str, mode: Mode) -> Reply {
        let mut body = mode.body();
        body["request_id"] = json!(request);
        within("cancel", self.post(&format!("/v2/default/fgs/functions/{function}/cancel"), &body)).await
    }

    /// A soft cancel whose asker does not wait: answered once it is fenced and recorded.
    pub async fn fence(&self, function: &str, request: &str) -> Reply {
        let path = format!("/v2/default/fgs/functions/{function}/cancel");
        let headers = [("Content-Type", "application/json"), ("Prefer", "respond-async")];
        let body = json!({ "request_id": request }).to_string();
        let reply = within("fence", self.send(Method::POST, &path, &headers, body.as_bytes())).await;
        assert_eq!((reply.status, reply.header("x-quell-stop")), (200, "fenced"), "{reply:?}");
        assert_eq!(reply.header("preference-applied"), "respond-async");
        reply
    }

    pub async fn receipt(&self, cancel: &str) -> Value {
        let reply = self.get(&format!("/quell/v1/receipts/{cancel}")).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()
    }

    /// The row of the async-invocations list: (status, error_code).
    pub async fn listed(&self, function: &str, request: &str) -> (String, i64) {
        let path = format!("/v2/default/fgs/functions/{function}/async-invocations?request_id={request}");
        let list = self.get(&path).await.json();
        let row = &list["invocations"][0];
        (row["status"].as_str().unwrap_or("").to_owned(), row["error_code"].as_i64().unwrap_or(-1))
    }

    /// The same once it is over. Nothing tells a client when that is, so it looks again.
    pub async fn settled(&self, function: &str, request: &str) -> (String, i64) {
        within("its end", async {
            loop {
                let (status, code) = self.listed(function, request).await;
                if !["WAIT", "RUNNING"].contains(&status.as_str()) {
                    return (status, code);
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        })
        .await
    }

    pub async fn view(&self) -> Value {
        self.get("/quell/v1/node").await.json()
    }

    /// The live tree of a request by request id; empty if it is over.
    pub async fn tree(&self, request: &str) -> HashMap<String, Value> {
        let reply = self.get(&format!("/quell/v1/requests/{request}/tree")).await;
        if reply.status == 404 {
            return HashMap::new();
        }
        let rows = reply.json()["requests"].as_array().unwrap().clone();
        rows.into_iter().map(|row| (row["request_id"].as_str().unwrap().to_owned(), row)).collect()
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        #[expect(clippy::disallowed_methods, reason = "our own child, not reaped yet: the pid is its own")]
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    /// SIGKILL, and the exit collected.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until it logs a line with these words. What it logged before that is forgotten.
    pub fn logs(&self, words: &str) {
        while !self
            .log
            .recv_timeout(LIMIT)
            .unwrap_or_else(|_| panic!("never logged {words:?}"))
            .contains(words)
        {}
    }

    /// Waits for the node to end by itself.
    pub async fn ended(&mut self) -> (ExitStatus, Vec<String>) {
        let pidfd = Pidfd::open(self.child.id()).unwrap();
        within("the node's end", pidfd.gone()).await;
        let status = self.child.wait().unwrap();
        (status, self.log.iter().collect())
    }

    /// Ends the node in the orderly way and checks that it left nothing.
    pub async fn stop(mut self) {
        // Two of a kind may come as one.
        self.signal(nix::sys::signal::Signal::SIGINT);
        self.signal(nix::sys::signal::Signal::SIGTERM);
        let (status, log) = self.ended().await;
        assert!(status.success(), "{status}: {log:#?}");
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        // Ended already, or the test failed: then nothing of it may outlive the test.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A client that trusts the certificates that a client.json names, and nobody else.
pub fn client_trusting(client: &Value) -> reqwest::ClientBuilder {
    drop(rustls::crypto::ring::default_provider().install_default()); // Err: there is one
    let pem = client["ca"].as_str().map(|file| std::fs::read(file).unwrap()).unwrap_or_default();
    let trusted = reqwest::Certificate::from_pem_bundle(&pem).unwrap();
    reqwest::Client::builder().no_proxy().timeout(LIMIT).tls_certs_only(trusted)
}

pub fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// A zip file with these executable files.
pub fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
    use std::io::Write as _;
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().unix_permissions(0o755);
    for (name, contents) in files {
        zip.start_file(*name, options).unwrap();
        zip.write_all(contents).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// The four ways to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Plain,
    Recursive,
    Force,
    Both,
}

impl Mode {
    pub const ALL: [Self; 4] = [Self::Plain, Self::Recursive, Self::Force, Self::Both];

    pub fn body(self) -> Value {
        match self {
            Self::Plain => json!({}),
            Self::Recursive => json!({ "type": "recursive" }),
            Self::Force => json!({ "type": "force" }),
            Self::Both => json!({ "recursive": true, "force": true }),
        }
    }

    pub fn kills(self) -> bool {
        matches!(self, Self::Force | Self::Both)
    }

    pub fn is_recursive(self) -> bool {
        matches!(self, Self::Recursive | Self::Both)
    }
}
