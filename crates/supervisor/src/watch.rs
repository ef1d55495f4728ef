//! Watching a project: what lives at first, and then what changes, as often as it is worth it.
//!
//! The shell says only *that* something may have changed, which costs it one look at a counter where nobody
//! watches. Whoever watches then asks for a glimpse, finds the differences to his last one himself, and waits
//! a while: so a thousand changes are one answer, and the shell's share of it is bounded.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::{Duration, Instant},
};

use cancel::{InstanceId, RequestId};
use serde::Serialize;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinError,
    time::{sleep_until, timeout_at},
};
use utoipa::ToSchema;

use crate::{
    handle::Handle,
    message::{Message, Question},
    seen::{Glimpse, SeenInstance, SeenRequest},
    shell::Shell,
    view::{InstanceRow, ProcessRow, RequestRow},
};

/// Watchers at once: one costs the shell at most a hundredth of its time, and its memory is `MAX_SHOWN` rows.
pub const MAX_WATCHERS: usize = 32;
/// Of one project: several people with a few pages each, and room for another project beside them.
pub const MAX_PROJECT_WATCHERS: usize = 16;
/// Between two looks: four pictures a second are a live view for a person.
const PAUSE: Duration = Duration::from_millis(250);
/// And so many times as long as the shell took for the last one.
const SHELL_SHARE: u32 = 100;
/// Processes come and go without a message; they are read so often,
const PROCESSES_EVERY: Duration = Duration::from_secs(2);
/// and so many times as long as reading them took.
const PROCESSES_SHARE: u32 = 20;
/// Nothing for so long is said, too: whoever hears nothing for longer knows that he is cut off.
pub const WATCH_HEARTBEAT: Duration = Duration::from_secs(5);
/// Rows of one part: a part is some 100 KiB, which a page takes in without a pause that is noticed.
const ROWS_AT_ONCE: usize = 250;

/// Why somebody may not watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// Too many do already.
    #[error("too many watch already")]
    Busy,
    /// The node has ended.
    #[error("the node has ended")]
    Ended,
}

/// What is other than it was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Changes {
    /// Nothing has changed.
    #[serde(skip)]
    same: bool,
    /// More of the same moment follows at once.
    pub more: bool,
    /// Requests that are new or other than they were: live ones, and settled ones above live ones.
    pub requests: Vec<RequestRow>,
    /// Requests that are over, or of which nothing below them lives any more.
    pub gone: Vec<String>,
    /// Instances that are new or other than they were.
    pub instances: Vec<InstanceRow>,
    /// Instances that are reaped.
    pub gone_instances: Vec<String>,
    /// Live requests of the project in all.
    pub live: u32,
    /// Whether there are more than are shown.
    pub truncated: bool,
    /// Whether the node takes no new requests.
    pub draining: bool,
    /// Results and records of cancels that the disk has refused so far; they are tried again.
    pub unwritten: u32,
}

impl Changes {
    /// Nothing has changed: this is only said so that something is.
    pub fn is_empty(&self) -> bool {
        self.same
    }

    fn rows(&self) -> usize {
        self.requests.len() + self.gone.len() + self.instances.len() + self.gone_instances.len()
    }

    /// Like these, of the same moment, and without rows.
    fn header(&self) -> Self {
        Self {
            live: self.live,
            truncated: self.truncated,
            draining: self.draining,
            unwritten: self.unwritten,
            ..Self::default()
        }
    }

    /// In parts of a bounded number of rows.
    fn parts(mut self) -> VecDeque<Self> {
        let header = self.header();
        let mut parts = VecDeque::new();
        while self.rows() > ROWS_AT_ONCE {
            let mut room = ROWS_AT_ONCE;
            let mut part = Self { more: true, ..header.clone() };
            part.gone = first(&mut self.gone, &mut room);
            part.requests = first(&mut self.requests, &mut room);
            part.gone_instances = first(&mut self.gone_instances, &mut room);
            part.instances = first(&mut self.instances, &mut room);
            parts.push_back(part);
        }
        parts.push_back(self);
        parts
    }
}

fn first<T>(rows: &mut Vec<T>, room: &mut usize) -> Vec<T> {
    let count = rows.len().min(*room);
    *room -= count;
    rows.drain(..count).collect()
}

/// The shell's side: who is to hear that something may have changed.
#[derive(Default)]
pub(crate) struct Watchers {
    changed: watch::Sender<()>,
    places: Vec<(String, oneshot::Sender<()>)>,
}

/// A watcher's place; it is free again when this is dropped.
pub(crate) struct Place {
    changed: watch::Receiver<()>,
    _held: oneshot::Receiver<()>,
}

