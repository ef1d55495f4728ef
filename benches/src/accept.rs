//! How many asynchronous requests a node accepts, beside a bare HTTP handler that commits one row of the
//! same store: the same clients, the same disk, in turn.

use std::{
    ffi::OsStr,
    path::Path,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use anyhow::ensure;
use axum::{Router, body::Bytes, extract::State, http::StatusCode, routing::post};
use cancel::RequestId;
use reqwest::Client;
use serde_json::json;
use store::{Embedded, FunctionKey, LATEST, Labels, Lineage, NewInvocation, Placement, Store};

use crate::{
    node::BenchNode,
    own::{self, Own},
};

/// Clients at once, and one alone.
pub(crate) const CLIENTS: [usize; 2] = [64, 1];
/// Rounds, each of both servers.
const ROUNDS: usize = 5;
pub(crate) const SOURCE: &str = "import time\ndef handler(event, context):\n    time.sleep(600)\n";

/// The bare handler, in a process of its own as the node is.
pub(crate) async fn serve_floor(dir: &Path) -> anyhow::Result<()> {
    let store: Arc<dyn Store> = Arc::new(Embedded::open(dir)?);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let empty = post(async |_: Bytes| "null");
    let router = Router::new().route("/empty", empty).route("/accept", post(commit)).with_state(store);
    tokio::select! {
        served = axum::serve(listener, router) => Ok(served?),
        _ = own::alone() => Ok(()),
    }
}

/// As the node has it when it accepts.
static FUNCTION: LazyLock<Arc<FunctionKey>> = LazyLock::new(|| {
    Arc::new(FunctionKey {
        project: "p".into(),
        package: "default".into(),
        name: "f".into(),
        version: LATEST.into(),
    })
});

/// A new request of that function.
pub(crate) fn row(payload: Bytes) -> NewInvocation {
    NewInvocation {
        // As the node's: random ids cost the store's index more than counted ones.
        request: RequestId(uuid::Uuid::new_v4().as_u128()),
        function: Arc::clone(&FUNCTION),
        alias: None,
        parent: None,
        payload,
        created_ms: 1,
        hops: 0,
        labels: Labels::default(),
        lineage: Lineage::default(),
        placement: Placement::Here,
    }
}

async fn commit(State(store): State<Arc<dyn Store>>, payload: Bytes) -> StatusCode {
    match store.accept(row(payload)).await {
        Ok(()) => StatusCode::ACCEPTED,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

pub(crate) struct Floor {
    _server: Own,
    base: String,
    _dir: tempfile::TempDir,
}

impl Floor {
    pub(crate) fn start() -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let mut server = Own::start([OsStr::new("floor-server"), dir.path().as_os_str()])?;
        Ok(Self { base: format!("http://{}", server.line()?), _server: server, _dir: dir })
    }

    /// Where it is; a path follows.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }
}

/// Accepts per second.
pub(crate) async fn rate(
    http: &Client,
    url: &str,
    token: &str,
    clients: usize,
    count: usize,
) -> anyhow::Result<f64> {
    let left = Arc::new(AtomicUsize::new(count));
    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..clients {
        let (http, left) = (http.clone(), Arc::clone(&left));
        let (url, token) = (url.to_owned(), token.to_owned());
        tasks.spawn(async move {
            let take = || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            while take().is_ok() {
                let request = http.post(&url).header("X-Auth-Token", &token).json(&json!({ "n": 1 }));
                let reply = request.send().await?;
                ensure!(reply.status() == 202, "{}: {}", reply.status(), reply.text().await?);
                drop(reply.bytes().await?);
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

pub(crate) async fn measure(count: usize) -> anyhow::Result<()> {
    let (node, floor) = (BenchNode::start()?, Floor::start()?);
    // Its one instance is busy: what is measured is the acceptance.
    node.deploy("f", SOURCE, json!({ "strategy_config": { "concurrency": 1, "concurrent_num": 1 } })).await?;
    let url = format!("{}/v2/default/fgs/functions/f/invocations-async", node.endpoint);
    let bare_url = format!("{}/accept", floor.base());
    for clients in CLIENTS {
        let each = count * if clients == 1 { 3 } else { 20 };
        let (mut bare, mut node_rates) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            bare.push(rate(&node.http, &bare_url, "", clients, each).await?);
            node_rates.push(rate(&node.http, &url, &node.token, clients, each).await?);
        }
        let (bare, rates) = (median(bare), median(node_rates));
        println!(
            "accepted a second, {clients:>2} clients: {rates:>8.0}; a bare handler with the same store: {bare:>8.0}; \
             ratio {:.2}",
            rates / bare
        );
    }
    Ok(())
}
