//! Cold starts: from a request that finds no instance to its answer, beside the bare interpreter's start.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    node::{BenchNode, LIMIT},
    samples::{Samples, Show},
};

/// Samples of each figure: a start takes a hundred times as long as a cancel.
pub(crate) const MOST: usize = 50;
/// Seconds after which an instance without work is released, so that the next request finds none.
pub(crate) const IDLE: &str = "0.02";
/// Between two looks whether it is gone.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Which interpreter the node runs: what is found first here may be another, or a script that looks for one.
const WHICH: &str = "import sys\ndef handler(event, context):\n    return sys.executable\n";
pub(crate) const TRIVIAL_NODE: &str = "exports.handler = async (event) => event;\n";
pub(crate) const TRIVIAL: &str = "def handler(event, context):\n    return event\n";

/// Imports about what an SDK of a cloud does: a large part of the standard library, and model classes that are
/// made at import.
const HEAVY: &str = "\
import asyncio, concurrent.futures, csv, ctypes, dataclasses, datetime, decimal, difflib, email.message
import email.mime.multipart, fractions, ftplib, gzip, hashlib, html.parser, http.client, http.cookiejar
import http.server, imaplib, inspect, ipaddress, json, logging.config, logging.handlers, lzma, mimetypes
import multiprocessing, optparse, pickletools, platform, pydoc, random, secrets, smtplib, sqlite3, ssl
import statistics, tarfile, tempfile, timeit, unittest.mock, urllib.request, urllib.robotparser, uuid
import xml.dom.minidom, xml.etree.ElementTree, xml.sax, xmlrpc.client, zipfile

MODELS = {
    name: dataclasses.make_dataclass(name, [('field%d' % at, str, None) for at in range(12)])
    for name in ('Model%d' % number for number in range(150))
}


def handler(event, context):
    return len(MODELS)
";

/// A bare interpreter that does nothing, from its start to its collected exit.
pub(crate) fn bare_start(python: &str, code: &str) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let ended = Command::new(python).args(["-c", code]).stdin(Stdio::null()).status().context("python3")?;
    let took = start.elapsed();
    ensure!(ended.success(), "python3: {ended}");
    Ok(took)
}

/// The same of Node.js.
pub(crate) fn bare_node() -> anyhow::Result<Duration> {
    let start = Instant::now();
    let ended = Command::new("node").args(["-e", "0"]).stdin(Stdio::null()).status().context("node")?;
    ensure!(ended.success(), "node: {ended}");
    Ok(start.elapsed())
}

impl BenchNode {
    /// One request that finds no instance; waits until there is none again.
    pub(crate) async fn cold_request(&self, function: &str) -> anyhow::Result<Duration> {
        let path = format!("/v2/default/fgs/functions/{function}/invocations");
        let start = Instant::now();
        let reply = self.send(Method::POST, &path, Some(json!({}))).await?;
        let (status, text) = (reply.status(), reply.text().await?);
        let took = start.elapsed();
        ensure!(status == 200, "{function}: {status} {text}");
        let deadline = Instant::now() + LIMIT;
        while Instant::now() < deadline {
            let view: Value = self.send(Method::GET, "/quell/v1/node", None).await?.json().await?;
            if view["instances"].as_array().is_some_and(Vec::is_empty) {
                return Ok(took);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        bail!("an instance of {function} stays")
    }

    /// Whether an instance of a function is forked here; why not, if it is not.
    pub(crate) async fn forks(&self, function: &str) -> anyhow::Result<Result<(), String>> {
        let body = json!({ "count": 1 });
        let path = format!("/v2/default/fgs/functions/{function}/reservedinstances");
        self.send(Method::PUT, &path, Some(body)).await?.error_for_status()?;
        let deadline = Instant::now() + LIMIT;
        let said = loop {
            let view: Value = self.send(Method::GET, "/quell/v1/node", None).await?.json().await?;
            if let Some(said) = view["instances"][0]["fork_server"].as_str() {
                break said.to_owned();
            }
            ensure!(Instant::now() < deadline, "no instance of {function}");
            tokio::time::sleep(LOOK_AGAIN).await;
        };
        self.send(Method::PUT, &path, Some(json!({ "count": 0 }))).await?.error_for_status()?;
        self.cold_request(function).await?;
        Ok(if said == "forked" { Ok(()) } else { Err(said) })
    }
}

/// The interpreter that the node runs.
pub(crate) async fn interpreter(node: &BenchNode) -> anyhow::Result<String> {
    node.deploy("which", WHICH, json!({})).await?;
    let path = "/v2/default/fgs/functions/which/invocations";
    Ok(node.send(Method::POST, path, Some(json!({}))).await?.error_for_status()?.text().await?)
}

pub(crate) async fn measure(count: usize, show: &mut Show<'_>) -> anyhow::Result<()> {
    let node = BenchNode::start_with(&["--idle", IDLE])?;
    // The node's own interpreter start, with what the image imports and a whole request on top.
    let functions = [
        ("trivial", TRIVIAL, false, "python, executed: a trivial handler"),
        ("trivial-fork", TRIVIAL, true, "python, forked: a trivial handler"),
        ("heavy", HEAVY, false, "python, executed: a heavy import"),
        ("heavy-fork", HEAVY, true, "python, forked: a heavy import"),
    ];
    let (mut floor, mut import) = (Samples::default(), Samples::default());
    let (mut node_floor, mut node_cold) = (Samples::default(), Samples::default());
    let mut samples: Vec<Samples> = functions.iter().map(|_| Samples::default()).collect();
    let python = interpreter(&node).await?;
    let has_node = bare_node().is_ok();
    if has_node {
        node.deploy("nodejs", TRIVIAL_NODE, json!({ "memory_size": 256, "runtime": "Node.js18.15" })).await?;
    }
    for (name, source, fork, _) in functions {
        node.deploy(name, source, json!({ "memory_size": 256, "quell": { "fork_server": fork } })).await?;
        if fork && let Err(why) = node.forks(name).await? {
            bail!("nothing is forked here: {why}");
        }
    }
    let heavy = HEAVY.split("\n\n\ndef").next().unwrap_or_default();
    // Turn and turn about, so that what else the machine does meets each alike.
    for _ in 0..count {
        floor.add(bare_start(&python, "pass")?);
        import.add(bare_start(&python, heavy)?);
        if has_node {
            node_floor.add(bare_node()?);
            node_cold.add(node.cold_request("nodejs").await?);
        }
        for ((name, ..), samples) in functions.iter().zip(&mut samples) {
            samples.add(node.cold_request(name).await?);
        }
    }
    show("floor: python3 -c pass", &floor, true);
    show("the heavy import alone, in a bare python3 -c", &import, false);
    for ((.., what), samples) in functions.iter().zip(&samples) {
        show(&format!("cold request, {what}"), samples, false);
    }
    if has_node {
        show("floor: node -e 0", &node_floor, true);
        show("cold request, Node.js, executed: a trivial handler", &node_cold, false);
    }
    let median = |at: usize| samples[at].percentile(50);
    println!("executed / forked: trivial {:.1}, heavy {:.1}", median(0) / median(1), median(2) / median(3));
    node.stop().map(drop)
}
