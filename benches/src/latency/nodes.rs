//! Cancels of trees that span nodes with one PostgreSQL, beside a commit that another connection hears of and the bare
//! kill, or wake, of as many runtimes.

use std::{collections::HashMap, process::Command, time::Duration};

use anyhow::{Context as _, ensure};
use reqwest::Method;
use serde_json::{Value, json};

use super::{
    bell::Bell,
    figure::{At, Found, Target::AtMost, Title},
    floors::{self, BareServer, Sleeper},
    measure::{Effort, Sample, Scenario, figure},
    pass_through::{Image, Runtime, Server},
    postgres::{Bare, Postgres},
    rates,
    stops::phases,
};
use crate::node::{BenchNode, LIMIT};

/// Nodes beside each other. A node runs one instance: a tree has one request on each.
const NODES: [usize; 3] = [2, 3, 5];
/// The last of them only where there is time.
const QUICK_NODES: usize = 3;
/// What the target and both places to ask are of.
const MAIN: usize = 3;

const CHAIN: &str = "import asyncio, socket, time
def begin(event, context):
    for child in event['children']:
        context.invoke_async('part', child)
    line = socket.socket(socket.AF_UNIX)
    line.connect('\\0' + event['bell'])
    line.sendall(b'.')
    return line
def handler(event, context):
    line = begin(event, context)
    time.sleep(300)
async def ahandler(event, context):
    line = begin(event, context)
    await asyncio.sleep(300)
";
const PYTHON: Image =
    Image { program: "python3", bootstrap: "python/bootstrap.py", code: ("index.py", CHAIN) };

/// Where it is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// On the node that has the root.
    AtRoot,
    /// On the node that has the last of the chain, and nothing else of it.
    AtLeaf,
}

/// Nodes that share a store.
struct Site {
    nodes: Vec<BenchNode>,
    /// Their places in `nodes`, by name.
    names: HashMap<String, usize>,
}

impl Site {
    /// So many nodes on loopback, with a database of their own; all of them have the functions.
    async fn start(server: &Postgres, count: usize) -> anyhow::Result<Self> {
        let database = format!("nodes{count}");
        server.create(&database).await?;
        let nodes = start_nodes(server, &database, count, "1")?;
        // Any of them would do, and the others hear of it.
        nodes[0].deploy("part", CHAIN, json!({})).await?;
        nodes[0]
            .deploy("asked", &CHAIN.replace("'part'", "'asked'"), json!({ "handler": "index.ahandler" }))
            .await?;
        for node in &nodes {
            know(node, "asked").await?;
        }
        let mut names = HashMap::new();
        for (place, node) in nodes.iter().enumerate() {
            let rows: Value = node.send(Method::GET, "/quell/v1/nodes", None).await?.json().await?;
            let rows = rows["nodes"].as_array().context("no nodes")?;
            let own =
                rows.iter().find(|row| row["endpoint"] == json!(node.endpoint)).context("not among them")?;
            names.insert(own["node"].as_str().context("no name")?.to_owned(), place);
        }
        Ok(Self { nodes, names })
    }

    /// The node that has the deepest request of a tree.
    async fn leaf_of(&self, root: &str) -> anyhow::Result<usize> {
        let path = format!("/quell/v1/requests/{root}/tree");
        let tree: Value = self.nodes[0].send(Method::GET, &path, None).await?.json().await?;
        let rows = tree["requests"].as_array().context("no tree")?;
        let leaf = rows.iter().max_by_key(|row| row["depth"].as_u64()).context("an empty tree")?;
        let node = leaf["node"].as_str().context("the last of the chain is on the first node")?;
        self.names.get(node).copied().context("an unknown node")
    }
}

/// Nodes of one database.
pub(super) fn start_nodes(
    server: &Postgres,
    database: &str,
    count: usize,
    instances: &str,
) -> anyhow::Result<Vec<BenchNode>> {
    let url = server.url(database);
    let options = ["--store", &url, "--lease", "10", "--max-instances", instances];
    (0..count).map(|_| BenchNode::start_with(&options)).collect()
}

/// Returns once this node has heard of a function that another one has deployed.
pub(super) async fn know(node: &BenchNode, function: &str) -> anyhow::Result<()> {
    let path = format!("/v2/default/fgs/functions/{function}/config");
    let looks = async {
        // Looking, not waiting for an end: only the start of the measured part depends on it.
        while node.send(Method::GET, &path, None).await?.status() != 200 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(LIMIT, looks).await.context("the function is not on every node")?
}

/// What of the floor is not the request and not the database.
enum Rest {
    /// As many runtimes as nodes are killed.
    Kill(Server),
    /// As many are woken.
    Wake(Vec<Sleeper>),
}

/// Cancels of a chain of requests, one on each node.
struct Spread<'a> {
    site: &'a Site,
    bare: &'a BareServer,
    told: &'a mut Bare,
    bell: Bell,
    function: &'static str,
    kind: Value,
    asked: Asked,
    rest: Rest,
}

/// A chain of so many, each the child of the one before.
fn chain(length: usize, bell: &str) -> Value {
    let children = if length > 1 { vec![chain(length - 1, bell)] } else { Vec::new() };
    json!({ "bell": bell, "children": children })
}

