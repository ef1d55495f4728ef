//! Stops of one request: by force of each kind of runtime, of one with much memory, and by asking.

use std::{path::PathBuf, process::Command, time::Duration};

use anyhow::{Context as _, ensure};
use reqwest::Method;
use serde_json::{Value, json};

use super::{
    bell::Bell,
    floors::{self, BareServer, Sleeper},
    measure::{Effort, Figure, Sample, Scenario, Title, figure},
    pass_through::{Image, Server},
};
use crate::node::BenchNode;

const SLEEPS: &str = "import asyncio, socket, time
def ring(event):
    line = socket.socket(socket.AF_UNIX)
    line.connect('\\0' + event['bell'])
    line.sendall(b'.')
    return line
def handler(event, context):
    held = bytearray(event.get('mib', 0) << 20)
    for at in range(0, len(held), 4096): held[at] = 1
    line = ring(event)
    time.sleep(300)
async def ahandler(event, context):
    line = ring(event)
    await asyncio.sleep(300)
";
const SLEEPS_NODE: &str = "exports.handler = (event, context) => new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, 300000);
    context.signal.addEventListener('abort', () => { clearTimeout(timer); reject(context.signal.reason); });
});";
/// The floor's process stands as the runtime does: it holds so many MiB and waits.
const HOLDS: &str = "import os, sys
held = bytearray(int(sys.argv[1]) << 20)
for at in range(0, len(held), 4096): held[at] = 1
os.write(1, b'.'); os.read(0, 1)";
const PYTHON: Image =
    Image { program: "python3", bootstrap: "python/bootstrap.py", code: ("index.py", SLEEPS) };
const NODE: Image =
    Image { program: "node", bootstrap: "nodejs/bootstrap.js", code: ("index.js", SLEEPS_NODE) };
/// MiB that a killed runtime holds.
const HELD: [u64; 3] = [10, 100, 1_024];
const STUB: &str = include_str!("stub.c");

/// The stub runtime, built; `None` with the reason if there is no C compiler that can.
pub(crate) fn stub() -> anyhow::Result<(tempfile::TempDir, PathBuf)> {
    let dir = tempfile::tempdir()?;
    let (source, program) = (dir.path().join("stub.c"), dir.path().join("stub"));
    std::fs::write(&source, STUB)?;
    let flags = ["-O2", "-static", "-nostdlib", "-nostartfiles", "-fno-stack-protector", "-Wl,-s", "-o"];
    let built = Command::new("cc").args(flags).arg(&program).arg(&source).output().context("cc")?;
    ensure!(built.status.success(), "the stub does not build: {}", String::from_utf8_lossy(&built.stderr));
    Ok((dir, program))
}

/// Cancels of a running request of one function.
struct Stop<'a> {
    node: &'a BenchNode,
    bare: &'a BareServer,
    function: &'static str,
    event: Value,
    /// Rung by the function once it is where it is to be stopped; without one, once it has the request.
    bell: Option<&'a Bell>,
    kind: Value,
    floor: Floor,
}

/// What of the floor is not the request.
enum Floor {
    /// A process of this command is killed.
    Kill(Box<dyn Fn() -> Command>),
    /// A runtime of this image, which waits for work without a node, is killed.
    Runtime(Server, Image),
    /// One that waits is woken.
    Wake(Sleeper),
}

impl Scenario for Stop<'_> {
    async fn floor(&mut self) -> anyhow::Result<Duration> {
        let request = self.bare.round_trip().await?;
        let rest = match &mut self.floor {
            Floor::Kill(command) => floors::kill(&mut floors::standing(&mut command())?)?,
            Floor::Runtime(server, image) => {
                floors::kill(&mut server.runtime(self.node.data(), *image).await?.child)?
            }
            Floor::Wake(sleeper) => sleeper.wake()?,
        };
        Ok(request + rest)
    }

    async fn ours(&mut self) -> anyhow::Result<Sample> {
        let (id, rang) = match self.bell {
            Some(bell) => (self.node.accepted(self.function, &self.event).await?, Some(bell.ring()?)),
            None => (self.node.running(self.function, &self.event).await?, None),
        };
        let (took, cancel) = self.node.cancel(self.function, &id, &self.kind).await?;
        drop(rang);
        let receipt = self.node.send(Method::GET, &format!("/quell/v1/receipts/{cancel}"), None).await?;
        Ok(Sample { took, phases: phases(took, &receipt.json().await?) })
    }
}

/// Where the time of a cancel went, by its receipt.
pub(crate) fn phases(took: Duration, receipt: &Value) -> Vec<(&'static str, Duration)> {
    let micros = |value: &Value| Duration::from_micros(value.as_u64().unwrap_or(0));
    let inside = micros(&receipt["took_us"]).min(took);
    let instances = receipt["instances"].as_array().into_iter().flatten();
    // Of several the one that took longest: the others died meanwhile.
    let slowest = instances.max_by_key(|instance| instance["took_us"].as_u64()).unwrap_or(&Value::Null);
    let [kill, exited, emptied, proven] =
        ["took_us", "exited_us", "emptied_us", "proven_us"].map(|phase| micros(&slowest[phase]).min(inside));
    vec![
        ("HTTP and waiting for the core", took - inside),
        ("order and report", kill.saturating_sub(proven)),
        ("its processes end", exited),
        ("nobody is left", emptied.saturating_sub(exited)),
        ("collected, leaf removed", proven.saturating_sub(emptied)),
        ("fence, record, settle", inside - kill),
    ]
}

