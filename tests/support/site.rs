//! A site: machines that are network namespaces, a database on the host, and a wire to each that can be cut.

use std::{
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use serde_json::json;
use tempfile::TempDir;

use super::{Bell, LOOK_AGAIN, Mode, TestNode, postgres::Postgres, within};

/// Leases in most of these tests: short, so that a lost one is not waited for long.
pub const LEASE_S: &str = "3";
/// Of each function one instance a node: a child of the same function finds its own node full.
pub const ONE_EACH: [&str; 2] = ["--max-instances", "1"];

/// Machines beside each other.
pub struct Site {
    pub database: Postgres,
    /// What has all that the database acknowledged, where there is one.
    pub standby: Option<Postgres>,
    machines: Vec<Machine>,
    bridge: String,
    /// The address of the machine that all this is on, where standbys are.
    host: String,
    /// Of the nodes that are started from here on.
    pub lease: &'static str,
}

/// One machine: a network namespace with one wire, and a data folder.
struct Machine {
    space: String,
    wire: String,
    address: String,
    folder: TempDir,
}

impl Site {
    /// So many machines, and the database on the host.
    pub fn build(machines: usize, lease: &'static str) -> Self {
        Self::build_with(machines, lease, |host, _| Postgres::start(host))
    }

    /// The same with the database on the last of the machines.
    pub fn build_apart(machines: usize, lease: &'static str) -> Self {
        Self::build_with(machines, lease, |_, machines| {
            let last = machines.last().unwrap();
            Postgres::start_in(&last.space, &last.address)
        })
    }

    fn build_with(
        machines: usize,
        lease: &'static str,
        database: impl FnOnce(&str, &[Machine]) -> Postgres,
    ) -> Self {
        static SITES: AtomicU32 = AtomicU32::new(0);
        let id = std::process::id() % 50_000;
        let nth = SITES.fetch_add(1, Ordering::Relaxed);
        let bridge = format!("qb{id}x{nth}");
        // 10.128.0.0/9 in blocks of 16 addresses, by the process: tests run beside each other.
        let block = (id * 4 + nth % 4) * 16;
        let subnet = format!("10.{}.{}", 128 + (block >> 16), (block >> 8) & 255);
        let base = block & 255;
        let host = format!("{subnet}.{}", base + 1);
        ip(&["link", "add", &bridge, "type", "bridge"]);
        ip(&["addr", "add", &format!("{host}/28"), "dev", &bridge]);
        ip(&["link", "set", &bridge, "up"]);
        let machines: Vec<_> = (0..u32::try_from(machines).unwrap())
            .map(|number| {
                Machine::plug_in(&bridge, id, nth, number, &format!("{subnet}.{}", base + 2 + number))
            })
            .collect();
        Self { database: database(&host, &machines), standby: None, machines, bridge, host, lease }
    }

    /// Starts the node of a machine, or starts it again.
    pub async fn start(&self, machine: usize, options: &[&str]) -> TestNode {
        TestNode::start_by(self.command(machine, options), self.machines[machine].folder.path()).await
    }

    /// What starts it.
    pub fn command(&self, machine: usize, options: &[&str]) -> Command {
        let at = &self.machines[machine];
        let listen = format!("{}:7171", at.address);
        let url = match &self.standby {
            Some(standby) => self.database.url_with(standby),
            None => self.database.url(),
        };
        let mut all = vec!["--store", &url, "--lease", self.lease, "--listen", &listen];
        all.extend(options);
        let quell = TestNode::command(at.folder.path(), &all);
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", at.space)).arg(quell.get_program()).args(quell.get_args());
        for (name, value) in quell.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::piped());
        command
    }

    /// The data folder of the node of a machine.
    pub fn folder(&self, machine: usize) -> &std::path::Path {
        self.machines[machine].folder.path()
    }

    /// What the command line says as a client of the node of a machine.
    pub async fn types(&self, machine: usize, args: &[&str]) -> String {
        let (done, said) = self.tries(machine, args).await;
        assert!(done, "{args:?}: {said}");
        said
    }

    /// The same if it may fail: whether it did not, and all that it said.
    pub async fn tries(&self, machine: usize, args: &[&str]) -> (bool, String) {
        let mut command = TestNode::client_command(self.machines[machine].folder.path(), args);
        let typing = tokio::task::spawn_blocking(move || command.output());
        let done = within("quell", typing).await.unwrap().unwrap();
        let said = [done.stdout, done.stderr].concat();
        (done.status.success(), String::from_utf8_lossy(&said).into_owned())
    }

    /// Cuts the wire of a machine: what is sent is lost, and nobody is told.
    pub fn cut(&self, machine: usize) {
        ip(&["link", "set", &self.machines[machine].wire, "down"]);
    }

    /// Mends it.
    pub fn mend(&self, machine: usize) {
        ip(&["link", "set", &self.machines[machine].wire, "up"]);
    }
}

