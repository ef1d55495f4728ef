//! How an instance is started: its name, its address, its environment.

use std::{net::Ipv4Addr, sync::Arc};

use cancel::{Event, InstanceId, RequestId};
use store::FunctionKey;
use tokio::sync::mpsc;

use crate::{
    codes,
    group::{Limits, SpawnOrder},
    instance::Instance,
    lifecycle,
    own_network::Surroundings,
    shell::{Shell, Timer},
    spec::FunctionSpec,
};

/// Private addresses are 127.1.0.0 to 127.254.255.255: away from the ones people use by hand.
pub(crate) const FIRST_ADDRESS: u32 = 0x7f01_0000;
const ADDRESSES: u32 = 0x00fe_0000;

impl Shell {
    /// Starts one more instance; if there is no room for it now, the function is looked at again as soon as
    /// there may be.
    pub(crate) fn start_for(&mut self, key: &Arc<FunctionKey>) -> bool {
        let started = self.start_one(key);
        if !started {
            self.crowded_out.insert(Arc::clone(key));
        }
        started
    }

    /// Starts one more instance of a function. False if the node has no room for it now.
    fn start_one(&mut self, key: &FunctionKey) -> bool {
        let starting = self.instances.values().filter(|instance| !instance.ready && !instance.ending).count();
        if starting >= self.settings.max_starting {
            return false;
        }
        if self.instances.len() + self.fork_servers.living() >= self.settings.max_instances {
            if !self.fork_servers.let_idle_go() {
                self.release_longest_idle();
            }
            return false;
        }
        let Some(function) = self.pools.get(key).map(|pool| Arc::clone(&pool.function)) else { return false };
        let (id, address) = self.fresh_instance();
        let mut instance = Instance::new(Arc::clone(&function), address);
        let surroundings = match missing_bootstrap(&function) {
            Some(why) => Err((codes::NO_BOOTSTRAP, why)),
            None => self.surroundings(&function, address).map_err(|why| (codes::INIT_FAILED, why)),
        };
        let mut failure = None;
        match surroundings {
            Err((code, why)) => {
                failure = Some(code);
                instance.start_failure = Some(why);
            }
            Ok((surroundings, port)) => {
                self.metrics.starts.count();
                instance.port = port;
                let (control, commands) = mpsc::channel(lifecycle::CONTROLS);
                instance.control = Some(control);
                instance.start_timer = Some(self.set_timer(Timer::Start(id), function.start_timeout));
                let spawn = self.spawn_order(id, &surroundings, &function);
                let fork_server = self.fork_server_of(&function);
                tokio::spawn(lifecycle::run(
                    id,
                    lifecycle::Start { spawn, surroundings, function: Arc::clone(&function), fork_server },
                    Arc::clone(&self.spawner),
                    self.doors.clone(),
                    self.settings.kill_timeout,
                    self.inbox.clone(),
                    commands,
                ));
            }
        }
        self.instances.insert(id, instance);
        if let Some(pool) = self.pools.get_mut(key) {
            pool.instances.push(id);
        }
        self.count_instances(key);
        self.tell(Event::InstanceStarted { instance: id, capacity: function.concurrency });
        if let Some(code) = failure {
            self.metrics.failed_starts.count();
            // Somebody must be told: the request that asked for this instance.
            if let Some(first) = self.pools.get(key).and_then(|pool| pool.all_waiting().first().copied()) {
                self.bind_and_fail(key, first, id);
            }
            self.tell(Event::StartFailed { instance: id, code });
            self.tell(Event::Reaped(id));
            self.forget_instance(id);
        }
        true
    }

    fn bind_and_fail(&mut self, key: &FunctionKey, request: RequestId, instance: InstanceId) {
        let Some(record) = self.requests.get_mut(&request) else { return };
        record.instance = Some(instance);
        record.failure = self.instances.get(&instance).and_then(|instance| instance.start_failure.clone());
        if let Some(pool) = self.pools.get_mut(key) {
            pool.leave(record.order);
        }
        self.tell(Event::Placed { request, instance });
    }

    fn fresh_instance(&mut self) -> (InstanceId, Ipv4Addr) {
        loop {
            let id = self.next_instance;
            self.next_instance += 1;
            let low = u32::try_from(id % u64::from(ADDRESSES)).unwrap_or(0);
            // After 16 million instances the addresses come round; a live one keeps its own.
            if let std::collections::hash_map::Entry::Vacant(free) = self.addresses.entry(low) {
                free.insert(InstanceId(id));
                return (InstanceId(id), Ipv4Addr::from_bits(FIRST_ADDRESS + low));
            }
        }
    }

    pub(crate) fn spawn_order(
        &self,
        id: InstanceId,
        around: &Surroundings,
        function: &FunctionSpec,
    ) -> SpawnOrder {
        let address = *around.address.ip();
        let image = &function.image;
        let mut command = image.command.iter().map(|word| self.fill(word, id, address, function));
        let mut env = self.environment(id, address, function);
        let more = around.environment();
        env.retain(|(name, _)| more.iter().all(|(other, _)| name != other));
        env.extend(more);
        SpawnOrder {
            instance: id,
            program: command.next().unwrap_or_default(),
            args: command.collect(),
            env,
            cwd: function.code_dir.clone(),
            keep: vec![function.code_dir.clone(), image.dir.clone()],
            limits: Limits {
                memory: Some(u64::from(function.memory_mb) << 20),
                processes: Some(self.settings.max_processes),
                tmp: self.settings.tmp_bytes,
            },
            listen: around.listen(),
        }
    }
}

fn missing_bootstrap(function: &FunctionSpec) -> Option<String> {
    let required = function.image.requires.as_ref()?;
    let found = function.code_dir.join(required).is_file();
    (!found).then(|| format!("bootstrap file is not found: {required}"))
}