impl Watchers {
    /// Something may have changed; whether anybody watches.
    pub(crate) fn tell(&self) -> bool {
        // Nobody: then that is seen, and nothing else is done.
        self.changed.send(()).is_ok()
    }

    /// Whether somebody watches this project, as far as was seen when the last one came.
    fn has(&self, project: &str) -> bool {
        self.places.iter().any(|(owner, _)| owner == project)
    }

    fn add(&mut self, project: String) -> Result<Place, WatchError> {
        self.places.retain(|(_, place)| !place.is_closed());
        let of_project = self.places.iter().filter(|(owner, _)| *owner == project).count();
        if self.places.len() >= MAX_WATCHERS || of_project >= MAX_PROJECT_WATCHERS {
            return Err(WatchError::Busy);
        }
        let (place, held) = oneshot::channel();
        self.places.push((project, place));
        Ok(Place { changed: self.changed.subscribe(), _held: held })
    }
}

impl Shell {
    pub(crate) fn watch(&mut self, project: String, respond: oneshot::Sender<Result<Place, WatchError>>) {
        let place = self.watchers.add(project.clone());
        self.requests.keep_watched(|project| self.watchers.has(project));
        if place.is_ok() {
            self.requests.watch(project);
        }
        respond.send(place).ok(); // whoever asked may be gone
    }
}

impl Handle {
    /// Watches what lives of a project.
    ///
    /// # Errors
    /// See [`WatchError`].
    pub async fn watch(&self, project: String) -> Result<Watcher, WatchError> {
        let (respond, answer) = oneshot::channel();
        let message = Message::Watch { project: project.clone(), respond };
        self.inbox.send(message).await.map_err(|_| WatchError::Ended)?;
        let place = answer.await.map_err(|_| WatchError::Ended)??;
        let now = Instant::now();
        Ok(Watcher {
            inbox: self.inbox.clone(),
            project,
            place,
            stale: true,
            look_at: now,
            processes_at: now,
            said_at: now,
            parts: VecDeque::new(),
            requests: HashMap::new(),
            seen_instances: Vec::new(),
            processes: HashMap::new(),
            instances: HashMap::new(),
            header: None,
        })
    }
}

/// Watches a project. What it keeps is what it said last.
pub struct Watcher {
    inbox: mpsc::Sender<Message>,
    project: String,
    place: Place,
    /// What it knows may be old.
    stale: bool,
    /// Not to look again before.
    look_at: Instant,
    processes_at: Instant,
    said_at: Instant,
    parts: VecDeque<Changes>,
    requests: HashMap<RequestId, SeenRequest>,
    seen_instances: Vec<SeenInstance>,
    processes: HashMap<InstanceId, Vec<ProcessRow>>,
    instances: HashMap<InstanceId, InstanceRow>,
    header: Option<Changes>,
}

impl Watcher {
    /// What has changed since the last call: at first all there is. With no rows if nothing has for a while;
    /// `None` once the node has ended. A call may be dropped: nothing is lost by it.
    pub async fn next(&mut self) -> Option<Changes> {
        loop {
            if let Some(part) = self.parts.pop_front() {
                self.said_at = Instant::now();
                return Some(part);
            }
            if self.stale {
                sleep_until(self.look_at.into()).await;
                let glimpse = self.glimpse().await?;
                self.look_at = Instant::now() + PAUSE.max(glimpse.took * SHELL_SHARE);
                self.stale = false;
                self.compare(glimpse);
            } else if !self.seen_instances.is_empty() && self.processes_at <= Instant::now() {
                // Reading them failed badly: they stay as they were.
                self.read_processes().await.ok();
            } else {
                self.wait().await?;
            }
        }
    }

    /// Waits until there is something to do; `None` once the node has ended.
    async fn wait(&mut self) -> Option<()> {
        let heartbeat = self.said_at + WATCH_HEARTBEAT;
        let until = match self.seen_instances.is_empty() {
            true => heartbeat,
            false => heartbeat.min(self.processes_at),
        };
        match timeout_at(until.into(), self.place.changed.changed()).await {
            Ok(changed) => {
                changed.ok()?; // the shell has ended
                self.stale = true;
            }
            Err(_) if heartbeat <= Instant::now() => {
                self.parts.push_back(Changes { same: true, ..Changes::default() });
            }
            Err(_) => {}
        }
        Some(())
    }

    async fn glimpse(&mut self) -> Option<Glimpse> {
        // Before it is asked for: what comes after is another change.
        self.place.changed.mark_unchanged();
        let (respond, answer) = oneshot::channel();
        let question = Question::Glimpse { project: self.project.clone(), respond };
        self.inbox.send(Message::Ask(question)).await.ok()?;
        answer.await.ok()
    }

