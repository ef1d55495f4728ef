//! The task of one instance: spawn, let go, watch, end, prove. It carries out; it decides nothing.

use std::{sync::Arc, time::Duration};

use cancel::InstanceId;
use tokio::sync::mpsc;

use crate::{
    doors::Doors,
    fork_server::ForkServer,
    group::{Group, SpawnError, SpawnOrder, Spawner},
    message::Message,
    own_network::{Begun, Surroundings},
    pre_stop::Hook,
    spec::FunctionSpec,
};

/// What the shell tells the task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    /// Send the soft signal to the whole group.
    Terminate,
    /// It has nothing to do: let it run its pre-stop handler, for so long, and then end it and prove it.
    Retire(Duration),
    /// End it now and prove it.
    Kill,
}

/// What is started, and the door it may come back through.
pub(crate) struct Start {
    pub(crate) spawn: SpawnOrder,
    /// What it has besides its processes.
    pub(crate) surroundings: Surroundings,
    /// What it runs.
    pub(crate) function: Arc<FunctionSpec>,
    /// Who forks it, if that is possible.
    pub(crate) fork_server: Option<Arc<ForkServer>>,
}

/// Commands one instance can ever get: each of the three at most once.
pub(crate) const CONTROLS: usize = 3;

/// Runs an instance from its spawn to its proof. Ends only after `Reaped` was sent (or the inbox is
/// gone): an instance that cannot be killed keeps being watched.
pub(crate) async fn run(
    instance: InstanceId,
    start: Start,
    spawner: Arc<Spawner>,
    doors: Doors,
    kill_timeout: Duration,
    inbox: mpsc::Sender<Message>,
    mut control: mpsc::Receiver<Control>,
) {
    // The fork server is held to the end: it does not end before what it forked.
    let Start { spawn, surroundings, function, fork_server } = start;
    let made = make(fork_server.as_deref(), spawn, &spawner, &mut control).await;
    let (group, not_forked) = match made {
        Some(Ok((group, not_forked))) => (Arc::new(group), not_forked),
        // Killed before there was anything of it.
        None => return tell(&inbox, Message::Reaped { instance, proof: None }).await,
        Some(Err(error)) => {
            let why = error.to_string();
            tell(&inbox, Message::SpawnFailed { instance, why }).await;
            // The engine answers a failed start with a kill; there is nothing to kill.
            while control.recv().await.is_some_and(|control| control == Control::Terminate) {}
            return tell(&inbox, Message::Reaped { instance, proof: None }).await;
        }
    };
    tell(&inbox, Message::Spawned { instance, group: Arc::clone(&group), not_forked }).await;
    // A kill that came while the process was being made wins: nothing of the runtime was executed.
    let killed_before_go = loop {
        match control.try_recv() {
            Ok(Control::Kill | Control::Retire(_)) => break true,
            Ok(Control::Terminate) => {}
            Err(_) => break false,
        }
    };
    if !killed_before_go {
        // Before it can run, and so before it can knock.
        doors.open(*surroundings.address.ip(), group.leaf_id(), surroundings.concurrency);
        doors.name(*surroundings.address.ip(), function);
        let begun = surroundings.begin(&group, &doors);
        match &begun {
            Ok(_) => {
                if let Err(error) = group.go() {
                    // The helper is gone already; its exit says so below.
                    tracing::warn!(%instance, %error, "could not let the runtime go");
                }
            }
            Err(error) => {
                let why = format!("its network cannot be used: {error}");
                tell(&inbox, Message::SpawnFailed { instance, why }).await;
            }
        }
        until_killed(instance, &group, &inbox, &mut control, begun.as_ref().ok()).await;
        // No connection to it, and none of its network, outlives this.
        drop(begun);
    }
    end(instance, &group, kill_timeout, &inbox).await;
}

/// Its processes, which wait, and why they were not forked if they should have been. `None` if it was killed
/// while its fork server was not ready: there is nothing of it.
async fn make(
    fork_server: Option<&ForkServer>,
    order: SpawnOrder,
    spawner: &Spawner,
    control: &mut mpsc::Receiver<Control>,
) -> Option<Result<(Group, Option<String>), SpawnError>> {
    let Some(server) = fork_server else {
        return Some(spawner.spawn(order).await.map(|group| (group, None)));
    };
    let ready = loop {
        tokio::select! {
            biased;
            command = control.recv() => match command {
                Some(Control::Terminate) => {}
                Some(Control::Kill | Control::Retire(_)) | None => return None,
            },
            ready = server.ready() => break ready,
        }
    };
    let why = match ready {
        Err(why) => why,
        Ok(()) => match server.fork(spawner, order.clone()).await {
            Ok(group) => return Some(Ok((group, None))),
            Err(why) => why,
        },
    };
    tracing::info!(instance = %order.instance, why, "executed, not forked");
    Some(spawner.spawn(order).await.map(|group| (group, Some(why))))
}

async fn until_killed(
    instance: InstanceId,
    group: &Group,
    inbox: &mpsc::Sender<Message>,
    control: &mut mpsc::Receiver<Control>,
    begun: Option<&Begun>,
) {
    let mut exit_told = false;
    let mut hook = Hook::default();
    loop {
        tokio::select! {
            biased;
            command = control.recv() => match command {
                Some(Control::Terminate) => {
                    if let Err(error) = group.terminate() {
                        tracing::warn!(%instance, %error, "soft signal not sent; the grace will end in a kill");
                    }
                }
                Some(Control::Retire(limit)) => {
                    if exit_told || !hook.begin(instance, group, limit) {
                        return;
                    }
                }
                // A closed channel means that the shell is gone: end with it.
                Some(Control::Kill) | None => return hook.cut_short(instance),
            },
            exit = group.exited(), if !exit_told => {
                exit_told = true;
                if let Some(begun) = begun {
                    begun.exited.cancel();
                }
                let exit = exit.inspect_err(|error| tracing::error!(%instance, %error, "exit not readable"));
                let out_of_memory = group.out_of_memory();
                if hook.is_under_way() {
                    hook.over(instance, exit.as_ref().ok());
                }
                tell(inbox, Message::Exited { instance, exit: exit.ok(), out_of_memory }).await;
                if hook.is_under_way() {
                    return;
                }
            }
            () = hook.limit_passed() => return hook.timed_out(instance),
        }
    }
}

async fn end(instance: InstanceId, group: &Group, kill_timeout: Duration, inbox: &mpsc::Sender<Message>) {
    let mut told = false;
    loop {
        match group.end(kill_timeout).await {
            Ok(proof) => return tell(inbox, Message::Reaped { instance, proof: Some(proof) }).await,
            Err(why) if !told => {
                told = true;
                tell(inbox, Message::NotReaped { instance, why }).await;
            }
            // Still watched: each round waits for its processes, and a late proof is still a proof.
            Err(why) => tracing::warn!(%instance, ?why, "still not proven dead"),
        }
        if inbox.is_closed() {
            return;
        }
    }
}

async fn tell(inbox: &mpsc::Sender<Message>, message: Message) {
    if inbox.send(message).await.is_err() {
        tracing::debug!("the shell has ended before an instance's task");
    }
}
