//! `quell demo`: a node of its own in a scratch folder, functions three levels deep, a recursive
//! cancel, a force cancel with co-tenants, and a count of what is left: nothing, or a non-zero exit.

use std::{collections::BTreeSet, fs, process::ExitCode, time::Duration};

use anyhow::{Context as _, bail, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use supervisor::TreeView;
use tokio::task::JoinSet;

use crate::{
    client::{Client, Reply},
    deploy, images, output,
    serve::{self, Running},
    settings::NodeSettings,
    signals::EndSignals,
    verbs,
};

/// The tree is asked for this often while it grows; only the picture depends on it, no claim does.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A machine on which the demo's processes have not started after this is not going to start them.
const PATIENCE: Duration = Duration::from_secs(60);
/// Requests of the fan-out below its root: 2 at each of 3 levels.
const WIDTH: u32 = 2;
const DEPTH: u32 = 3;
/// Requests on one instance in the second act.
const SHARED: usize = 4;

/// A process by number and start time: the pair is never used twice.
type ProcessId = (u32, u64);

/// Runs the demo to its end; Ctrl-C ends the node, too, and leaves nothing behind.
pub(crate) async fn demo() -> anyhow::Result<ExitCode> {
    let mut signals = EndSignals::listen()?;
    let scratch = tempfile::tempdir().context("no scratch folder")?;
    let running = serve::start(&NodeSettings {
        data: scratch.path().join("data"),
        listen: ([127, 0, 0, 1], 0).into(),
        project: "demo".to_owned(),
        drain: Duration::from_secs(5),
        max_instances: 128,
        keep_days: 1,
        tmp_mib: 64,
        function_rate_limit: 0,
        refusal_limit: 0,
        ..NodeSettings::default()
    })
    .await?;
    output::line(format_args!("A node runs at http://{}, its data in a scratch folder.", running.address));
    for layer in running.containment.layers() {
        output::line(format_args!("  containment: {layer}"));
    }
    let mut seen = BTreeSet::new();
    let told = tokio::select! {
        told = acts(&running, scratch.path(), &mut seen) => told,
        () = signals.next() => Err(anyhow::anyhow!("interrupted")),
    };
    if told.is_err() {
        // Cut short: what is there now is what must be gone at the end.
        let client = Client::new(running.client.clone())?;
        if let Err(error) = remember_processes(&client, &mut seen).await {
            output::note(format_args!("quell: {error:#}"));
        }
    }
    let unkillable = running.stop(Duration::ZERO, Some(&mut signals)).await?;
    ensure!(unkillable == 0, "{unkillable} instances could not be killed");
    let left: Vec<ProcessId> = living(&seen).copied().collect();
    output::line(format_args!(
        "\nThe node has ended. Processes of functions seen during the demo: {}; left: {}.",
        seen.len(),
        left.len()
    ));
    told?;
    ensure!(left.is_empty(), "processes left behind: {left:?}");
    Ok(ExitCode::SUCCESS)
}

async fn acts(
    running: &Running,
    scratch: &std::path::Path,
    seen: &mut BTreeSet<ProcessId>,
) -> anyhow::Result<()> {
    let client = Client::new(running.client.clone())?;
    output::line("\nDeploying the example functions:");
    for folder in images::write_examples(&scratch.join("examples"))? {
        output::line(format_args!("  {}", deploy::deploy_folder(&client, &folder).await?));
    }
    recursive(&client, seen).await?;
    force(&client, seen).await
}

/// Act one: a tree three levels deep, stopped as a whole.
async fn recursive(client: &Client, seen: &mut BTreeSet<ProcessId>) -> anyhow::Result<()> {
    output::line(
        "\n1. `fanout` invokes itself three levels deep, some of it asynchronously. Its leaves sleep",
    );
    output::line("   in Python, in a `sleep` process, and in a `sleep` process that called setsid.\n");
    let event = json!({ "depth": DEPTH, "width": WIDTH, "sleep_s": 300 });
    let reply =
        client.json(Method::POST, &client.function("fanout", "/invocations-async"), Some(&event)).await?;
    let root = reply.get("request_id").and_then(Value::as_str).context("no request id")?.to_owned();
    let tree = grown(client, &root).await?;
    verbs::show_tree(&tree);
    remember_processes(client, seen).await?;
    output::line("\n   quell cancel --recursive:\n");
    let reply = cancel(client, "fanout", &root, "recursive").await?;
    let id = reply.header("X-Quell-Cancel-Id").context("no cancel id")?;
    let receipt = verbs::fetch_receipt(client, id).await?;
    verbs::show_receipt(&receipt);
    ensure!(receipt.result == "stopped", "the receipt says {}", receipt.result);
    ensure!(
        receipt.requests.len() >= tree.requests.len(),
        "the tree had {} requests, the receipt names {}",
        tree.requests.len(),
        receipt.requests.len()
    );
    let gone = client.send(Method::GET, &format!("/quell/v1/requests/{root}/tree"), &[], None).await?;
    ensure!(gone.status == 404, "the tree is still there");
    only_warm_runtimes_live(client, seen).await
}

/// After a soft stop: of the processes seen, only main processes of runtimes are alive, ready for more.
async fn only_warm_runtimes_live(client: &Client, seen: &BTreeSet<ProcessId>) -> anyhow::Result<()> {
    let view = verbs::fetch_node(client).await?;
    let runtimes: BTreeSet<u32> = view.instances.iter().filter_map(|instance| instance.pid).collect();
    let living: Vec<u32> = living(seen).map(|id| id.0).collect();
    let strays: Vec<&u32> = living.iter().filter(|pid| !runtimes.contains(pid)).collect();
    output::line(format_args!(
        "\n   Alive of those {} processes: {} runtimes, warm and idle; {} of what requests had started.",
        seen.len(),
        living.len() - strays.len(),
        strays.len()
    ));
    ensure!(strays.is_empty(), "processes of stopped requests are alive: {strays:?}");
    Ok(())
}

fn living(seen: &BTreeSet<ProcessId>) -> impl Iterator<Item = &ProcessId> {
    seen.iter().filter(|id| start_time(id.0) == Some(id.1))
}

/// Waits until the whole tree is there and every leaf runs.
async fn grown(client: &Client, root: &str) -> anyhow::Result<TreeView> {
    let whole: u32 = (0..=DEPTH).map(|level| WIDTH.pow(level)).sum();
    let mut look = tokio::time::interval(LOOK_EVERY);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        look.tick().await;
        let tree = verbs::fetch_tree(client, root).await?;
        let running = tree.requests.iter().filter(|row| row.state == "running").count();
        if running >= whole as usize {
            return Ok(tree);
        }
        if tokio::time::Instant::now() > deadline {
            verbs::show_tree(&tree);
            bail!("only {running} of {whole} requests run after {} s", PATIENCE.as_secs());
        }
    }
}