/// Three machines, each with a node that runs one instance, and the function.
pub async fn three() -> (Site, Vec<TestNode>, Bell) {
    three_with(LEASE_S).await
}

pub async fn three_with(lease: &'static str) -> (Site, Vec<TestNode>, Bell) {
    three_at(Site::build(3, lease)).await
}

/// The same with a standby of the database, which all of them know of.
pub async fn three_with_standby(lease: &'static str) -> (Site, Vec<TestNode>, Bell) {
    with_standby(Site::build(3, lease)).await
}

/// The same with the primary on a machine of its own, the fourth.
pub async fn three_with_standby_apart(lease: &'static str) -> (Site, Vec<TestNode>, Bell) {
    with_standby(Site::build_apart(4, lease)).await
}

async fn with_standby(mut site: Site) -> (Site, Vec<TestNode>, Bell) {
    site.standby = Some(site.database.standby(&site.host));
    three_at(site).await
}

async fn three_at(site: Site) -> (Site, Vec<TestNode>, Bell) {
    let mut nodes = Vec::new();
    for machine in 0..3 {
        nodes.push(site.start(machine, &ONE_EACH).await);
    }
    deploy(&nodes).await;
    (site, nodes, Bell::hang_in_a_folder().await)
}

pub async fn deploy(nodes: &[TestNode]) {
    let source = include_str!("../functions/tree.py");
    let more = json!({ "handler": "index.handler", "quell": { "grace_ms": 20_000 }, "memory_size": 256 });
    nodes[0].deploy("part", source, more).await;
    known(nodes, "part").await;
}

/// Waits until every node has the function: the others hear of it by a notification.
pub async fn known(nodes: &[TestNode], function: &str) {
    for node in nodes {
        within("the function on every node", async {
            // It says that the function is unknown as long as that is.
            let nobody = "00000000-0000-4000-8000-000000000000";
            while node.cancel(function, nobody, Mode::Plain).await.status != 400 {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        })
        .await;
    }
}

impl Machine {
    fn plug_in(bridge: &str, id: u32, nth: u32, number: u32, address: &str) -> Self {
        let space = format!("quell-{id}-{nth}-{number}");
        let (wire, inside) = (format!("qw{id}x{nth}{number}"), format!("qi{id}x{nth}{number}"));
        ip(&["netns", "add", &space]);
        ip(&["link", "add", &wire, "type", "veth", "peer", "name", &inside]);
        ip(&["link", "set", &inside, "netns", &space]);
        ip(&["link", "set", &wire, "master", bridge, "up"]);
        ip(&["-n", &space, "link", "set", "lo", "up"]);
        ip(&["-n", &space, "addr", "add", &format!("{address}/28"), "dev", &inside]);
        ip(&["-n", &space, "link", "set", &inside, "up"]);
        Self { space, wire, address: address.to_owned(), folder: TestNode::folder() }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for machine in &self.machines {
            try_ip(&["link", "del", &machine.wire]).ok(); // what is not there needs no end
            try_ip(&["netns", "del", &machine.space]).ok(); // what is not there needs no end
        }
        try_ip(&["link", "del", &self.bridge]).ok();
    }
}

fn try_ip(args: &[&str]) -> Result<(), String> {
    let done = Command::new("ip").args(args).output().map_err(|error| error.to_string())?;
    match done.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&done.stderr).into_owned()),
    }
}

#[track_caller]
fn ip(args: &[&str]) {
    try_ip(args).unwrap_or_else(|error| panic!("ip {args:?}: {error}"));
}
