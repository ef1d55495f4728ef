//! Fork servers: for a function that asks for it, a process that has imported its code and forks its instances.
//!
//! One for each version in use, of its current revision. It lives as long as somebody holds it: the shell, until
//! the function changes, goes, or the node needs the room; and each instance that it forked, since it may not
//! outlive it (they are in one PID namespace). Where it is of no use, instances are executed as ever, and say why.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use cancel::InstanceId;
use tokio::sync::{Notify, mpsc, watch};

use crate::{
    group::{ForkError, Group, OutputRing, SpawnOrder, Spawner, Template},
    message::Message,
};

/// What becomes of a fork server.
pub(crate) enum News {
    /// It has a process.
    Started(Arc<Group>),
    /// It could not be killed in time: its processes, in words.
    Stuck(String),
    /// Nothing of it is left.
    Ended,
}

/// Whether it forks.
#[derive(Clone)]
enum State {
    Importing,
    Ready(Arc<Template>),
    /// It forks nothing any more, and why; `retry`: another one might.
    Useless {
        why: Arc<str>,
        retry: bool,
    },
}

/// To a fork server. It lives until the last of these is gone.
pub(crate) struct ForkServer {
    state: watch::Receiver<State>,
    /// To be told that it did not do as it was asked.
    broken: Arc<Broken>,
    /// Nothing is sent: its end tells the task that nobody holds it any more.
    _held: mpsc::Sender<()>,
}

#[derive(Default)]
struct Broken {
    told: Notify,
    why: OnceLock<(String, bool)>,
}

impl Broken {
    fn tell(&self, why: String, retry: bool) {
        // The first reason is the one.
        drop(self.why.set((why, retry)));
        self.told.notify_one();
    }
}

/// What a fork server is started with.
pub(crate) struct Start {
    pub(crate) id: InstanceId,
    pub(crate) spawn: SpawnOrder,
    /// Of its import.
    pub(crate) limit: Duration,
    pub(crate) kill_timeout: Duration,
}

impl ForkServer {
    /// One that is of no use from the start.
    pub(crate) fn useless(why: &str) -> Self {
        let (_, state) = watch::channel(State::Useless { why: why.into(), retry: false });
        let (held, _) = mpsc::channel(1);
        Self { state, broken: Arc::default(), _held: held }
    }

    /// Starts one; its task sends [`News`] into the inbox, the last of them when it is proven gone.
    pub(crate) fn start(start: Start, spawner: Arc<Spawner>, inbox: mpsc::Sender<Message>) -> Self {
        let (told, state) = watch::channel(State::Importing);
        let (held, holders) = mpsc::channel(1);
        let broken = Arc::new(Broken::default());
        let task = Task { told, holders, broken: Arc::clone(&broken), inbox, id: start.id };
        tokio::spawn(task.run(start, spawner));
        Self { state, broken, _held: held }
    }

    /// Whether it died, or did not do as asked, so that another may be tried.
    pub(crate) fn is_to_be_replaced(&self) -> bool {
        matches!(&*self.state.borrow(), State::Useless { retry: true, .. })
    }

    /// Resolves when it is known whether it forks; with why not, if it does not.
    pub(crate) async fn ready(&self) -> Result<(), String> {
        let mut state = self.state.clone();
        match state.wait_for(|state| !matches!(state, State::Importing)).await.as_deref() {
            Ok(State::Useless { why, .. }) => Err(why.to_string()),
            Ok(_) => Ok(()),
            Err(_) => Err("it has ended".to_owned()),
        }
    }

    /// Has it fork an instance.
    ///
    /// # Errors
    /// Why not, in words: the instance is to be executed.
    pub(crate) async fn fork(&self, spawner: &Spawner, order: SpawnOrder) -> Result<Group, String> {
        let template = match &*self.state.borrow() {
            State::Ready(template) => Arc::clone(template),
            State::Importing => return Err("it is not ready".to_owned()),
            State::Useless { why, .. } => return Err(why.to_string()),
        };
        spawner.fork(template, order).await.map_err(|error| {
            let why = error.to_string();
            match error {
                ForkError::Refused(_) => self.broken.tell(why.clone(), false),
                ForkError::Failed(_) => self.broken.tell(why.clone(), true),
                ForkError::Room(_) => {}
            }
            why
        })
    }
}

struct Task {
    id: InstanceId,
    told: watch::Sender<State>,
    holders: mpsc::Receiver<()>,
    broken: Arc<Broken>,
    inbox: mpsc::Sender<Message>,
}

impl Task {
    async fn run(mut self, start: Start, spawner: Arc<Spawner>) {
        let group = match spawner.spawn(start.spawn).await {
            Ok(group) => Arc::new(group),
            Err(error) => {
                self.useless(error.to_string(), true);
                return self.tell(News::Ended).await;
            }
        };
        // Read, so that it never waits for that; what it says of an import an executed instance says again.
        let output = group.take_output().map(|output| OutputRing::start(self.id, output));
        self.tell(News::Started(Arc::clone(&group))).await;
        self.serve(&group, start.limit).await;
        self.end(&group, start.kill_timeout).await;
        if let Some(output) = output {
            output.finish();
        }
        self.tell(News::Ended).await;
    }

    /// Until it is to be ended.
    async fn serve(&mut self, group: &Arc<Group>, limit: Duration) {
        let template = match Template::start(Arc::clone(group)) {
            Ok(template) => Arc::new(template),
            Err(error) => return self.useless(error.to_string(), true),
        };
        let waiting = Arc::clone(&template);
        let ready = tokio::task::spawn_blocking(move || waiting.wait_ready(limit));
        let ready = tokio::select! {
            ready = ready => ready,
            _ = self.holders.recv() => return,
        };
        match ready {
            Ok(Ok(())) => {}
            Ok(Err(ForkError::Refused(why))) => return self.useless(why, false),
            Ok(Err(error)) => return self.useless(error.to_string(), true),
            Err(error) => return self.useless(error.to_string(), true),
        }
        tracing::info!(fork_server = %self.id, "ready to fork instances");
        self.told.send_replace(State::Ready(template));
        tokio::select! {
            _ = self.holders.recv() => return,
            () = self.broken.told.notified() => {
                let (why, retry) = self.broken.why.get().cloned().unwrap_or_default();
                self.useless(why, retry);
            }
            _ = group.exited() => return self.useless("the fork server has ended".to_owned(), true),
        }
        // Those that it forked serve on; it ends with the last of them.
        tokio::select! {
            _ = self.holders.recv() => {}
            _ = group.exited() => {}
        }
    }

    fn useless(&self, why: String, retry: bool) {
        tracing::warn!(fork_server = %self.id, why, "no instances are forked");
        self.told.send_replace(State::Useless { why: why.into(), retry });
    }

    async fn end(&self, group: &Group, kill_timeout: Duration) {
        let mut told = false;
        while let Err(why) = group.end(kill_timeout).await {
            // Still watched: a late proof is a proof.
            if !told {
                told = true;
                self.tell(News::Stuck(why.to_string())).await;
            }
            if self.inbox.is_closed() {
                return;
            }
        }
    }

    async fn tell(&self, news: News) {
        if self.inbox.send(Message::ForkServer(self.id, news)).await.is_err() {
            tracing::debug!("the shell has ended before a fork server's task");
        }
    }
}
