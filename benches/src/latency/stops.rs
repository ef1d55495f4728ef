//! Stops of one request: by force of each kind of runtime, of one with much memory, and by asking.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use reqwest::Method;
use serde_json::{Value, json};

use super::{
    bell::Bell,
    figure::{At, Found, Target::AtMost, Title},
    floors::{self, BareServer, Disk, Sleeper},
    measure::{Effort, Sample, Scenario, figure},
    pass_through::{Image, Server},
    peer::{self, Peer},
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

/// The stub runtime, built in this folder.
fn stub(dir: &Path) -> anyhow::Result<PathBuf> {
    let (source, program) = (dir.join("stub.c"), dir.join("stub"));
    std::fs::write(&source, STUB)?;
    let flags = ["-O2", "-static", "-nostdlib", "-nostartfiles", "-fno-stack-protector", "-Wl,-s", "-o"];
    let built = Command::new("cc").args(flags).arg(&program).arg(&source).output();
    let built = built.context("there is no C compiler `cc` that builds it")?;
    ensure!(built.status.success(), "cc does not build it: {}", String::from_utf8_lossy(&built.stderr));
    Ok(program)
}

/// Cancels of a running request of one function.
struct Stop<'a> {
    site: &'a Site,
    function: &'static str,
    event: Value,
    /// The function rings once it is where it is to be stopped; without that, it is once it has the request.
    rings: bool,
    kind: Value,
    floor: Floor,
}

/// What of the floor is not the request.
pub(super) enum Floor {
    /// A process of this command is killed while a row is committed.
    Kill(Box<dyn Fn() -> Command>),
    /// The same of a runtime of this image, which waits for work without a node.
    Runtime(Server, Image),
    /// One that waits is woken.
    Wake(Sleeper),
}

/// Where everything takes place.
pub(super) struct Site {
    node: BenchNode,
    bare: BareServer,
    disk: Disk,
    bell: Bell,
}

impl Site {
    pub(super) async fn floor(&self, floor: &mut Floor) -> anyhow::Result<Duration> {
        // What is killed stands before the request is sent, as it does on the node: then the machine is as rested,
        // and its caches are as cold, for both.
        let (request, rest) = match floor {
            Floor::Kill(command) => {
                let mut process = floors::standing(&mut command())?;
                (self.bare.round_trip().await?, self.disk.beside(|| process.kill())?)
            }
            Floor::Runtime(server, image) => {
                let mut runtime = server.runtime(self.node.data(), *image).await?;
                (self.bare.round_trip().await?, self.disk.beside(|| floors::kill(&mut runtime.child))?)
            }
            Floor::Wake(sleeper) => (self.bare.round_trip().await?, sleeper.wake()?),
        };
        Ok(request + rest)
    }
}

impl Scenario for Stop<'_> {
    const BESIDE: Option<&'static str> = Some("with the store's sync beside the wake");

    async fn floor(&mut self) -> anyhow::Result<Duration> {
        self.site.floor(&mut self.floor).await
    }

    async fn beside(&mut self) -> anyhow::Result<Option<Duration>> {
        let Floor::Wake(sleeper) = &mut self.floor else { return Ok(None) };
        let request = self.site.bare.round_trip().await?;
        Ok(Some(request + self.site.disk.beside(|| sleeper.wake().map(drop))?))
    }

    async fn ours(&mut self) -> anyhow::Result<Sample> {
        let node = &self.site.node;
        let (id, rang) = if self.rings {
            (node.accepted(self.function, &self.event).await?, Some(self.site.bell.ring().await?))
        } else {
            (node.running(self.function, &self.event).await?, None)
        };
        let (took, cancel) = node.cancel(self.function, &id, &self.kind).await?;
        drop(rang);
        let receipt = node.send(Method::GET, &format!("/quell/v1/receipts/{cancel}"), None).await?;
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

fn command(program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args);
    command
}

/// Node.js as functions, if it is here; else what is not measured is named.
async fn nodejs(node: &BenchNode, one: &Value, found: &mut Found) -> bool {
    let mut function = one.clone();
    function["runtime"] = json!("Node.js18.15");
    let here = command("node", &["--version"]).output().is_ok();
    let deployed = match here {
        true => node.deploy("nodejs", SLEEPS_NODE, function).await,
        false => Err(anyhow::anyhow!("there is no `node` on this machine")),
    };
    if let Err(why) = &deployed {
        for what in ["force, Node.js", "asked, Node.js"] {
            found.skip(what, why.to_string());
        }
    }
    deployed.is_ok()
}

