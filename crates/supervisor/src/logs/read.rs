//! Reading logs back: the lines of a request, an instance or a function, by time, within bounds. Blocking.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use cancel::RequestId;
use serde::Deserialize;
use store::{FunctionFilter, FunctionKey};

use super::{
    files::{self, Part},
    line::LogLine,
};

/// Bytes of one answer: it is held in memory.
const PAGE_BYTES: usize = 8 << 20;
/// Bytes that a follower is given at once.
const ROUND_BYTES: usize = 256 << 10;
/// The time of a file is that of a coarser clock than the lines' in it.
const COARSE_MS: i64 = 1_000;

/// Whose lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogOf {
    /// Those of a request, wherever it ran.
    Request(RequestId),
    /// Those of an instance, as it is shown; of several lives of the node the last that had one of this name.
    Instance(String),
    /// Those of all instances of a function.
    Function(FunctionFilter),
}

/// Which of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogQuery {
    /// Not before this, in milliseconds since the Unix epoch.
    pub since_ms: Option<i64>,
    /// So many, at most.
    pub lines: usize,
    /// The last of them; else the first.
    pub last: bool,
}

/// Whose lines are looked for, and where.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    pub(crate) of: LogOf,
    pub(crate) project: String,
    /// Its function, where that is known because it is live.
    pub(crate) function: Option<FunctionKey>,
    /// The log of an instance that lives: an earlier life of the node had others of its name.
    pub(crate) stem: Option<String>,
}

/// Reads some logs, and knows how far it has come.
pub(super) struct Reader {
    root: PathBuf,
    named: Named,
    since_ms: Option<i64>,
    /// How much of each part was read.
    at: HashMap<Part, u64>,
    /// The number of the line that comes next in a log.
    next: HashMap<String, u64>,
    /// Parts and the ids beside them: how many bytes were looked at, and whether it is among them.
    beside: HashMap<Part, (u64, bool)>,
}

/// What of a line decides whether it is shown.
#[derive(Deserialize)]
struct Head<'a> {
    ms: i64,
    n: u64,
    #[serde(borrow)]
    request: Option<&'a str>,
    #[serde(default)]
    lost: u64,
}

/// Lines by their time.
#[derive(Default)]
struct Lines {
    by_time: BTreeMap<(i64, String, u64), Vec<u8>>,
    bytes: usize,
}

impl Lines {
    fn add(&mut self, head: &Head<'_>, stem: &str, line: Vec<u8>) {
        self.bytes += line.len();
        let old = self.by_time.insert((head.ms, stem.to_owned(), head.n), line);
        self.bytes -= old.map_or(0, |old| old.len());
    }

    /// Keeps the last or the first of them, within the bounds.
    fn fit(&mut self, query: LogQuery) {
        while self.by_time.len() > query.lines || self.bytes > PAGE_BYTES {
            let gone = if query.last { self.by_time.pop_first() } else { self.by_time.pop_last() };
            let Some((_, line)) = gone else { return };
            self.bytes -= line.len();
        }
    }

    fn joined(self) -> Vec<u8> {
        self.by_time.into_values().flatten().collect()
    }
}

impl Reader {
    pub(super) fn new(root: &Path, named: Named, since_ms: Option<i64>) -> Self {
        let (at, next, beside) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self { root: root.to_owned(), named, since_ms, at, next, beside }
    }

