//! The built binary over HTTP: cancels to their proof, beside a bare request and a bare kill.

use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    node::{BenchNode, LIMIT},
    samples::{Samples, Show},
};

const SLEEPER: &str = "import time\ndef handler(event, context):\n    time.sleep(300)\n";
impl BenchNode {
    /// Starts a request and returns once it runs in user code or is about to.
    async fn running(&self) -> anyhow::Result<String> {
        let path = "/v2/default/fgs/functions/sleeper/invocations-async";
        let reply = self.send(Method::POST, path, Some(json!({}))).await?;
        ensure!(reply.status() == 202, "{}", reply.text().await?);
        let id = reply.json::<Value>().await?["request_id"].as_str().context("no id")?.to_owned();
        let deadline = Instant::now() + LIMIT;
        // Looking, not waiting for an end: only the start of the measured part depends on it.
        while Instant::now() < deadline {
            let row = self.send(Method::GET, &format!("/quell/v1/requests/{id}"), None).await?;
            if row.json::<Value>().await?["state"] == "running" {
                return Ok(id);
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        bail!("{id} does not run")
    }

    async fn cancel(&self, id: &str, force: bool) -> anyhow::Result<Duration> {
        let body = json!({ "request_id": id, "force": force });
        let start = Instant::now();
        let reply = self.send(Method::POST, "/v2/default/fgs/functions/sleeper/cancel", Some(body)).await?;
        let stopped = reply.headers().get("x-quell-stop").is_some_and(|stop| stop == "stopped");
        let (status, text) = (reply.status(), reply.text().await?);
        let took = start.elapsed();
        ensure!(status == 200 && stopped && text == "null", "{status} {text}");
        Ok(took)
    }
}

/// Kills a bare Python that sleeps and collects its exit: the part of a force cancel that is the kernel's.
fn bare_kill(python: &mut Child) -> anyhow::Result<Duration> {
    let start = Instant::now();
    python.kill()?;
    python.wait()?;
    Ok(start.elapsed())
}

fn bare_python() -> anyhow::Result<Child> {
    let code = "import time, sys; sys.stdout.write('.'); sys.stdout.flush(); time.sleep(300)";
    let mut child = Command::new("python3")
        .args(["-c", code])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("python3")?;
    let mut byte = [0];
    std::io::Read::read_exact(&mut child.stdout.take().context("no stdout")?, &mut byte)?;
    Ok(child)
}

pub(crate) async fn measure(count: usize, show: &mut Show<'_>) -> anyhow::Result<()> {
    let node = BenchNode::start()?;
    node.deploy("sleeper", SLEEPER, json!({})).await?;
    let (mut request, mut kill) = (Samples::default(), Samples::default());
    let (mut ask, mut force) = (Samples::default(), Samples::default());
    for _ in 0..count {
        let start = Instant::now();
        let reply = node.send(Method::GET, "/quell/v1/health", None).await?;
        ensure!(reply.status() == 200, "health: {}", reply.status());
        drop(reply.bytes().await?);
        request.add(start.elapsed());
        ask.add(node.cancel(&node.running().await?, false).await?);
    }
    for _ in 0..count {
        kill.add(bare_kill(&mut bare_python()?)?);
        force.add(node.cancel(&node.running().await?, true).await?);
    }
    show("floor: HTTP request that does nothing (health)", &request, true);
    show("cancel, cooperative: handler gone, recorded on disk, 200", &ask, false);
    show("floor: SIGKILL and wait of a bare Python process", &kill, true);
    show("cancel, force: runtime dead and proven, recorded, 200", &force, false);
    Ok(())
}
