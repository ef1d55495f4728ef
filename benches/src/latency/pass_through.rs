//! The least that a node could be for a runtime: a server that hands a body to its poll and returns its
//! answer. With it, a runtime of an image stands as it stands on a node, without one.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context as _, ensure};
use axum::{
    Router,
    body::Bytes,
    extract::{self, State},
    http::{HeaderMap, StatusCode},
    routing::{get, post},
};
use tokio::sync::{Mutex, mpsc, oneshot, watch};

use crate::own::{self, Own};

/// Requests that wait for the runtime's poll; the clients are far fewer.
const WAITING: usize = 1_024;

type Waiting = (Bytes, oneshot::Sender<Bytes>);

/// The pass-through: no engine, no store, no checks.
struct PassThrough {
    to_runtime: mpsc::Sender<Waiting>,
    from_clients: Mutex<mpsc::Receiver<Waiting>>,
    answers: Mutex<HashMap<String, oneshot::Sender<Bytes>>>,
    next: AtomicU64,
    /// Polls for work that came so far.
    polls: watch::Sender<u64>,
}

async fn invoke(State(pass): State<Arc<PassThrough>>, body: Bytes) -> Result<Bytes, StatusCode> {
    let (answer, told) = oneshot::channel();
    pass.to_runtime.send((body, answer)).await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    told.await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)
}

async fn poll(State(pass): State<Arc<PassThrough>>) -> Result<(HeaderMap, Bytes), StatusCode> {
    pass.polls.send_modify(|polls| *polls += 1);
    let taken = pass.from_clients.lock().await.recv().await;
    let (body, answer) = taken.ok_or(StatusCode::SERVICE_UNAVAILABLE)?;
    let id = format!("00000000-0000-4000-8000-{:012x}", pass.next.fetch_add(1, Ordering::Relaxed));
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("x-cff-request-id", id.clone()),
        ("x-quell-invocation-id", format!("{id}-1")),
        ("x-cff-auth-token", "t".to_owned()),
        ("x-quell-deadline-ms", "4102444800000".to_owned()),
        ("x-quell-function-urn", "urn:fss:local:default:function:default:f".to_owned()),
        ("content-type", "application/json".to_owned()),
    ] {
        headers.insert(name, value.parse().map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?);
    }
    pass.answers.lock().await.insert(id, answer);
    Ok((headers, body))
}

async fn respond(
    State(pass): State<Arc<PassThrough>>,
    extract::Path(id): extract::Path<String>,
    body: Bytes,
) -> StatusCode {
    if let Some(answer) = pass.answers.lock().await.remove(&id) {
        drop(answer.send(body)); // its client may be gone
    }
    StatusCode::ACCEPTED
}

/// Answered once so many polls have come.
async fn polls(
    State(pass): State<Arc<PassThrough>>,
    extract::Path(count): extract::Path<u64>,
) -> Result<(), StatusCode> {
    let waited = pass.polls.subscribe().wait_for(|polls| *polls >= count).await.map(drop);
    waited.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)
}

/// `quell-bench pass-through`: serves until it is killed.
pub(crate) async fn serve_pass_through() -> anyhow::Result<()> {
    let (to_runtime, from_clients) = mpsc::channel(WAITING);
    let pass = PassThrough {
        to_runtime,
        from_clients: Mutex::new(from_clients),
        answers: Mutex::default(),
        next: AtomicU64::new(1),
        polls: watch::Sender::new(0),
    };
    let router = Router::new()
        .route("/invoke", post(invoke))
        .route("/polls/{count}", get(polls))
        .route("/v1/runtime/invocation/request", get(poll))
        .route("/v1/runtime/invocation/response/{id}", post(respond))
        .route("/v1/runtime/invocation/cancellation/next", get(std::future::pending::<StatusCode>))
        .with_state(Arc::new(pass));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    tokio::select! {
        served = axum::serve(listener, router) => Ok(served?),
        _ = own::alone() => Ok(()),
    }
}

/// A pass-through that runs.
pub(crate) struct Server {
    _server: Own,
    address: String,
    /// Runtimes that were started on it.
    started: u64,
}

/// An image as a node has written it out, and a function for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Image {
    /// Its program.
    pub(crate) program: &'static str,
    /// Its first file, below the images.
    pub(crate) bootstrap: &'static str,
    /// The function's file and its text.
    pub(crate) code: (&'static str, &'static str),
}

fn bootstrap(data: &Path, file: &str) -> anyhow::Result<PathBuf> {
    let versions = std::fs::read_dir(data.join("images"))?;
    let mut paths = versions.map_while(Result::ok).map(|version| version.path().join(file));
    paths.find(|path| path.is_file()).with_context(|| format!("the node has written no {file}"))
}

impl Server {
    pub(crate) fn start() -> anyhow::Result<Self> {
        let mut server = Own::start(["pass-through"])?;
        Ok(Self { address: server.line()?, _server: server, started: 0 })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/invoke", self.address)
    }

    /// Starts a runtime of an image that the node with this data folder has; returns once it asks for work.
    pub(crate) async fn runtime(&mut self, data: &Path, image: Image) -> anyhow::Result<Runtime> {
        let code = tempfile::tempdir()?;
        std::fs::write(code.path().join(image.code.0), image.code.1)?;
        let child = Command::new(image.program)
            .arg(bootstrap(data, image.bootstrap)?)
            .env("RUNTIME_API_ADDR", &self.address)
            .env("RUNTIME_CODE_ROOT", code.path())
            .envs(ENVIRONMENT)
            .stdin(Stdio::null())
            .spawn()?;
        let runtime = Runtime { child, _code: code };
        self.started += 1;
        let polls = format!("http://{}/polls/{}", self.address, self.started);
        let reply = reqwest::get(polls).await?;
        ensure!(reply.status() == 200, "{}: {}", image.program, reply.status());
        Ok(runtime)
    }
}

/// What a node tells a runtime.
const ENVIRONMENT: [(&str, &str); 13] = [
    ("RUNTIME_HANDLER", "index.handler"),
    ("RUNTIME_PROJECT_ID", "default"),
    ("RUNTIME_PACKAGE", "default"),
    ("RUNTIME_FUNC_NAME", "f"),
    ("RUNTIME_FUNC_VERSION", "latest"),
    ("RUNTIME_TIMEOUT", "60"),
    ("RUNTIME_USERDATA", "{}"),
    ("RUNTIME_CPU", "300"),
    ("RUNTIME_MEMORY", "128"),
    ("QUELL_CONCURRENCY", "1"),
    ("QUELL_API_ENDPOINT", "http://127.0.0.1:1"),
    ("QUELL_FUNCTION_URN", "urn:fss:local:default:function:default:f"),
    ("QUELL_INSTANCE_ID", "bare"),
];

/// A runtime without a node.
pub(crate) struct Runtime {
    pub(crate) child: Child,
    _code: tempfile::TempDir,
}

impl Drop for Runtime {
    fn drop(&mut self) {
        // Ended already, or not needed any more.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
