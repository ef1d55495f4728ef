//! The thread that writes: parts of a size, ids of requests beside them, marks where lines are missing. It alone
//! waits for the disk.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::{self, Write as _},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use cancel::RequestId;
use tokio::sync::watch;

use super::{
    LogSettings, Name, Order,
    files::{self, Part},
    line::{LogLine, Printed},
    shelf::{Age, Shelf},
};
use crate::shell::now_ms;

/// An instance's bound is that of so many parts: what goes at once is no more than this share of it.
const PARTS: u64 = 4;
/// Files that are open at once; the rest are opened again when they are written to.
const MAX_OPEN: usize = 256;
/// Request ids that are known to be beside a part: one that is forgotten is written again, which is no harm.
const MAX_KNOWN: usize = 4_096;
/// How often the writer looks for what is too old, and for what it was not told of.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// The log of a live instance.
#[derive(Default)]
struct Log {
    files: Option<(File, File)>,
    part: Option<(Part, Age)>,
    number: u32,
    /// Bytes of lines in its part.
    size: u64,
    /// The number of the line that comes next.
    next: u64,
    known: HashSet<RequestId>,
    /// Of its last line that had one.
    request: Option<RequestId>,
}

pub(super) struct Writer {
    settings: LogSettings,
    shelf: Shelf,
    logs: HashMap<String, (Arc<Name>, Log)>,
    waiting: Arc<AtomicUsize>,
    lost: Arc<AtomicU64>,
    changes: watch::Sender<u64>,
    failing: bool,
    /// Files that were opened since all were closed: no more are open.
    opened: usize,
}

impl Writer {
    pub(super) fn new(
        settings: LogSettings,
        waiting: Arc<AtomicUsize>,
        lost: Arc<AtomicU64>,
        changes: watch::Sender<u64>,
    ) -> Self {
        let shelf = Shelf::new(settings.clone());
        Self { settings, shelf, logs: HashMap::new(), waiting, lost, changes, failing: false, opened: 0 }
    }