    async fn read_processes(&mut self) -> Result<(), JoinError> {
        let begun = Instant::now();
        self.processes_at = begun + PROCESSES_EVERY;
        let instances = self.seen_instances.clone();
        let read = move || -> HashMap<InstanceId, Vec<ProcessRow>> {
            instances.iter().map(|instance| (instance.id, instance.processes())).collect()
        };
        self.processes = tokio::task::spawn_blocking(read).await?;
        self.processes_at = Instant::now() + PROCESSES_EVERY.max(begun.elapsed() * PROCESSES_SHARE);
        let mut changes = self.header.clone().unwrap_or_default();
        self.compare_instances(&mut changes);
        if changes.rows() > 0 {
            self.parts = changes.parts();
        }
        Ok(())
    }

    /// Puts the differences to what was said last into parts to be said.
    fn compare(&mut self, glimpse: Glimpse) {
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let mut changes = Changes {
            live: number(glimpse.live),
            truncated: glimpse.truncated,
            draining: glimpse.draining,
            unwritten: number(glimpse.unwritten),
            ..Changes::default()
        };
        let there: HashSet<RequestId> = glimpse.requests.iter().map(|seen| seen.view.request).collect();
        let gone: Vec<RequestId> = self.requests.keys().filter(|id| !there.contains(*id)).copied().collect();
        for id in gone {
            self.requests.remove(&id);
            changes.gone.push(id.to_string());
        }
        for seen in glimpse.requests {
            if self.requests.get(&seen.view.request) != Some(&seen) {
                changes.requests.push(seen.row());
                self.requests.insert(seen.view.request, seen);
            }
        }
        self.seen_instances = glimpse.instances;
        self.compare_instances(&mut changes);
        let header = changes.header();
        if changes.rows() > 0 || self.header.as_ref() != Some(&header) {
            self.header = Some(header);
            self.parts = changes.parts();
        }
    }

    fn compare_instances(&mut self, changes: &mut Changes) {
        let there: HashSet<InstanceId> = self.seen_instances.iter().map(|seen| seen.id).collect();
        self.processes.retain(|id, _| there.contains(id));
        self.instances.retain(|id, _| {
            let stays = there.contains(id);
            if !stays {
                changes.gone_instances.push(id.to_string());
            }
            stays
        });
        for seen in &self.seen_instances {
            let row = seen.row(self.processes.get(&seen.id).cloned().unwrap_or_default());
            if self.instances.get(&seen.id) != Some(&row) {
                changes.instances.push(row.clone());
                self.instances.insert(seen.id, row);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_for_the_node_and_for_a_project_and_free_when_they_are_dropped() {
        let mut watchers = Watchers::default();
        let mut held: Vec<Place> =
            (0..MAX_PROJECT_WATCHERS).map(|_| watchers.add("a".into()).unwrap()).collect();
        assert_eq!(watchers.add("a".into()).err(), Some(WatchError::Busy));
        held.extend((0..MAX_WATCHERS - MAX_PROJECT_WATCHERS).map(|n| watchers.add(n.to_string()).unwrap()));
        assert_eq!(watchers.add("b".into()).err(), Some(WatchError::Busy));
        held.remove(0);
        assert!(watchers.add("a".into()).is_ok());
    }

    #[test]
    fn who_watches_hears_of_a_change_and_nobody_is_no_error() {
        let mut watchers = Watchers::default();
        assert!(!watchers.tell());
        let mut place = watchers.add("a".into()).unwrap();
        assert!(!place.changed.has_changed().unwrap(), "what was before is not news");
        assert!(watchers.tell());
        assert!(place.changed.has_changed().unwrap());
        place.changed.mark_unchanged();
        drop(watchers);
        assert!(place.changed.has_changed().is_err(), "the shell has ended");
    }

    #[test]
    fn many_rows_are_said_in_parts_of_one_moment_and_none_is_lost() {
        let gone: Vec<String> = (0..2 * ROWS_AT_ONCE + 1).map(|n| n.to_string()).collect();
        let changes =
            Changes { gone: gone.clone(), gone_instances: vec!["i".into()], live: 7, ..Changes::default() };
        let parts = changes.parts();
        let more: Vec<bool> = parts.iter().map(|part| part.more).collect();
        assert_eq!(more, [true, true, false]);
        assert!(parts.iter().all(|part| part.rows() <= ROWS_AT_ONCE && part.live == 7));
        assert_eq!(parts.iter().flat_map(|part| part.gone.clone()).collect::<Vec<_>>(), gone);
        assert_eq!(parts[2].gone_instances, ["i"]);
        assert_eq!(Changes::default().parts().len(), 1);
    }
}