/// Act two: one of four requests on one instance is killed by force.
async fn force(client: &Client, seen: &mut BTreeSet<ProcessId>) -> anyhow::Result<()> {
    output::line(format_args!(
        "\n2. `shared` serves {SHARED} requests in one runtime. One of them is stopped by force:"
    ));
    output::line("   its runtime dies, and the other three end with 4208, as the API says.\n");
    let path = client.function("shared", "/invocations");
    let mut callers: JoinSet<anyhow::Result<Reply>> = JoinSet::new();
    for _ in 0..SHARED {
        let (client, path) = (client.clone(), path.clone());
        let event = json!({ "sleep_s": 300 }).to_string().into_bytes();
        callers.spawn(async move { Ok(client.send(Method::POST, &path, &[], Some(event)).await?) });
    }
    let target = on_one_instance(client).await?;
    remember_processes(client, seen).await?;
    let reply = cancel(client, "shared", &target, "force").await?;
    let id = reply.header("X-Quell-Cancel-Id").context("no cancel id")?;
    verbs::show_receipt(&verbs::fetch_receipt(client, id).await?);
    output::line("\n   What the four synchronous callers got:");
    while let Some(caller) = callers.join_next().await {
        let reply = caller??;
        let body = String::from_utf8_lossy(&reply.body).into_owned();
        output::line(format_args!("   HTTP {} {body}", reply.status));
        ensure!(reply.status == 500 && body.contains("FSS.4208"), "a caller did not get 4208");
    }
    Ok(())
}

/// Waits until all requests of `shared` run, and names the first.
async fn on_one_instance(client: &Client) -> anyhow::Result<String> {
    let mut look = tokio::time::interval(LOOK_EVERY);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        look.tick().await;
        let view = verbs::fetch_node(client).await?;
        let running: Vec<_> = view
            .requests
            .iter()
            .filter(|row| row.state == "running" && row.function.ends_with(":shared"))
            .collect();
        if running.len() == SHARED {
            let instances: BTreeSet<_> = running.iter().map(|row| row.instance.clone()).collect();
            ensure!(instances.len() == 1, "they are on {} instances", instances.len());
            return Ok(running[0].request_id.clone());
        }
        ensure!(tokio::time::Instant::now() < deadline, "`shared` did not start");
    }
}

async fn cancel(client: &Client, function: &str, request: &str, kind: &str) -> anyhow::Result<Reply> {
    let body = json!({ "request_id": request, "type": kind, "reason": "the demo" });
    let path = client.function(function, "/cancel");
    let reply = client.send(Method::POST, &path, &[], Some(body.to_string().into_bytes())).await?;
    let stop = reply.header("X-Quell-Stop").unwrap_or("?");
    output::line(format_args!(
        "   HTTP {} {}  X-Quell-Stop: {stop}\n",
        reply.status,
        String::from_utf8_lossy(&reply.body)
    ));
    if !reply.is_success() {
        return Err(reply.refusal().into());
    }
    Ok(reply)
}

/// Notes every process of every instance, to see at the end that none is left.
async fn remember_processes(client: &Client, seen: &mut BTreeSet<ProcessId>) -> anyhow::Result<()> {
    let view = verbs::fetch_node(client).await?;
    let processes = view.instances.iter().flat_map(|instance| &instance.processes);
    let living = processes.filter_map(|process| Some((process.pid, start_time(process.pid)?)));
    let before = seen.len();
    seen.extend(living);
    output::line(format_args!("   ({} processes of functions are alive)", seen.len() - before));
    Ok(())
}

/// Field 22 of `/proc/PID/stat`: with the number it names a process for good. A zombie is no process
/// of ours any more.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    if fields.next() == Some("Z") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}