pub(crate) async fn measure(effort: Effort, peer: Option<&Peer>, found: &mut Found) -> anyhow::Result<()> {
    let (node, bare) = (BenchNode::start()?, BareServer::start()?);
    let site = Site { node, bare, disk: Disk::open()?, bell: Bell::hang()? };
    let one = json!({ "strategy_config": { "concurrency": 4, "concurrent_num": 1 } });
    site.node.deploy("sync", SLEEPS, one.clone()).await?;
    let mut coroutine = one.clone();
    coroutine["handler"] = json!("index.ahandler");
    site.node.deploy("coroutine", SLEEPS, coroutine).await?;
    let mut large = one.clone();
    large["memory_size"] = json!(2_048);
    site.node.deploy("large", SLEEPS, large).await?;
    let has_node = nodejs(&site.node, &one, found).await;
    let stub_dir = tempfile::tempdir()?;
    let stub = match stub(stub_dir.path()) {
        Ok(stub) => {
            site.node.deploy_custom("stub", &std::fs::read(&stub)?, one).await?;
            Some(stub)
        }
        Err(why) => {
            found.skip("force, the smallest runtime", why.to_string());
            None
        }
    };
    forced(effort, &site, stub.as_deref(), has_node, found).await?;
    if let Some(peer) = peer {
        let mut floor = Floor::Runtime(Server::start()?, PYTHON);
        peer::measure(effort, peer, &site, &mut floor, found).await?;
    }
    held(effort, &site, found).await?;
    asks(effort, &site, has_node, found).await
}

async fn forced(
    effort: Effort,
    site: &Site,
    stub: Option<&Path>,
    has_node: bool,
    found: &mut Found,
) -> anyhow::Result<()> {
    let over = "request + SIGKILL to reaped of the same runtime, the store's sync beside it";
    let force = |id: &str, what: &str, most| Title::new(id, what).over(over).goal(At::Median, AtMost(most));
    let mut all = Vec::new();
    if let Some(stub) = stub {
        let stands = stub.to_owned();
        let floor = Floor::Kill(Box::new(move || command(&stands.to_string_lossy(), &["stand"])));
        all.push((force("force.stub", "force, the smallest runtime", 2.0), "stub", floor));
    }
    let python = force("force.python", "force, Python", 1.25).goal(At::P99, AtMost(2.0));
    all.push((python, "sync", Floor::Runtime(Server::start()?, PYTHON)));
    if has_node {
        let title = force("force.nodejs", "force, Node.js", 1.25).goal(At::P99, AtMost(2.0));
        all.push((title, "nodejs", Floor::Runtime(Server::start()?, NODE)));
    }
    for (title, function, floor) in all {
        let (kind, event) = (json!({ "type": "force" }), json!({ "bell": site.bell.name }));
        let mut stop = Stop { site, function, event, rings: function == "sync", kind, floor };
        found.push(figure(title, effort, &mut stop).await?);
    }
    Ok(())
}

async fn held(effort: Effort, site: &Site, found: &mut Found) -> anyhow::Result<()> {
    for mib in HELD {
        let mut stop = Stop {
            site,
            function: "large",
            event: json!({ "mib": mib, "bell": site.bell.name }),
            rings: true,
            kind: json!({ "type": "force" }),
            floor: Floor::Kill(Box::new(move || command("python3", &["-c", HOLDS, &mib.to_string()]))),
        };
        let title = Title::new(format!("force.{mib}mib"), format!("force, {mib} MiB resident"))
            .over("request + SIGKILL to reaped of as much, the store's sync beside it")
            .placed("MiB resident", "Python", mib as f64);
        found.push(figure(title, effort.divided(if mib > 500 { 8 } else { 2 }), &mut stop).await?);
    }
    Ok(())
}

async fn asks(effort: Effort, site: &Site, has_node: bool, found: &mut Found) -> anyhow::Result<()> {
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
        let (event, rings) = (json!({ "bell": site.bell.name }), function != "nodejs");
        let mut stop = Stop { site, function, event, rings, kind: json!({}), floor: Floor::Wake(sleeper) };
        let title =
            Title::new(id, what).over("request + one wake of such a runtime").goal(At::Median, AtMost(2.0));
        found.push(figure(title, effort, &mut stop).await?);
    }
    Ok(())
}