fn title(id: &str, what: &str, floor: &str, target: f64, target_p99: Option<f64>) -> Title {
    Title {
        id: id.to_owned(),
        what: what.to_owned(),
        floor: floor.to_owned(),
        target: Some(target),
        target_p99,
    }
}

fn command(program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args);
    command
}

pub(crate) async fn measure(effort: Effort, figures: &mut Vec<Figure>) -> anyhow::Result<()> {
    let (node, bare) = (BenchNode::start()?, BareServer::start()?);
    let (_dir, stub) = stub()?;
    let one = json!({ "strategy_config": { "concurrency": 4, "concurrent_num": 1 } });
    node.deploy("sync", SLEEPS, one.clone()).await?;
    let mut coroutine = one.clone();
    coroutine["handler"] = json!("index.ahandler");
    node.deploy("coroutine", SLEEPS, coroutine).await?;
    let mut large = one.clone();
    large["memory_size"] = json!(2_048);
    node.deploy("large", SLEEPS, large).await?;
    node.deploy_custom("stub", &std::fs::read(&stub)?, one.clone()).await?;
    let mut nodejs = one;
    nodejs["runtime"] = json!("Node.js18.15");
    let has_node = node.deploy("nodejs", SLEEPS_NODE, nodejs).await.is_ok();

    let bell = Bell::hang()?;
    let (force, event) = (json!({ "type": "force" }), json!({ "bell": bell.name }));
    let stands = stub.clone();
    let mut all = vec![(
        title(
            "force.stub",
            "force, the smallest runtime",
            "request + SIGKILL to reaped of the same",
            2.0,
            None,
        ),
        "stub",
        Floor::Kill(Box::new(move || command(&stands.to_string_lossy(), &["stand"]))),
    )];
    all.push((
        title(
            "force.python",
            "force, Python",
            "request + SIGKILL to reaped of the same runtime",
            1.25,
            Some(2.0),
        ),
        "sync",
        Floor::Runtime(Server::start()?, PYTHON),
    ));
    if has_node {
        all.push((
            title(
                "force.nodejs",
                "force, Node.js",
                "request + SIGKILL to reaped of the same runtime",
                1.25,
                Some(2.0),
            ),
            "nodejs",
            Floor::Runtime(Server::start()?, NODE),
        ));
    }
    for (title, function, floor) in all {
        let (node, bare, kind) = (&node, &bare, force.clone());
        let rings = (function == "sync").then_some(&bell);
        let mut stop = Stop { node, bare, function, event: event.clone(), bell: rings, kind, floor };
        figures.push(figure(title, effort, &mut stop).await?);
    }
    held(effort, &node, &bare, &bell, figures).await?;
    asks(effort, &node, &bare, &bell, has_node, figures).await
}

async fn held(
    effort: Effort,
    node: &BenchNode,
    bare: &BareServer,
    bell: &Bell,
    figures: &mut Vec<Figure>,
) -> anyhow::Result<()> {
    for mib in HELD {
        let mut stop = Stop {
            node,
            bare,
            function: "large",
            event: json!({ "mib": mib, "bell": bell.name }),
            bell: Some(bell),
            kind: json!({ "type": "force" }),
            floor: Floor::Kill(Box::new(move || command("python3", &["-c", HOLDS, &mib.to_string()]))),
        };
        let title = Title {
            id: format!("force.{mib}mib"),
            what: format!("force, {mib} MiB resident"),
            floor: "request + SIGKILL to reaped of as much".to_owned(),
            target: None,
            target_p99: None,
        };
        figures.push(figure(title, effort.divided(if mib > 500 { 8 } else { 2 }), &mut stop).await?);
    }
    Ok(())
}

async fn asks(
    effort: Effort,
    node: &BenchNode,
    bare: &BareServer,
    bell: &Bell,
    has_node: bool,
    figures: &mut Vec<Figure>,
) -> anyhow::Result<()> {
    let python = || Sleeper::start(&mut command("python3", &["-c", floors::ECHO_PYTHON]));
    let mut all = vec![
        ("ask.python_async", "asked, Python coroutine", "coroutine", python()?),
        ("ask.python_sync", "asked, Python in a system call", "sync", python()?),
    ];
    if has_node {
        let sleeper = Sleeper::start(&mut command("node", &["-e", floors::ECHO_NODE]))?;
        all.push(("ask.nodejs", "asked, Node.js", "nodejs", sleeper));
    }
    for (id, what, function, sleeper) in all {
        let floor = Floor::Wake(sleeper);
        let (event, rings) = (json!({ "bell": bell.name }), (function != "nodejs").then_some(bell));
        let mut stop = Stop { node, bare, function, event, bell: rings, kind: json!({}), floor };
        let title = title(id, what, "request + one wake of such a runtime", 2.0, None);
        figures.push(figure(title, effort, &mut stop).await?);
    }
    Ok(())
}
