//! Labels of nodes: which functions this node may run, and what becomes of requests of the others.
//!
//! A function that asks for a label which is not here has no instances here: to the shell it is disabled. What is accepted of it
//! is any node's at once, and what is here already is given back, so that nothing waits where it cannot run. A lone node has
//! nobody to give it to: there it waits until the node, or the function, is another.

use std::sync::Arc;

use cancel::{Event, RequestId};
use store::FunctionKey;

use crate::{
    codes,
    handle::{Invocation, InvokeError},
    message::Mode,
    pool::Pool,
    shell::Shell,
    spec::FunctionSpec,
};

impl Shell {
    /// Whether a function asks for labels that this node does not have.
    pub(crate) fn lacks_labels(&self, function: &FunctionSpec) -> bool {
        !self.settings.node_labels.include(&function.node_labels)
    }

    /// A function as this node runs it: one that asks for labels which are not here has no instances.
    pub(crate) fn as_here(&self, function: Arc<FunctionSpec>) -> Arc<FunctionSpec> {
        if !self.lacks_labels(&function) {
            return function;
        }
        let (max_instances, reserved, fork_server) = (0, 0, false);
        Arc::new(FunctionSpec { max_instances, reserved, fork_server, ..FunctionSpec::clone(&function) })
    }

    /// Refuses what could only run here, and may not.
    pub(crate) fn may_run_here(&self, invocation: &Invocation, mode: &Mode) -> Result<(), InvokeError> {
        let bound_to_here = match mode {
            Mode::Sync(_) => true,
            Mode::Async(_) => self.nodes.is_none(),
            Mode::Kept(_) => false, // it is owed a run, by whoever may
        };
        match bound_to_here && self.lacks_labels(&invocation.function) {
            false => Ok(()),
            true => {
                let asked = invocation.function.node_labels.clone();
                let missing = self.settings.node_labels.missing(&asked);
                Err(InvokeError::LacksLabels { asked, missing })
            }
        }
    }

    /// Lets go of what waits here of a function that this node may not run.
    pub(crate) fn let_go_of_waiting(&mut self, key: &FunctionKey) {
        let Some(pool) = self.pools.get(key).filter(|pool| self.lacks_labels(&pool.function)) else { return };
        let mut left = Vec::new();
        for id in pool.all_waiting() {
            match self.requests.get(&id).map(|request| request.asynchronous) {
                Some(true) if self.draining.is_none() && self.left_to_others(id) => left.push(id),
                Some(false) => self.refuse_waiting(id),
                _ => {}
            }
        }
        if let Some(nodes) = self.nodes.as_ref().filter(|_| !left.is_empty()) {
            nodes.give_back_later(left);
        }
    }

    /// Whether it is gone from this node, for others to run. Not while it is being stopped, or has children here from an
    /// attempt that failed: then it is looked at again.
    fn left_to_others(&mut self, id: RequestId) -> bool {
        let covered = self.requests.get(&id).is_some_and(|request| !request.covered_by.is_empty());
        if self.nodes.is_none() || covered {
            return false;
        }
        self.tell(Event::Withdrawn(id));
        if self.engine.request(id).is_some() {
            return false;
        }
        self.withdraw(id);
        true
    }

    /// Its function has come to ask for more than is here, and its caller waits on this node.
    fn refuse_waiting(&mut self, id: RequestId) {
        if let Some(request) = self.requests.get_mut(&id) {
            let missing = self.settings.node_labels.missing(&request.function.node_labels);
            request.failure = Some(format!("function asks for node labels that this node lacks: {missing}"));
        }
        self.tell(Event::Expired { request: id, code: codes::NO_INSTANCE });
    }

    /// Looks again at functions of which something waits that this node may not run.
    pub(crate) fn look_again_at_misplaced(&mut self) {
        let misplaced = |pool: &Pool| pool.waiting() > 0 && self.lacks_labels(&pool.function);
        let keys = self.pools.iter().filter(|(_, pool)| misplaced(pool)).map(|(key, _)| Arc::clone(key));
        self.dirty.extend(keys.collect::<Vec<_>>());
    }
}
