//! What the functions wrote down, in the order in which they did.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use anyhow::Context as _;

/// What a line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    /// An attempt begins.
    Start {
        /// As what: root, child, sync or detached.
        how: String,
        /// Below whom, if it is below anybody.
        parent: Option<String>,
    },
    /// It was told 202 for a child.
    Child {
        /// The child.
        request: String,
        /// Then it is no part of the tree.
        detached: bool,
    },
    /// It is about to fail, as its event says.
    Fail,
    /// It has done its work; what is left is to return.
    Finish,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where in the file it stands. What was written later stands later.
    pub at: u64,
    /// The life of the node it was written in.
    pub life: u32,
    /// By whom: the function (of a `Child` line: the child's), the request, and which attempt at it.
    pub function: String,
    /// See above.
    pub request: String,
    /// See above.
    pub attempt: String,
    /// What happened.
    pub mark: Mark,
    /// As it was written: process and time of the clock since boot, for whoever reads a failure.
    pub line: String,
}

/// The ledger file and what of it was read.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    read: u64,
    /// The lines so far.
    pub entries: Vec<Entry>,
    /// Lines that a kill tore in two; nobody can have been told of what they say.
    pub torn: u64,
}

impl Ledger {
    /// An empty one.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn create(path: PathBuf) -> anyhow::Result<Self> {
        File::create(&path).with_context(|| path.display().to_string())?;
        Ok(Self { path, read: 0, entries: Vec::new(), torn: 0 })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads what was written since the last time.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn catch_up(&mut self) -> anyhow::Result<()> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.read))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        // What follows the last line break may still be being written.
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let mut at = self.read;
        for line in text[..whole].split_inclusive(|byte| *byte == b'\n') {
            let text = String::from_utf8_lossy(line);
            match parse(text.trim_end(), at) {
                Some(entry) => self.entries.push(entry),
                None if text.trim_end().is_empty() => {}
                None => self.torn += 1,
            }
            at += line.len() as u64;
        }
        self.read = at;
        Ok(())
    }

    /// The requests known below this one with their functions, in the order in which they became known.
    #[must_use]
    pub fn below(&self, root: &str) -> Vec<(String, String)> {
        let below = Tree::of(&self.entries).below(root);
        let mut seen = HashSet::new();
        let named = self.entries.iter().filter_map(|entry| {
            let request = match &entry.mark {
                Mark::Start { .. } => &entry.request,
                Mark::Child { request, .. } => request,
                Mark::Fail | Mark::Finish => return None,
            };
            below.contains(request.as_str()).then(|| (request.clone(), entry.function.clone()))
        });
        named.filter(|(request, _)| seen.insert(request.clone())).collect()
    }
}

/// Who invoked whom, as the functions tell it.
#[derive(Debug)]
pub struct Tree<'a> {
    children: HashMap<&'a str, Vec<&'a str>>,
}

impl<'a> Tree<'a> {
    /// Of these lines.
    #[must_use]
    pub fn of(entries: &'a [Entry]) -> Self {
        let mut children: HashMap<&str, Vec<&str>> = HashMap::new();
        for entry in entries {
            match &entry.mark {
                Mark::Start { parent: Some(parent), .. } => {
                    children.entry(parent).or_default().push(&entry.request);
                }
                Mark::Child { request, detached: false } => {
                    children.entry(&entry.request).or_default().push(request);
                }
                Mark::Start { parent: None, .. } | Mark::Child { .. } | Mark::Fail | Mark::Finish => {}
            }
        }
        Self { children }
    }

    /// Everything below a request, without itself.
    #[must_use]
    pub fn below(&self, root: &str) -> HashSet<&'a str> {
        self.below_through(root, |_| true)
    }

    /// What of that is reached through those only of whom `leads_on` says so.
    #[must_use]
    pub fn below_through(&self, root: &str, leads_on: impl Fn(&str) -> bool) -> HashSet<&'a str> {
        let (mut found, mut open) = (HashSet::new(), vec![root]);
        while let Some(at) = open.pop() {
            for child in self.children.get(at).into_iter().flatten() {
                if found.insert(*child) && leads_on(child) {
                    open.push(child);
                }
            }
        }
        found
    }
}

/// `mark life pid time function request attempt how other .`; the last word shows that it is whole.
fn parse(line: &str, at: u64) -> Option<Entry> {
    let words: Vec<&str> = line.split(' ').collect();
    let [mark, life, _pid, _time, function, request, attempt, how, other, "."] = words[..] else {
        return None;
    };
    let mark = match mark {
        "start" => Mark::Start { how: how.to_owned(), parent: (other != "-").then(|| other.to_owned()) },
        "child" => Mark::Child { request: other.to_owned(), detached: how == "detached" },
        "fail" => Mark::Fail,
        "finish" => Mark::Finish,
        _ => return None,
    };
    Some(Entry {
        at,
        life: life.parse().ok()?,
        function: function.to_owned(),
        request: request.to_owned(),
        attempt: attempt.to_owned(),
        mark,
        line: line.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn lines_are_read_as_they_come_and_a_torn_one_spoils_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::create(folder.path().join("ledger")).unwrap();
        let mut file = File::options().append(true).open(ledger.path()).unwrap();
        file.write_all(b"\nstart 1 7 99 tree a t1 root - .\n\nchild 1 7 99 solo a t1 child b .\n").unwrap();
        file.write_all(b"\nfinish 1 7 9").unwrap();
        ledger.catch_up().unwrap();
        assert_eq!((ledger.entries.len(), ledger.torn), (2, 0), "the third is not whole yet");
        file.write_all(b"\nstart 2 8 99 solo c t2 child b .\n").unwrap();
        ledger.catch_up().unwrap();
        assert_eq!((ledger.entries.len(), ledger.torn), (3, 1));
        assert_eq!(ledger.entries[0].at, 1);
        assert!(ledger.entries[2].at > ledger.entries[1].at);
        let below: Vec<_> = ledger.below("a").into_iter().map(|(request, _)| request).collect();
        assert_eq!(below, ["b", "c"]);
        assert_eq!(ledger.below("a")[0].1, "solo");
    }

    #[test]
    fn a_detached_child_is_no_part_of_the_tree() {
        let detached = parse("child 1 7 99 solo a t1 detached b .", 0).unwrap();
        assert!(Tree::of(&[detached]).below("a").is_empty());
    }
}
