//! The ordinary path: a warm synchronous invocation, beside a bare handler that hands the body to the
//! poll of the same runtime and returns its answer.

use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use axum::{
    Router,
    body::Bytes,
    extract::{self, State},
    http::{HeaderMap, StatusCode},
    routing::{get, post},
};
use reqwest::Client;
use serde_json::json;
use tokio::sync::{Mutex, mpsc, oneshot};

use super::measure::{Effort, Figure, Sample, Scenario, Title, figure};
use crate::node::BenchNode;

const ECHOES: &str = "def handler(event, context):\n    return event\n";
/// Requests that wait for the runtime's poll; the clients are far fewer.
const WAITING: usize = 1_024;

type Waiting = (Bytes, oneshot::Sender<Bytes>);

/// The pass-through: no engine, no store, no checks.
struct PassThrough {
    to_runtime: mpsc::Sender<Waiting>,
    from_clients: Mutex<mpsc::Receiver<Waiting>>,
    answers: Mutex<HashMap<String, oneshot::Sender<Bytes>>>,
    next: AtomicU64,
}

async fn invoke(State(pass): State<Arc<PassThrough>>, body: Bytes) -> Result<Bytes, StatusCode> {
    let (answer, told) = oneshot::channel();
    pass.to_runtime.send((body, answer)).await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    told.await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)
}

async fn poll(State(pass): State<Arc<PassThrough>>) -> Result<(HeaderMap, Bytes), StatusCode> {
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

/// `quell-bench pass-through`: serves until it is killed.
pub(crate) async fn serve_pass_through() -> anyhow::Result<()> {
    let (to_runtime, from_clients) = mpsc::channel(WAITING);
    let pass = PassThrough {
        to_runtime,
        from_clients: Mutex::new(from_clients),
        answers: Mutex::default(),
        next: AtomicU64::new(1),
    };
    let router = Router::new()
        .route("/invoke", post(invoke))
        .route("/v1/runtime/invocation/request", get(poll))
        .route("/v1/runtime/invocation/response/{id}", post(respond))
        .route("/v1/runtime/invocation/cancellation/next", get(std::future::pending::<StatusCode>))
        .with_state(Arc::new(pass));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    Ok(axum::serve(listener, router).await?)
}

/// The pass-through and a runtime of the image that the node has written out.
struct Bare {
    server: Child,
    runtime: Child,
    url: String,
    _code: tempfile::TempDir,
}

impl Drop for Bare {
    fn drop(&mut self) {
        for child in [&mut self.runtime, &mut self.server] {
            // They have nothing to save.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

fn bootstrap(data: &Path) -> anyhow::Result<PathBuf> {
    let versions = std::fs::read_dir(data.join("images"))?;
    let paths = versions.map_while(Result::ok).map(|version| version.path().join("python/bootstrap.py"));
    paths.into_iter().find(|path| path.is_file()).context("the node has written no Python image")
}

impl Bare {
    fn start(data: &Path) -> anyhow::Result<Self> {
        let code = tempfile::tempdir()?;
        std::fs::write(code.path().join("index.py"), ECHOES)?;
        let server =
            Command::new(std::env::current_exe()?).arg("pass-through").stdout(Stdio::piped()).spawn();
        let mut server = server?;
        let mut address = String::new();
        BufReader::new(server.stdout.take().context("no stdout")?).read_line(&mut address)?;
        let address = address.trim();
        let runtime = Command::new("python3")
            .arg("-u")
            .arg(bootstrap(data)?)
            .env("RUNTIME_API_ADDR", address)
            .env("RUNTIME_CODE_ROOT", code.path())
            .envs([
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
            ])
            .stdin(Stdio::null())
            .spawn()?;
        Ok(Self { server, runtime, url: format!("http://{address}/invoke"), _code: code })
    }
}

struct Warm<'a> {
    node: &'a BenchNode,
    bare: &'a Bare,
    http: Client,
}

impl Warm<'_> {
    async fn post(&self, url: &str) -> anyhow::Result<Duration> {
        let start = Instant::now();
        let request = self.http.post(url).header("X-Auth-Token", &self.node.token);
        let reply = request.json(&json!({ "n": 1 })).send().await?;
        ensure!(reply.status() == 200, "{}", reply.status());
        let body = reply.bytes().await?;
        let took = start.elapsed();
        ensure!(serde_json::from_slice::<serde_json::Value>(&body)?["n"] == 1, "an answer of another");
        Ok(took)
    }
}

impl Scenario for Warm<'_> {
    async fn floor(&mut self) -> anyhow::Result<Duration> {
        self.post(&self.bare.url).await
    }

    async fn ours(&mut self) -> anyhow::Result<Sample> {
        let url = format!("{}/v2/default/fgs/functions/echo/invocations", self.node.endpoint);
        Ok(self.post(&url).await?.into())
    }
}

pub(crate) async fn measure(effort: Effort, figures: &mut Vec<Figure>) -> anyhow::Result<()> {
    let node = BenchNode::start()?;
    node.deploy("echo", ECHOES, json!({ "strategy_config": { "concurrency": 1, "concurrent_num": 1 } }))
        .await?;
    let bare = Bare::start(node.data())?;
    let mut warm = Warm { node: &node, bare: &bare, http: Client::builder().no_proxy().build()? };
    let title = Title {
        id: "warm".to_owned(),
        what: "a warm synchronous invocation, Python".to_owned(),
        floor: "a bare pass-through to the same runtime".to_owned(),
        target: Some(1.25),
        target_p99: None,
    };
    let many = Effort { samples: effort.samples * 10, ..effort };
    figures.push(figure(title, many, &mut warm).await?);
    Ok(())
}
