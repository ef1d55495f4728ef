//! Cancellations on their way to runtimes, and what runtimes say back (`docs/runtime-protocol.md`).
//!
//! A cancellation waits only while no held poll may hear of it, and a poll is held only while there is
//! none for it: each new one of either kind is matched once.

use std::net::Ipv4Addr;

use cancel::{Answer, Attempt, Event, InstanceId, RequestId};

use crate::{
    codes,
    message::{Heard, Listener, Notice},
    runtime_api::Carried,
    settings::MAX_POLLS,
    shell::{Shell, now_ms},
};

impl Shell {
    /// A runtime listens for cancellations: if it also says when code has ended, from now on it cooperates.
    pub(crate) fn listening(&mut self, at: Ipv4Addr, listener: Listener) {
        let Some(id) = self.at(at) else { return };
        let Some(instance) = self.instances.get_mut(&id) else { return };
        instance.listeners.retain(|held| !held.poll.is_closed());
        if instance.listeners.len() >= MAX_POLLS {
            return; // dropped: the runtime gets 503
        }
        // One process of an instance that cannot say when code has ended is enough.
        instance.only_listens |= !listener.acknowledges;
        let cooperates = !instance.only_listens;
        if cooperates {
            self.tell(Event::InstanceCooperates(id));
        }
        self.hear(id, listener);
    }

    fn hear(&mut self, id: InstanceId, listener: Listener) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        let over = listener.named.is_some_and(|(request, attempt)| !instance.holds(request, attempt));
        if over {
            drop(listener.poll.send(Heard::Over)); // it may have hung up
        } else if let Some(notice) = instance.notice_for(&listener) {
            instance.told.insert(notice.request, notice);
            let carried = Carried::new(notice, instance.address, self.inbox.clone());
            if let Err(Heard::Notice(back)) = listener.poll.send(Heard::Notice(carried)) {
                back.take();
                self.tell_notice(id, notice);
            }
        } else {
            instance.listeners.push_back(listener);
        }
    }

    /// Gives a cancellation to a held poll. If there is none for it, it waits for one.
    fn tell_notice(&mut self, id: InstanceId, notice: Notice) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        while let Some(poll) = instance.listener_for(&notice) {
            let carried = Carried::new(notice, instance.address, self.inbox.clone());
            match poll.send(Heard::Notice(carried)) {
                Err(Heard::Notice(back)) => {
                    back.take(); // it hung up: the next
                }
                Err(Heard::Over) => {}
                Ok(()) => {
                    instance.told.insert(notice.request, notice);
                    return;
                }
            }
        }
        instance.notices.push_back(notice);
    }

    /// A poll went away with a cancellation that it had been given. If there is still something to stop, the
    /// next one gets it.
    pub(crate) fn notice_dropped(&mut self, at: Ipv4Addr, notice: Notice) {
        let Some(id) = self.at(at) else { return };
        let held = self.instances.get(&id).is_some_and(|holder| holder.holds(notice.request, notice.attempt));
        if held && self.requests.get(&notice.request).is_some_and(|request| !request.draining) {
            self.tell_notice(id, notice);
        }
    }

    /// Tells a runtime that a request of it is to stop; `word` says in the receipts what was done.
    pub(crate) fn notify(&mut self, id: RequestId, instance: InstanceId, word: &str) {
        let Some(request) = self.requests.get(&id) else { return };
        let grace = request.function.grace;
        let notice = Notice {
            request: id,
            attempt: request.attempt,
            reason: self.drafts.reason(&request.covered_by),
            grace,
            grace_ends_ms: now_ms().saturating_add(i64::try_from(grace.as_millis()).unwrap_or(i64::MAX)),
        };
        let cancels = request.covered_by.clone();
        self.drafts.signal(&cancels, instance, word, &self.instances);
        self.tell_notice(instance, notice);
    }

    /// The grace of a request begins. For the engine a runtime that only listens is one that knows nothing;
    /// it is told all the same, since its code may want to clean up.
    pub(crate) fn tell_who_only_listens(&mut self, id: RequestId) {
        let Some(instance) = self.requests.get(&id).and_then(|request| request.instance) else { return };
        let Some(holder) = self.instances.get(&instance).filter(|holder| holder.only_listens) else { return };
        let asked = holder.notices.iter().any(|notice| notice.request == id);
        let cooperates = self.engine.instance(instance).is_some_and(|view| view.cooperates);
        if !asked && !cooperates {
            self.notify(id, instance, "told");
        }
    }

    /// A runtime says that no code of a cancelled invocation runs any more. Of one that nobody cancelled, or
    /// that is over, it says nothing.
    pub(crate) fn acknowledged(&mut self, at: Ipv4Addr, request: RequestId, attempt: Attempt) {
        let Some(id) = self.at(at) else { return };
        let Some(instance) = self.instances.get_mut(&id).filter(|instance| !instance.only_listens) else {
            return;
        };
        let delivered = instance.delivered.get(&request).filter(|delivery| delivery.attempt == attempt);
        if !delivered.is_some_and(|delivery| delivery.fence.is_cancelled()) {
            return;
        }
        instance.let_go(request);
        let answer = Answer::Failed { code: codes::FUNCTION_FAILED, retry: false };
        self.tell(Event::Answered { request, instance: id, attempt, answer });
        self.hand_over(id);
        self.watch_idle(id);
    }
}
