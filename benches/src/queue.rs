//! A million requests that wait: what a node with them takes to start, to show a page and to cancel the last.

use std::{sync::Arc, time::Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use cancel::RequestId;
use reqwest::Method;
use serde_json::{Value, json};
use store::{Embedded, FunctionKey, LATEST, Labels, Lineage, NewInvocation, Placement, Store};

use crate::node::BenchNode;

/// Of each event.
const EVENT_BYTES: usize = 1_000;
/// Rows that wait for their commit at once.
const BATCH: u64 = 2_000;
const SOURCE: &str = "import time\ndef handler(event, context):\n    time.sleep(600)\n";

pub(crate) async fn measure(count: u64) -> anyhow::Result<()> {
    let node = BenchNode::start()?;
    let idle = node.resident_mib()?;
    let one = json!({ "strategy_config": { "concurrency": 1, "concurrent_num": 1 } });
    node.deploy("f", SOURCE, one).await?;
    let data = node.stop()?;
    let start = Instant::now();
    fill(data.path(), count).await?;
    println!("{count} requests of {EVENT_BYTES} bytes written in {:.1} s", start.elapsed().as_secs_f64());

    let node = BenchNode::start_in(Arc::clone(&data))?;
    println!("the node listens after {:.2} s", node.started_in.as_secs_f64());
    println!("resident: {} MiB, idle without them {idle} MiB", node.resident_mib()?);
    let path = "/v2/default/fgs/functions/f";
    let page = format!("{path}/async-invocations?limit=100&query_begin_time=1970-01-01T00:00:00");
    for what in ["first", "second"] {
        let start = Instant::now();
        let rows: Value = node.send(Method::GET, &page, None).await?.json().await?;
        ensure!(rows["count"].as_u64() == Some(count), "{}", rows["count"]);
        println!(
            "a page of 100 rows and the count, {what} time: {:.1} ms",
            start.elapsed().as_secs_f64() * 1e3
        );
    }
    let start = Instant::now();
    drop(node.send(Method::GET, "/quell/v1/node", None).await?.bytes().await?);
    println!("the live view of the node: {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
    for (what, id) in [("last", count), ("middle", count / 2)] {
        let body = json!({ "request_id": RequestId(u128::from(id)).to_string() });
        let start = Instant::now();
        let reply = node.send(Method::POST, &format!("{path}/cancel"), Some(body)).await?;
        let took = start.elapsed();
        let stop = reply.headers().get("x-quell-stop").cloned();
        ensure!(reply.status() == 200, "{}", reply.text().await?);
        println!("the {what} one cancelled ({stop:?}) in {:.2} ms", took.as_secs_f64() * 1e3);
    }
    println!(
        "resident after that: {} MiB; database {} MiB",
        node.resident_mib()?,
        database_mib(node.data())?
    );
    Ok(())
}

fn database_mib(data: &std::path::Path) -> anyhow::Result<u64> {
    Ok(std::fs::metadata(data.join("quell.db")).context("the database")?.len() >> 20)
}

/// As an earlier life of the node would have accepted them.
async fn fill(data: &std::path::Path, count: u64) -> anyhow::Result<()> {
    let store = Embedded::open(data)?;
    let function = Arc::new(FunctionKey {
        project: "default".into(),
        package: "default".into(),
        name: "f".into(),
        version: LATEST.into(),
    });
    let payload = Bytes::from(json!({ "padding": "x".repeat(EVENT_BYTES) }).to_string());
    let created_ms =
        i64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis())?;
    let ids: Vec<u64> = (1..=count).collect();
    for batch in ids.chunks(BATCH as usize) {
        let accepted: Vec<_> = batch
            .iter()
            .map(|id| {
                store.accept(NewInvocation {
                    request: RequestId(u128::from(*id)),
                    function: Arc::clone(&function),
                    alias: None,
                    parent: None,
                    payload: payload.clone(),
                    created_ms,
                    hops: 0,
                    labels: Labels::default(),
                    lineage: Lineage::default(),
                    placement: Placement::Here,
                })
            })
            .collect();
        for accepted in accepted {
            accepted.await?;
        }
    }
    store.close().await?;
    Ok(())
}