    /// Until nobody is left who could print or ask.
    pub(super) fn run(mut self, orders: &mpsc::Receiver<Order>) {
        self.find();
        let mut next_sweep = Instant::now();
        loop {
            if Instant::now() >= next_sweep {
                self.sweep();
                next_sweep = Instant::now() + SWEEP_EVERY;
            }
            match orders.recv_timeout(next_sweep.saturating_duration_since(Instant::now())) {
                Ok(Order::Lines { log, ms, lines, cost }) => {
                    self.lines(&log, ms, &lines);
                    self.waiting.fetch_sub(cost, Ordering::Relaxed);
                }
                Ok(Order::Closed(log)) => self.close(&log),
                Ok(Order::Flushed(tell)) => {
                    tell.send(()).ok(); // whoever asked may be gone
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// What earlier lives left, within the bounds of this one.
    fn find(&mut self) {
        for part in files::parts(files::all(&self.settings.dir)) {
            if let Ok((bytes, written_ms)) = part.size_and_time() {
                let age = self.shelf.add(part, bytes, written_ms);
                self.fit(age);
            }
        }
    }

    fn sweep(&mut self) {
        let keep = i64::try_from(self.settings.keep.as_millis()).unwrap_or(i64::MAX);
        for age in self.shelf.untouched_since(now_ms().saturating_sub(keep)) {
            self.remove(age);
        }
        let closed = self.logs.values().filter(|(name, _)| name.closed.load(Ordering::Acquire));
        for name in closed.map(|(name, _)| Arc::clone(name)).collect::<Vec<_>>() {
            self.close(&name);
        }
    }

    fn fit(&mut self, grown: Age) {
        while let Some(age) = self.shelf.excess(grown) {
            self.remove(age);
        }
    }

    fn remove(&mut self, age: Age) {
        let Some(part) = self.shelf.remove(age) else { return };
        if let Err(error) = part.remove() {
            tracing::warn!(%error, path = %part.lines().display(), "a part of a log stays behind");
        }
        if let Some((_, log)) = self.logs.get_mut(&part.stem)
            && log.part.as_ref().is_some_and(|(_, own)| *own == age)
        {
            log.leave_part();
        }
    }

    fn close(&mut self, name: &Arc<Name>) {
        let printed = name.printed.load(Ordering::Relaxed);
        let next = self.logs.get(&name.stem).map_or(1, |(_, log)| log.next);
        if printed >= next {
            // Its last lines are missing, and none follows that would say so.
            self.lines(name, now_ms(), &[]);
        }
        self.logs.remove(&name.stem);
        self.changed();
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Writes lines, with a mark before the first if some are missing before it. Without lines: the mark alone.
    fn lines(&mut self, name: &Arc<Name>, ms: i64, lines: &[Printed]) {
        if self.opened >= MAX_OPEN {
            self.logs.values_mut().for_each(|(_, log)| log.files = None);
            self.opened = 0;
        }
        let (_, mut log) = self
            .logs
            .remove(&name.stem)
            .unwrap_or_else(|| (Arc::clone(name), Log { next: 1, ..Log::default() }));
        let mut at = 0;
        loop {
            let batch = self.batch(name, &mut log, ms, &lines[at..]);
            if batch.bytes.is_empty() {
                break;
            }
            if let Err(error) = self.write(name, &mut log, &batch, ms) {
                let lost = (lines.len() - at) as u64;
                self.lost.fetch_add(lost, Ordering::Relaxed);
                if !self.failing {
                    tracing::warn!(%error, "logs cannot be written; what functions print meanwhile is lost");
                }
                self.failing = true;
                break;
            }
            if std::mem::take(&mut self.failing) {
                tracing::info!(lost = self.lost.load(Ordering::Relaxed), "logs are written again");
            }
            at += batch.lines;
            if at >= lines.len() {
                break;
            }
        }
        self.logs.insert(name.stem.clone(), (Arc::clone(name), log));
        self.changed();
    }

    /// As many lines as belong into the part that is open, or into a new one.
    fn batch(&self, name: &Name, log: &mut Log, ms: i64, lines: &[Printed]) -> Batch {
        let bound = self.settings.instance_bytes / PARTS;
        if log.size >= bound {
            log.leave_part();
        }
        let mut batch = Batch { next: log.next, request: log.request, ..Batch::default() };
        let following = lines.first().map_or(name.printed.load(Ordering::Relaxed) + 1, |line| line.n);
        if following > log.next {
            let request = match lines.first() {
                Some(line) => line.held.map(|(request, _)| request),
                None => log.request,
            };
            LogLine::lost(&name.instance, ms, log.next, following - log.next, request)
                .write(&mut batch.bytes);
            batch.next = following;
        }
        for line in lines {
            if log.size + batch.bytes.len() as u64 >= bound {
                break;
            }
            if let Some((request, _)) = line.held {
                batch.request = Some(request);
                if !log.known.contains(&request) && batch.fresh.last() != Some(&request) {
                    batch.fresh.push(request);
                }
            }
            LogLine::of(line, &name.instance, ms).write(&mut batch.bytes);
            batch.next = line.n + 1;
            batch.lines += 1;
        }
        batch
    }

    /// All of it, or nothing that counts.
    fn write(&mut self, name: &Name, log: &mut Log, batch: &Batch, ms: i64) -> io::Result<()> {
        let age = self.open(name, log)?;
        let Some((lines, requests)) = log.files.as_mut() else { return Ok(()) };
        let mut beside = 0;
        if !batch.fresh.is_empty() {
            // First: an id without lines is no harm, a line whose request is not found is.
            let ids: String = batch.fresh.iter().map(|request| format!("{request}\n")).collect();
            requests.write_all(ids.as_bytes())?;
            beside = ids.len() as u64;
        }
        if let Err(error) = lines.write_all(&batch.bytes) {
            lines.set_len(log.size)?; // not half a line
            return Err(error);
        }
        if log.known.len() + batch.fresh.len() > MAX_KNOWN {
            log.known.clear();
        }
        log.known.extend(&batch.fresh);
        log.size += batch.bytes.len() as u64;
        (log.next, log.request) = (batch.next, batch.request);
        self.shelf.grew(age, batch.bytes.len() as u64 + beside, ms);
        self.fit(age);
        if !self.shelf.has(age) {
            log.leave_part(); // the oldest of its function, or of the node
        }
        Ok(())
    }

    fn open(&mut self, name: &Name, log: &mut Log) -> io::Result<Age> {
        let part = match log.part.take() {
            Some((part, age)) => (part, age),
            None => {
                log.number += 1;
                files::make_folder(&name.folder)?;
                let part = Part { stem: name.stem.clone(), number: log.number, folder: name.folder.clone() };
                let age = self.shelf.add(part.clone(), 0, now_ms());
                (part, age)
            }
        };
        let age = part.1;
        if log.files.is_none() {
            self.opened += 1;
            let opened = files::append(&part.0.lines())
                .and_then(|lines| Ok((lines, files::append(&part.0.requests())?)));
            log.part = Some(part);
            log.files = Some(opened?);
        } else {
            log.part = Some(part);
        }
        Ok(age)
    }
}

/// What is written at once.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    lines: usize,
    /// Requests that have lines in it and are not known to be beside the part.
    fresh: Vec<RequestId>,
    next: u64,
    request: Option<RequestId>,
}

impl Log {
    fn leave_part(&mut self) {
        (self.files, self.part, self.size) = (None, None, 0);
        self.known.clear();
    }
}
