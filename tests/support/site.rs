//! A site: machines that are network namespaces, a database on the host, and a wire to each that can be cut.

use std::{
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use tempfile::TempDir;

use super::{TestNode, postgres::Postgres};

/// Machines beside each other.
pub struct Site {
    pub database: Postgres,
    machines: Vec<Machine>,
    bridge: String,
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
    /// So many machines, and the database.
    pub fn build(machines: usize, lease: &'static str) -> Self {
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
        let machines = (0..u32::try_from(machines).unwrap())
            .map(|number| {
                Machine::plug_in(&bridge, id, nth, number, &format!("{subnet}.{}", base + 2 + number))
            })
            .collect();
        Self { database: Postgres::start(&host), machines, bridge, lease }
    }

    /// Starts the node of a machine, or starts it again.
    pub async fn start(&self, machine: usize, options: &[&str]) -> TestNode {
        TestNode::start_by(self.command(machine, options), self.machines[machine].folder.path()).await
    }

    /// What starts it.
    pub fn command(&self, machine: usize, options: &[&str]) -> Command {
        let at = &self.machines[machine];
        let listen = format!("{}:7171", at.address);
        let url = self.database.url();
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

    pub fn folder(&self, machine: usize) -> PathBuf {
        self.machines[machine].folder.path().to_owned()
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
