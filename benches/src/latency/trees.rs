//! Recursive force over trees of requests with many processes, beside the bare kill of as many.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use nix::{
    errno::Errno,
    sys::{
        prctl,
        signal::{Signal, killpg},
        wait::waitpid,
    },
    unistd::Pid,
};
use reqwest::Method;
use serde_json::{Value, json};

use super::{
    bell::Bell,
    figure::{At, Found, Target::AtMost, Title},
    floors::{self, Standing},
    measure::{Effort, Sample, Scenario, figure},
    stops::phases,
};
use crate::{latency::floors::BareServer, node::BenchNode};

/// Requests of a tree, each on an instance of its own.
const REQUESTS: usize = 10;
/// Processes of a whole tree.
const PROCESSES: [usize; 3] = [10, 100, 1_000];

const SPAWNS: &str = "import json, socket, subprocess, time
def handler(event, context):
    line = socket.socket(socket.AF_UNIX)
    line.connect('\\0' + event['bell'])
    if event['processes'] > 1:
        shell = subprocess.Popen(['sh', '-c', event['script']], stdout=subprocess.PIPE)
        shell.stdout.readline()
    for child in event['children']:
        context.invoke_async('tree', child)
    line.sendall(b'.')
    time.sleep(300)
";
/// The floor's runtimes: as many processes below as many interpreters.
const SPAWNS_BARE: &str = "import os, subprocess, sys
if sys.argv[1]:
    shell = subprocess.Popen(['sh', '-c', sys.argv[1]], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    shell.stdout.readline()
os.write(1, b'.'); os.read(0, 1)";

/// A shell and what it starts below an interpreter, until all that stand: an interpreter alone would take several times
/// as long to start them. Empty if there is only the interpreter.
fn script(each: usize) -> String {
    match each.checked_sub(2) {
        Some(below) => {
            format!(
                "i=0; while [ $i -lt {below} ]; do sleep 1000 >&2 & i=$((i+1)); done; echo; exec sleep 1000 >&2"
            )
        }
        None => String::new(),
    }
}

/// The event of the request at this place in a tree whose parents are given.
fn event(at: usize, parents: &[usize], each: usize, bell: &str) -> Value {
    let children = (at + 1..parents.len()).filter(|child| parents[*child] == at);
    let children: Vec<Value> = children.map(|child| event(child, parents, each, bell)).collect();
    json!({ "bell": bell, "processes": each, "script": script(each), "children": children })
}

/// The parent of each request; the first has none, and names itself.
fn parents(shape: &str) -> Vec<usize> {
    let parent = |at: usize| match shape {
        "wide" => 0,
        "deep" => at.saturating_sub(1),
        _ => at.saturating_sub(1) / 3,
    };
    (0..REQUESTS).map(parent).collect()
}

struct Tree<'a> {
    node: &'a BenchNode,
    bare: &'a BareServer,
    bell: Bell,
    event: Value,
    each: usize,
}

impl Scenario for Tree<'_> {
    async fn floor(&mut self) -> anyhow::Result<Duration> {
        let request = self.bare.round_trip().await?;
        let script = script(self.each);
        let start = |_| floors::started(Command::new("python3").args(["-c", SPAWNS_BARE, &script]));
        let mut groups = (0..REQUESTS).map(start).collect::<anyhow::Result<Vec<Standing>>>()?;
        groups.iter_mut().try_for_each(Standing::stands)?;
        // This process inherits what the interpreters leave; for no longer, since it collects nobody else.
        prctl::set_child_subreaper(true)?;
        let killed = kill_groups(&mut groups);
        prctl::set_child_subreaper(false)?;
        Ok(request + killed?)
    }

    async fn ours(&mut self) -> anyhow::Result<Sample> {
        let root = self.node.accepted("tree", &self.event).await?;
        let mut rings = Vec::new();
        for _ in 0..REQUESTS {
            rings.push(self.bell.ring().await?);
        }
        let kind = json!({ "force": true, "recursive": true });
        let (took, cancel) = self.node.cancel("tree", &root, &kind).await?;
        drop(rings);
        let receipt = self.node.send(Method::GET, &format!("/quell/v1/receipts/{cancel}"), None).await?;
        let receipt: Value = receipt.json().await?;
        let stopped = receipt["requests"].as_array().map(Vec::len);
        anyhow::ensure!(stopped == Some(REQUESTS), "{stopped:?} of {REQUESTS} requests in the receipt");
        Ok(Sample { took, phases: phases(took, &receipt) })
    }
}

/// SIGKILL to every group, to the last of them collected by whoever inherits them: this process.
#[expect(clippy::disallowed_methods, reason = "the floor is the bare call; no leader is reaped before")]
fn kill_groups(groups: &mut [Standing]) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let leaders: Vec<Pid> = groups.iter().map(Standing::group).collect();
    for leader in &leaders {
        killpg(*leader, Signal::SIGKILL)?;
    }
    for leader in &leaders {
        loop {
            match waitpid(Pid::from_raw(-leader.as_raw()), None) {
                Ok(_) => {}
                Err(Errno::ECHILD) => break,
                Err(error) => return Err(error).context("the floor's processes"),
            }
        }
    }
    let took = start.elapsed();
    groups.iter_mut().for_each(Standing::collected);
    Ok(took)
}

pub(crate) async fn measure(effort: Effort, found: &mut Found) -> anyhow::Result<()> {
    let (node, bare) = (BenchNode::start()?, BareServer::start()?);
    let many = json!({ "strategy_config": { "concurrency": 64, "concurrent_num": 1 }, "memory_size": 1_024 });
    node.deploy("tree", SPAWNS, many).await?;
    // A tree takes a hundred times as long to start as to stop.
    let effort = Effort { rounds: if effort.samples >= 20 { effort.rounds } else { 2 }, ..effort };
    for processes in PROCESSES {
        for shape in ["wide", "deep", "mixed"] {
            let bell = Bell::hang()?;
            let each = processes / REQUESTS;
            let event = event(0, &parents(shape), each, &bell.name);
            let mut tree = Tree { node: &node, bare: &bare, bell, event, each };
            let what = format!("recursive force, {processes} processes, {shape}");
            let mut title = Title::new(format!("recursive.{processes}.{shape}"), what)
                .over("request + SIGKILL to all reaped of as many")
                .placed("processes in the tree", shape, processes as f64);
            if processes == 1_000 {
                title = title.goal(At::Median, AtMost(1.2));
            }
            // Starting them takes most of the time: nine figures of two sides.
            let fewer = effort.divided(20);
            found.push(figure(title, fewer, &mut tree).await?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn depth(event: &Value) -> usize {
        1 + event["children"].as_array().unwrap().iter().map(depth).max().unwrap_or(0)
    }

    fn size(event: &Value) -> usize {
        1 + event["children"].as_array().unwrap().iter().map(size).sum::<usize>()
    }

    #[test]
    fn each_shape_has_all_requests_and_its_own_depth() {
        for (shape, deep) in [("wide", 2), ("deep", REQUESTS), ("mixed", 3)] {
            let event = event(0, &parents(shape), 10, "bell");
            assert_eq!((size(&event), depth(&event)), (REQUESTS, deep), "{shape}");
        }
    }
}