impl Scenario for Spread<'_> {
    async fn floor(&mut self) -> anyhow::Result<Duration> {
        let count = self.site.nodes.len();
        let mut runtimes: Vec<Runtime> = Vec::new();
        if let Rest::Kill(server) = &mut self.rest {
            for _ in 0..count {
                runtimes.push(server.runtime(self.site.nodes[0].data(), PYTHON).await?);
            }
        }
        let request = self.bare.round_trip().await? + self.told.told().await?;
        let rest = match &mut self.rest {
            Rest::Kill(_) => floors::kill_all(runtimes.iter_mut().map(|runtime| &mut runtime.child))?,
            Rest::Wake(sleepers) => floors::wake_all(sleepers)?,
        };
        Ok(request + rest)
    }

    async fn ours(&mut self) -> anyhow::Result<Sample> {
        let nodes = &self.site.nodes;
        let root = nodes[0].accepted(self.function, &chain(nodes.len(), &self.bell.name)).await?;
        let mut rings = Vec::new();
        for _ in nodes {
            rings.push(self.bell.ring().await?);
        }
        let at = match self.asked {
            Asked::AtRoot => 0,
            Asked::AtLeaf => self.site.leaf_of(&root).await?,
        };
        let (took, cancel) = nodes[at].cancel(self.function, &root, &self.kind).await?;
        drop(rings);
        let receipt = nodes[at].send(Method::GET, &format!("/quell/v1/receipts/{cancel}"), None).await?;
        let receipt: Value = receipt.json().await?;
        let parts = receipt["parts"].as_array().map_or(0, Vec::len);
        // Where it is asked at the root's node, that has its own without a part.
        let elsewhere = if self.asked == Asked::AtRoot { nodes.len() - 1 } else { nodes.len() };
        ensure!(parts == elsewhere, "{parts} parts over {} nodes: {receipt}", nodes.len());
        let local = phases(took, &receipt);
        Ok(Sample { took, phases: if self.asked == Asked::AtRoot { local } else { Vec::new() } })
    }
}

pub(crate) async fn measure(effort: Effort, found: &mut Found) -> anyhow::Result<()> {
    let server = match Postgres::start() {
        Ok(server) => server,
        Err(why) => {
            found.skip("cancels over several nodes, and what one PostgreSQL holds", format!("{why:#}"));
            return Ok(());
        }
    };
    let bare = BareServer::start()?;
    let mut told = server.bare().await?;
    let full = effort.samples >= 20;
    for count in NODES.into_iter().filter(|count| full || *count <= QUICK_NODES) {
        let site = Site::start(&server, count).await?;
        over(effort, &site, &bare, &mut told, found).await?;
    }
    rates::measure(effort, &server, found).await
}

/// Every row of one number of nodes.
async fn over(
    effort: Effort,
    site: &Site,
    bare: &BareServer,
    told: &mut Bare,
    found: &mut Found,
) -> anyhow::Result<()> {
    let count = site.nodes.len();
    let force = json!({ "force": true, "recursive": true });
    let killed =
        "request + commit that another connection has heard of + SIGKILL to reaped of as many runtimes";
    let woken = "request + commit that another connection has heard of + one wake of as many runtimes";
    let mut rows =
        vec![(Asked::AtRoot, "part", force.clone(), "recursive force, asked at the root's node", killed)];
    if count == MAIN {
        rows.push((Asked::AtLeaf, "part", force, "recursive force, asked at the leaf's node", killed));
        rows.push((
            Asked::AtRoot,
            "asked",
            json!({ "type": "recursive" }),
            "recursive, asked (cooperative)",
            woken,
        ));
    }
    for (asked, function, kind, what, floor) in rows {
        let at = if asked == Asked::AtRoot { "root" } else { "leaf" };
        let mut title =
            Title::new(format!("nodes.{count}.{function}.{at}"), format!("{count} nodes: {what}"))
                .over(floor);
        if function == "part" && asked == Asked::AtRoot {
            title = title.placed("nodes that the tree spans", "recursive force", count as f64);
        }
        // The promise is of the cancel that kills.
        if function == "part" {
            title = title.goal(At::Median, AtMost(2.0));
        }
        let rest = match function {
            "part" => Rest::Kill(Server::start()?),
            _ => Rest::Wake(sleepers(count)?),
        };
        // A sample takes over half a second: it begins with cold starts, one after the other, and so does its floor.
        let share = match (count, asked, function) {
            (MAIN, Asked::AtRoot, "part") => 5,
            (MAIN, ..) => 10,
            _ => 12,
        };
        let (told, bell, effort) = (&mut *told, Bell::hang()?, effort.divided(share));
        let mut spread = Spread { site, bare, told, bell, function, kind, asked, rest };
        found.push(figure(title, effort, &mut spread).await?);
    }
    Ok(())
}

fn sleepers(count: usize) -> anyhow::Result<Vec<Sleeper>> {
    (0..count).map(|_| Sleeper::start(Command::new("python3").args(["-c", floors::ECHO_PYTHON]))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_has_one_request_for_each_node_and_each_but_the_last_has_one_child() {
        let mut event = &chain(3, "bell");
        let mut length = 1;
        while let Some(child) = event["children"].get(0) {
            assert_eq!((event["children"].as_array().unwrap().len(), &event["bell"]), (1, &json!("bell")));
            (event, length) = (child, length + 1);
        }
        assert_eq!(length, 3);
    }
}
