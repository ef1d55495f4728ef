//! What the shell has to do with logs: whose lines are whose, and when whoever prints them has ended.

use std::sync::Arc;

use cancel::InstanceId;
use store::FunctionFilter;
use tokio::sync::oneshot;

use crate::{
    group::{Group, OutputRing},
    logs::{Live, LogOf, Named},
    shell::Shell,
};

/// Whoever waits for the end of something. Dropped with it.
#[derive(Default)]
pub(crate) struct Followers(Vec<oneshot::Sender<()>>);

impl Followers {
    /// As many as follow at once: those that are gone make room.
    fn add(&mut self) -> oneshot::Receiver<()> {
        self.0.retain(|follower| !follower.is_closed());
        let (sender, receiver) = oneshot::channel();
        self.0.push(sender);
        receiver
    }
}

impl Shell {
    /// Reads what a new instance prints, into a log if there are any.
    pub(crate) fn capture(&mut self, id: InstanceId, group: &Arc<Group>) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        let Some(output) = group.take_output() else { return };
        instance.output = Some(match &self.logs {
            Some(logs) => {
                let log = logs.of(id, &instance.function.key);
                instance.log = Some(log.stem().to_owned());
                OutputRing::start_logged(id, output, log, instance.function.concurrency == 1)
            }
            None => OutputRing::start(id, output),
        });
    }

    /// Where a log is, with all that was printed until now on its way there.
    pub(crate) fn log_asked(&mut self, of: LogOf, project: String, respond: oneshot::Sender<Live>) {
        let mut named = Named { of, project, function: None, stem: None };
        let ended = match named.of.clone() {
            LogOf::Request(request) => {
                let own = self.function_of(request).filter(|function| function.project == named.project);
                let record = self.requests.get_mut(&request).filter(|_| own.is_some());
                record.map(|record| {
                    named.function = Some((*record.function.key).clone());
                    let at = record.instance.and_then(|at| self.instances.get(&at));
                    at.and_then(|at| at.output.as_ref()).map(OutputRing::printed);
                    record.followers.add()
                })
            }
            LogOf::Instance(instance) => {
                let found = self.instances.iter_mut().find(|(id, _)| id.to_string() == instance);
                let found = found.filter(|(_, found)| found.function.key.project == named.project);
                found.map(|(_, found)| {
                    named.function = Some((*found.function.key).clone());
                    named.stem.clone_from(&found.log);
                    found.output.as_ref().map(OutputRing::printed);
                    found.followers.add()
                })
            }
            LogOf::Function(filter) => self.function_logged(&filter),
        };
        respond.send(Live { named, ended }).ok(); // whoever asked may be gone
    }

    fn function_logged(&mut self, filter: &FunctionFilter) -> Option<oneshot::Receiver<()>> {
        for instance in self.instances.values().filter(|instance| filter.fits(&instance.function.key)) {
            instance.output.as_ref().map(OutputRing::printed);
        }
        let there = self.functions.keys().any(|key| filter.fits(key));
        // A function has no end but the node's.
        there.then(|| self.followers.add())
    }
}
