//! Pre-stop handlers: what an instance may do before it is ended that has nothing more to do.
//!
//! Only an instance that serves nobody gets that time: retired as idle, replaced by an update, or at the end of
//! a drain that nothing holds up. Whatever kills for a cancel, a limit or a node in a hurry does not wait for it.

use std::time::Duration;

use cancel::InstanceId;
use tokio::time::Instant;

use crate::{
    group::{Exit, Group},
    lifecycle::Control,
    shell::Shell,
};

impl Shell {
    /// How long an instance that is to end may run its pre-stop handler; `None`: it is killed at once.
    pub(crate) fn hook_of(&self, id: InstanceId) -> Option<Duration> {
        let instance = self.instances.get(&id)?;
        let hurried = self.draining.as_ref().is_some_and(|draining| draining.hurried);
        // Who holds a request, or code of one, is not being retired; what never initialised, or has ended by
        // itself, has nothing to clean up.
        let serves = self.engine.instance(id).is_some_and(|view| !view.tenants.is_empty());
        let ended = instance.exit.is_some() || instance.ended_by_itself;
        let may = instance.ready && instance.is_idle() && !serves && !ended && !hurried;
        let hook = instance.function.pre_stop.as_ref().filter(|_| may)?;
        Some(hook.timeout)
    }

    pub(crate) fn retire(&mut self, id: InstanceId, limit: Duration) {
        if let Some(instance) = self.instances.get_mut(&id) {
            instance.retiring = true;
        }
        self.control(id, Control::Retire(limit));
    }

    /// Kills what runs its pre-stop handler.
    pub(crate) fn end_hooks(&mut self) {
        let retiring = self.instances.iter_mut().filter(|(_, instance)| instance.retiring);
        let retiring: Vec<InstanceId> = retiring
            .map(|(id, instance)| {
                instance.retiring = false;
                *id
            })
            .collect();
        for id in retiring {
            let control = self.instances.get(&id).and_then(|instance| instance.control.clone());
            if let Some(control) = control {
                control.try_send(Control::Kill).ok(); // closed: its handler is over, and it is ended already
            }
        }
    }
}

/// A pre-stop handler as the task of its instance watches it.
#[derive(Debug, Default)]
pub(crate) struct Hook {
    limit: Option<(Instant, Duration)>,
}

impl Hook {
    /// Asks the runtime to end by itself. False if it cannot be asked: then there is nothing to wait for.
    pub(crate) fn begin(&mut self, instance: InstanceId, group: &Group, limit: Duration) -> bool {
        if let Err(error) = group.retire() {
            tracing::warn!(%instance, %error, "it cannot be asked to run its pre-stop handler; it is killed");
            return false;
        }
        self.limit = Some((Instant::now() + limit, limit));
        true
    }

    pub(crate) fn is_under_way(&self) -> bool {
        self.limit.is_some()
    }

    /// Resolves when the handler has had its time; never if there is none. Cancellation-safe.
    pub(crate) async fn limit_passed(&self) {
        match self.limit {
            Some((end, _)) => tokio::time::sleep_until(end).await,
            None => std::future::pending().await,
        }
    }

    /// The runtime has ended, by itself or for want of a handler for the signal.
    pub(crate) fn over(&self, instance: InstanceId, exit: Option<&Exit>) {
        match exit {
            Some(Exit::Code(0)) => tracing::info!(%instance, "its pre-stop handler is done"),
            Some(exit) => tracing::warn!(%instance, code = FAILED, %exit, "its pre-stop handler failed"),
            None => {}
        }
    }

    pub(crate) fn timed_out(&self, instance: InstanceId) {
        let limit = self.limit.map(|(_, limit)| limit.as_secs()).unwrap_or_default();
        tracing::warn!(%instance, code = FAILED, limit_s = limit, "its pre-stop handler did not end in time: killed");
    }

    pub(crate) fn cut_short(&self, instance: InstanceId) {
        if self.is_under_way() {
            tracing::warn!(%instance, "killed in the middle of its pre-stop handler");
        }
    }
}

/// The service's code for a pre-stop handler that failed (`functiongraph.md` 5.2). No request ends with it.
const FAILED: u16 = 4203;
