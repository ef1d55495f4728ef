//! What `quell-bench latency` is asked for.

use std::path::PathBuf;

use anyhow::{Context as _, bail};

use super::{measure::Effort, peer::Peer};

/// What is measured in full takes less than ten minutes on two cores, and quickly less than two.
const FULL: Effort = Effort { rounds: 5, samples: 40 };
const QUICK: Effort = Effort { rounds: 3, samples: 6 };

/// The parts, by the word that names each.
pub(crate) const PARTS: [&str; 7] = ["stops", "queued", "trees", "engine", "load", "ordinary", "memory"];

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) effort: Effort,
    pub(crate) out: PathBuf,
    pub(crate) peer: Option<Peer>,
    /// None named: all.
    named: Vec<&'static str>,
}

impl Options {
    pub(crate) fn parse(words: &[String]) -> anyhow::Result<Self> {
        let mut options =
            Self { effort: FULL, out: PathBuf::from("target/latency"), peer: None, named: Vec::new() };
        let (mut start, mut cancel) = (None, None);
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut next = |what: &str| words.next().with_context(|| format!("{word} needs {what}"));
            match word.as_str() {
                "--quick" => options.effort = QUICK,
                "--out" => options.out = next("a folder")?.into(),
                "--peer-start" => start = Some(next("a command")?.clone()),
                "--peer-cancel" => cancel = Some(next("a command")?.clone()),
                _ => match PARTS.into_iter().find(|part| part == word) {
                    Some(part) => options.named.push(part),
                    None => bail!(
                        "{word:?} is not understood; there are --quick, --out DIR, --peer-start CMD with --peer-cancel \
                         CMD, --help, and {}",
                        PARTS.join(", ")
                    ),
                },
            }
        }
        options.peer = match (start, cancel) {
            (Some(start), Some(cancel)) => Some(Peer { start, cancel }),
            (None, None) => None,
            _ => bail!("--peer-start and --peer-cancel belong together"),
        };
        Ok(options)
    }

    /// In the order in which they are run.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &'static str> {
        PARTS.into_iter().filter(|part| self.named.is_empty() || self.named.contains(part))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> anyhow::Result<Options> {
        Options::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn nothing_named_means_all_and_what_is_named_keeps_its_order() {
        assert_eq!(parse("").unwrap().parts().collect::<Vec<_>>(), PARTS);
        let options = parse("memory --quick stops --out here").unwrap();
        assert_eq!(options.parts().collect::<Vec<_>>(), ["stops", "memory"]);
        assert_eq!((options.effort.samples, options.out), (QUICK.samples, PathBuf::from("here")));
    }

    #[test]
    fn a_peer_has_both_commands_and_unknown_words_are_refused() {
        let peer = parse("--peer-start a --peer-cancel b").unwrap().peer.unwrap();
        assert_eq!((peer.start.as_str(), peer.cancel.as_str()), ("a", "b"));
        for (line, part) in
            [("--peer-start a", "belong together"), ("--out", "needs a folder"), ("stop", "not understood")]
        {
            let why = parse(line).unwrap_err().to_string();
            assert!(why.contains(part), "{why}");
        }
    }
}
