//! The shell's fork servers: which function has one, and what they come to.

use std::{collections::HashMap, net::Ipv4Addr, sync::Arc};

use cancel::InstanceId;
use store::FunctionKey;

use crate::{
    fork_server::{ForkServer, News, Start},
    group::{Group, SpawnOrder},
    own_network::Surroundings,
    request::shown,
    shell::Shell,
    spec::{FunctionSpec, Network},
    view::ForkServerRow,
};

/// Fork servers of one revision that may fail: what fails so often will do so again.
const MAX_FAILED: u32 = 3;
/// What only an instance has.
const OF_AN_INSTANCE: [&str; 2] = ["RUNTIME_API_ADDR", "QUELL_INSTANCE_ID"];

/// The fork servers of a node.
#[derive(Default)]
pub(crate) struct ForkServers {
    current: HashMap<Arc<FunctionKey>, Current>,
    /// Those that are not proven gone, the current ones and others.
    living: HashMap<InstanceId, Living>,
}

struct Current {
    revision: u64,
    server: Arc<ForkServer>,
    failed: u32,
}

struct Living {
    function: Arc<FunctionSpec>,
    group: Option<Arc<Group>>,
    stuck: Option<String>,
}

impl ForkServers {
    /// How many take a place on the node.
    pub(crate) fn living(&self) -> usize {
        self.living.len()
    }

    /// Those that could not be killed, and why.
    pub(crate) fn stuck(&self) -> impl Iterator<Item = (&InstanceId, &str)> {
        self.living.iter().filter_map(|(id, living)| Some((id, living.stuck.as_deref()?)))
    }

    /// Whether all are gone that can be killed.
    pub(crate) fn are_over(&self) -> bool {
        self.living.values().all(|living| living.stuck.is_some())
    }

    /// The function is of another revision now, or gone: those of it end with their last instance.
    pub(crate) fn let_go(&mut self, key: &FunctionKey, unless: Option<u64>) {
        if self.current.get(key).is_some_and(|current| Some(current.revision) != unless) {
            self.current.remove(key);
        }
    }

    /// Lets all go.
    pub(crate) fn let_all_go(&mut self) {
        self.current.clear();
    }

    /// Lets those go that have no instance; whether there were any that then end.
    pub(crate) fn let_idle_go(&mut self) -> bool {
        let before = self.current.len();
        self.current.retain(|_, current| Arc::strong_count(&current.server) > 1);
        self.current.len() < before
    }

    /// For looking.
    pub(crate) fn rows(&self, of_project: impl Fn(&str) -> bool) -> Vec<ForkServerRow> {
        let row = |(id, living): (&InstanceId, &Living)| ForkServerRow {
            fork_server: id.to_string(),
            function: shown(&living.function),
            version: living.function.key.version.clone(),
            pid: living.group.as_ref().map(|group| group.runtime_pid()),
            containment: living.group.as_ref().map(|group| group.mechanism().to_string()),
            stuck: living.stuck.clone(),
        };
        let shown = self.living.iter().filter(|(_, living)| of_project(&living.function.key.project));
        let mut rows: Vec<_> = shown.map(row).collect();
        rows.sort_unstable_by(|one, other| one.fork_server.cmp(&other.fork_server));
        rows
    }
}

impl Shell {
    /// Who forks the instances of this function, if it asks for that; it may turn out not to.
    pub(crate) fn fork_server_of(&mut self, function: &Arc<FunctionSpec>) -> Option<Arc<ForkServer>> {
        if !function.fork_server {
            return None;
        }
        let key = &function.key;
        let current = self.fork_servers.current.get(key).filter(|held| held.revision == function.revision);
        let mut failed = current.map_or(0, |current| current.failed);
        if let Some(current) = current {
            if !current.server.is_to_be_replaced() || failed >= MAX_FAILED {
                return Some(Arc::clone(&current.server));
            }
            failed += 1;
        }
        let server = Arc::new(match self.cannot_fork(function) {
            Some(why) => ForkServer::useless(why),
            None => self.start_fork_server(function),
        });
        let current = Current { revision: function.revision, server: Arc::clone(&server), failed };
        self.fork_servers.current.insert(Arc::clone(key), current);
        Some(server)
    }

    fn cannot_fork(&self, function: &FunctionSpec) -> Option<&'static str> {
        if function.image.fork_server.is_empty() {
            return Some("its runtime image has no fork server");
        }
        if function.network == Network::Own || function.image.http_port.is_some() {
            return Some("its network is made with its instance");
        }
        self.spawner.containment().cannot_fork()
    }

    fn start_fork_server(&mut self, function: &Arc<FunctionSpec>) -> ForkServer {
        let id = InstanceId(self.next_instance);
        self.next_instance += 1;
        let nowhere = Ipv4Addr::UNSPECIFIED;
        let image = &function.image;
        let mut command = image.fork_server.iter().map(|word| self.fill(word, id, nowhere, function));
        let program = command.next().unwrap_or_default();
        let args = command.collect();
        let mut env = self.environment(id, nowhere, function);
        env.retain(|(name, _)| !OF_AN_INSTANCE.iter().any(|own| name == own));
        let order = self.spawn_order(id, &Surroundings::nothing(nowhere), function);
        let start = Start {
            id,
            spawn: SpawnOrder { program, args, env, ..order },
            limit: function.start_timeout,
            kill_timeout: self.settings.kill_timeout,
        };
        let living = Living { function: Arc::clone(function), group: None, stuck: None };
        self.fork_servers.living.insert(id, living);
        ForkServer::start(start, Arc::clone(&self.spawner), self.inbox.clone())
    }

    pub(crate) fn fork_server_news(&mut self, id: InstanceId, news: News) {
        let Some(living) = self.fork_servers.living.get_mut(&id) else { return };
        match news {
            News::Started(group) => living.group = Some(group),
            News::Stuck(why) => {
                tracing::error!(fork_server = %id, why, "could not be killed in time");
                living.stuck = Some(why);
            }
            News::Ended => {
                self.fork_servers.living.remove(&id);
                self.look_again_for_room();
            }
        }
    }
}
