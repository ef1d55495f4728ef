//! What one PostgreSQL holds: requests accepted, claimed and run a second by nodes that share it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use bytes::Bytes;
use serde_json::json;
use store::{Claim, FunctionKey, Joining, LATEST, NewInvocation, Placement, Shared, Store};
use tempfile::TempDir;
use tokio_postgres::Client;

use super::{
    figure::{Figure, Found, Title},
    measure::Effort,
    nodes::{know, start_nodes},
    postgres::Postgres,
    values::Unit,
};
use crate::{
    accept,
    node::{BenchNode, LIMIT},
};

/// Who asks at once.
const CLIENTS: usize = 64;
/// Nodes, where there are several.
const NODES: usize = 3;
/// Nodes that claim at once.
const CLAIMERS: usize = 4;
/// Functions whose requests are claimed: with as many of each as a node takes at once these fill a claim of its.
const FUNCTIONS: usize = 32;
const CLAIM: Claim = Claim { limit: 256, each: 8, not: Vec::new() };
/// Longer than the whole part takes: nobody renews it.
const LEASE_MS: u32 = 3_600_000;
const TRIVIAL: &str = "def handler(event, context):\n    return event\n";

/// A node's store without the node.
struct Member {
    store: store::Postgres,
    _dir: TempDir,
}

async fn members(server: &Postgres, database: &str, count: usize) -> anyhow::Result<Arc<Vec<Member>>> {
    let mut members = Vec::new();
    for _ in 0..count {
        let (dir, name) = (tempfile::tempdir()?, uuid::Uuid::new_v4().simple().to_string());
        let store = store::Postgres::connect(&server.url(database), None, None, name, dir.path())?;
        let endpoint = "http://127.0.0.1:1".to_owned();
        store
            .join(Joining {
                endpoint,
                version: "bench".to_owned(),
                lease_ms: LEASE_MS,
                labels: store::NodeLabels::default(),
            })
            .await?;
        members.push(Member { store, _dir: dir });
    }
    Ok(Arc::new(members))
}

fn row(number: usize) -> NewInvocation {
    let function = FunctionKey {
        project: "p".into(),
        package: "default".into(),
        name: format!("f{}", number % FUNCTIONS),
        version: LATEST.into(),
    };
    let payload = Bytes::from_static(b"{\"n\": 1}");
    NewInvocation { function: Arc::new(function), placement: Placement::Anywhere, ..accept::row(payload) }
}

/// So many accepted by `CLIENTS` tasks, in turn by each member; a second.
async fn accepted(members: &Arc<Vec<Member>>, count: usize) -> anyhow::Result<f64> {
    let left = Arc::new(AtomicUsize::new(count));
    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for client in 0..CLIENTS {
        let (members, left) = (Arc::clone(members), Arc::clone(&left));
        tasks.spawn(async move {
            let store = &members[client % members.len()].store;
            let take = || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            while let Ok(number) = take() {
                store.accept(row(number)).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

/// So many taken out of the shared queue by all members at once; a second.
async fn claimed(members: &Arc<Vec<Member>>, count: usize) -> anyhow::Result<f64> {
    let all = Arc::new(AtomicUsize::new(0));
    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for claimer in 0..members.len() {
        let (members, all) = (Arc::clone(members), Arc::clone(&all));
        tasks.spawn(async move {
            loop {
                let rows = members[claimer].store.claim(CLAIM).await?;
                if all.fetch_add(rows.len(), Ordering::Relaxed) + rows.len() >= count {
                    return anyhow::Ok(());
                }
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

/// So many accepted over HTTP by all nodes in turn, and all of them run to their end; a second.
async fn run(nodes: &[BenchNode], look: &Client, count: usize) -> anyhow::Result<f64> {
    let ended = "SELECT count(*) FROM invocations WHERE status >= 2";
    let before: i64 = look.query_one(ended, &[]).await?.try_get(0)?;
    let start = Instant::now();
    let each = CLIENTS.div_ceil(nodes.len());
    let share = count / nodes.len();
    let mut asking = tokio::task::JoinSet::new();
    for node in nodes {
        let url = format!("{}/v2/default/fgs/functions/trivial/invocations-async", node.endpoint);
        let (http, token) = (node.http.clone(), node.token.clone());
        asking.spawn(async move { accept::rate(&http, &url, &token, each, share).await });
    }
    while let Some(asked) = asking.join_next().await {
        asked??;
    }
    let all = i64::try_from(share * nodes.len())?;
    let looks = async {
        // Looking, not waiting for an end: one row of one answer each time.
        while look.query_one(ended, &[]).await?.try_get::<_, i64>(0)? < before + all {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(2 * LIMIT, looks).await.context("not all of them end")??;
    Ok(all as f64 / start.elapsed().as_secs_f64())
}

/// One of each kind a round.
pub(super) async fn measure(effort: Effort, server: &Postgres, found: &mut Found) -> anyhow::Result<()> {
    let full = effort.samples >= 20;
    let many = if full { 10_000 } else { 2_000 };
    let (mut one, mut several, mut claims) = (Vec::new(), Vec::new(), Vec::new());
    server.create("rates").await?;
    let clean = server.client("rates").await?;
    {
        let joined = members(server, "rates", CLAIMERS).await?;
        let (alone, three) = (members(server, "rates", 1).await?, members(server, "rates", NODES).await?);
        for _ in 0..effort.rounds {
            one.push(accepted(&alone, many).await?);
            clean.batch_execute("TRUNCATE invocations, above").await?;
            several.push(accepted(&three, many).await?);
            claims.push(claimed(&joined, many).await?);
            clean.batch_execute("TRUNCATE invocations, above").await?;
        }
    }
    let run = whole(effort, server, if full { 3_000 } else { 600 }).await?;
    let note = |what: String| format!("each sample is of {what}; {}, fsync on", server.version);
    let rows = [
        ("nodes.accepted.1", "accepted a second, 1 node, 64 at once", many, one),
        ("nodes.accepted.3", "accepted a second, 3 nodes, 64 at once", many, several),
        ("nodes.claimed", "claimed a second, 4 nodes, 32 functions", many, claims),
        ("nodes.run", "accepted and run a second, 3 nodes", if full { 3_000 } else { 600 }, run),
    ];
    for (id, what, count, rates) in rows {
        let title = Title::new(id, what).counted_in(Unit::PerSecond).noted(note(format!("{count} requests")));
        found.push(Figure::read(title, &rates)?);
    }
    Ok(())
}

/// Whole nodes with runtimes: what they run a second together.
async fn whole(effort: Effort, server: &Postgres, count: usize) -> anyhow::Result<Vec<f64>> {
    server.create("whole").await?;
    let nodes = start_nodes(server, "whole", NODES, "2")?;
    nodes[0].deploy("trivial", TRIVIAL, json!({})).await?;
    for node in &nodes {
        know(node, "trivial").await?;
    }
    let look = server.client("whole").await?;
    // Not of interest: the instances start.
    run(&nodes, &look, 2 * CLIENTS).await?;
    let mut rates = Vec::new();
    for _ in 0..effort.rounds {
        rates.push(run(&nodes, &look, count).await?);
    }
    Ok(rates)
}