    /// One answer, and whether there is any log of that. What is read later goes on after it.
    pub(super) fn page(&mut self, query: LogQuery) -> (Vec<u8>, bool) {
        let mut parts: Vec<(i64, u64, Part)> = self
            .parts()
            .into_iter()
            .filter_map(|part| part.size_and_time().ok().map(|(size, ms)| (ms, size, part)))
            .collect();
        let found = !parts.is_empty();
        // The last are in what was written to last: then the rest need not be read.
        parts.sort_unstable_by_key(|(ms, _, _)| if query.last { -ms } else { *ms });
        let mut lines = Lines::default();
        for (written_ms, _, part) in parts {
            let full = query.last && lines.by_time.len() >= query.lines;
            let first = lines.by_time.first_key_value().map(|((ms, _, _), _)| *ms);
            let written_ms = written_ms.saturating_add(COARSE_MS);
            if full && first.is_some_and(|first| written_ms < first) || self.since_ms > Some(written_ms) {
                let size = fs::metadata(part.lines()).map(|file| file.len()).unwrap_or_default();
                self.at.insert(part, size);
                continue;
            }
            let (stem, mut next) = (part.stem.clone(), 0);
            let read = scan(&part.lines(), 0, |line| {
                if let Ok(head) = serde_json::from_slice::<Head<'_>>(line) {
                    next = head.n + head.lost.max(1);
                    if self.shows(&head) {
                        lines.add(&head, &stem, line.to_vec());
                        lines.fit(query);
                    }
                }
                true
            });
            let known = self.next.entry(stem).or_default();
            *known = next.max(*known);
            self.at.insert(part, read.unwrap_or_default());
        }
        (lines.joined(), found)
    }

    /// What was written since, at most so much at once; and whether there is more.
    pub(super) fn news(&mut self) -> (Vec<u8>, bool) {
        let parts = self.parts();
        let there: HashSet<&Part> = parts.iter().collect();
        self.at.retain(|part, _| there.contains(part));
        let (mut lines, mut more) = (Lines::default(), false);
        for part in parts {
            let from = self.at.get(&part).copied().unwrap_or_default();
            if fs::metadata(part.lines()).is_ok_and(|file| file.len() == from) {
                continue;
            }
            let mut next = self.next.get(&part.stem).copied().filter(|next| *next > 0);
            let read = scan(&part.lines(), from, |line| {
                let Ok(head) = serde_json::from_slice::<Head<'_>>(line) else { return true };
                if let Some(expected) = next.filter(|next| head.n > *next) {
                    // They were deleted before they were read here.
                    let lost = LogLine::lost(part.instance(), head.ms, expected, head.n - expected, None);
                    let mut mark = Vec::new();
                    lost.write(&mut mark);
                    let head = Head { n: expected, request: None, lost: lost.lost, ..head };
                    lines.add(&head, &part.stem, mark);
                }
                next = Some(head.n + head.lost.max(1));
                if self.shows(&head) {
                    lines.add(&head, &part.stem, line.to_vec());
                }
                more = lines.bytes >= ROUND_BYTES;
                !more
            });
            if let Some(next) = next {
                self.next.insert(part.stem.clone(), next);
            }
            self.at.insert(part, read.unwrap_or(from));
            if more {
                break;
            }
        }
        (lines.joined(), more)
    }

    fn shows(&self, head: &Head<'_>) -> bool {
        let of = match self.named.of {
            LogOf::Request(request) => head.request.and_then(RequestId::parse) == Some(request),
            LogOf::Instance(_) | LogOf::Function(_) => true,
        };
        of && self.since_ms.is_none_or(|since| head.ms >= since)
    }

    /// The parts that may have such lines, oldest first.
    fn parts(&mut self) -> Vec<Part> {
        let folders = match (&self.named.of, &self.named.function) {
            (LogOf::Function(filter), _) => files::of_function(&self.root, filter),
            (_, Some(function)) => vec![files::folder(&self.root, function)],
            (_, None) => files::of_project(&self.root, &self.named.project),
        };
        let mut parts = files::parts(folders);
        match &self.named.of {
            LogOf::Function(_) => {}
            LogOf::Instance(instance) => {
                let last =
                    parts.iter().filter(|part| part.instance() == instance).map(|part| &part.stem).max();
                let stem = self.named.stem.clone().or(last.cloned()).unwrap_or_default();
                parts.retain(|part| part.stem == stem);
            }
            LogOf::Request(request) => {
                let id = request.to_string();
                let there: HashSet<&Part> = parts.iter().collect();
                self.beside.retain(|part, _| there.contains(part));
                parts.retain(|part| self.has(part, &id));
            }
        }
        parts
    }

    /// Whether a request has lines in a part. Ids are only added, so what was looked at is not looked at again.
    fn has(&mut self, part: &Part, id: &str) -> bool {
        let (from, found) = self.beside.get(part).copied().unwrap_or_default();
        if found || fs::metadata(part.requests()).is_ok_and(|file| file.len() == from) {
            return found;
        }
        let mut found = false;
        let looked = scan(&part.requests(), from, |line| {
            found = line.strip_suffix(b"\n") == Some(id.as_bytes());
            !found
        });
        self.beside.insert(part.clone(), (looked.unwrap_or(from), found));
        found
    }
}

/// Gives each whole line from there on, until it is told to stop; how far it came.
fn scan(path: &Path, from: u64, mut each: impl FnMut(&[u8]) -> bool) -> io::Result<u64> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let (mut file, mut at, mut line) = (BufReader::new(file), from, Vec::new());
    loop {
        line.clear();
        let read = file.read_until(b'\n', &mut line)?;
        if line.last() != Some(&b'\n') {
            return Ok(at); // the end, or a line that is still being written
        }
        at += read as u64;
        if !each(&line) {
            return Ok(at);
        }
    }
}
