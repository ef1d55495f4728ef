//! Reads OpenMetrics text as strictly as its specification is, and panics at what is not allowed.
#![allow(dead_code, unreachable_pub, missing_docs)] // each test file uses its part

use std::collections::{BTreeMap, BTreeSet, HashMap};

type Labels = Vec<(String, String)>;

/// All series of one answer.
pub struct Exposition {
    /// Families with their types.
    families: BTreeMap<String, String>,
    /// By name, then by labels in the order of their names.
    series: HashMap<(String, Labels), f64>,
}

impl Exposition {
    #[track_caller]
    pub fn parse(text: &str) -> Self {
        let body = text.strip_suffix("# EOF\n").expect("the end is marked");
        let mut all = Self { families: BTreeMap::new(), series: HashMap::new() };
        let mut current = String::new();
        let mut sampled = false;
        for line in body.lines() {
            assert!(!line.is_empty() && line.trim() == line, "{line:?}");
            if let Some(rest) = line.strip_prefix("# ") {
                let (word, rest) = rest.split_once(' ').expect(line);
                let (name, value) = rest.split_once(' ').expect(line);
                assert!(is_name(name), "{line}");
                if name != current || sampled {
                    assert!(!all.families.contains_key(name), "{name} comes twice");
                    (current, sampled) = (name.to_owned(), false);
                    all.families.insert(name.to_owned(), String::new());
                }
                match word {
                    "HELP" => {}
                    "UNIT" => assert!(name.ends_with(&format!("_{value}")), "{line}"),
                    "TYPE" => {
                        assert!(["counter", "gauge", "histogram", "info"].contains(&value), "{line}");
                        let before = all.families.insert(name.to_owned(), value.to_owned());
                        assert_eq!(before.as_deref(), Some(""), "one type: {line}");
                    }
                    _ => panic!("{line}"),
                }
                continue;
            }
            sampled = true;
            let (name, labels, value) = sample(line);
            let suffix = name.strip_prefix(&current).unwrap_or_else(|| panic!("{line} is not of {current}"));
            let allowed: &[&str] = match all.families[&current].as_str() {
                "counter" => &["_total"],
                "gauge" => &[""],
                "histogram" => &["_bucket", "_sum", "_count"],
                "info" => &["_info"],
                other => panic!("{line}: type {other:?}"),
            };
            assert!(allowed.contains(&suffix), "{line}");
            assert!(suffix.is_empty() || value >= 0.0, "{line}");
            assert!(all.series.insert((name, labels), value).is_none(), "twice: {line}");
        }
        all.check_histograms();
        all
    }

    /// Buckets rise to the count, and the last is without bound.
    fn check_histograms(&self) {
        let histograms = self.families.iter().filter(|(_, kind)| *kind == "histogram");
        for name in histograms.map(|(name, _)| name) {
            let mut buckets: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
            for ((series, labels), value) in &self.series {
                if *series == format!("{name}_bucket") {
                    let (le, others): (Vec<_>, Vec<_>) =
                        labels.clone().into_iter().partition(|(key, _)| key == "le");
                    let le = if le[0].1 == "+Inf" { f64::INFINITY } else { le[0].1.parse().unwrap() };
                    buckets.entry(others).or_default().push((le, *value));
                }
            }
            for (labels, mut rising) in buckets {
                rising.sort_by(|one, other| one.0.total_cmp(&other.0));
                assert!(rising.is_sorted_by(|one, other| one.1 <= other.1), "{name}{labels:?} {rising:?}");
                let (bound, all) = *rising.last().unwrap();
                assert_eq!(bound, f64::INFINITY, "{name}{labels:?}");
                assert_eq!(self.series[&(format!("{name}_count"), labels.clone())], all, "{name}{labels:?}");
                assert!(
                    self.series.contains_key(&(format!("{name}_sum"), labels.clone())),
                    "{name}{labels:?}"
                );
            }
        }
    }

    /// The value of exactly this series.
    #[track_caller]
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let mut labels: Vec<_> =
            labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        labels.sort();
        let found = self.series.get(&(name.to_owned(), labels.clone()));
        *found.unwrap_or_else(|| panic!("no {name}{labels:?} among {:?}", self.named(name)))
    }

    fn named(&self, name: &str) -> BTreeSet<&Labels> {
        self.series.keys().filter(|(known, _)| known == name).map(|(_, labels)| labels).collect()
    }

    /// Whether there is, or could be, a series of this name.
    pub fn has_series_name(&self, name: &str) -> bool {
        self.families.iter().any(|(family, kind)| {
            let suffixes: &[&str] = match kind.as_str() {
                "counter" => &["_total"],
                "histogram" => &["_bucket", "_sum", "_count"],
                "info" => &["_info"],
                _ => &[""],
            };
            suffixes.iter().any(|suffix| format!("{family}{suffix}") == name)
        })
    }

    pub fn families(&self) -> impl Iterator<Item = &str> {
        self.families.keys().map(String::as_str)
    }
}

fn is_name(name: &str) -> bool {
    let fine = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.chars().all(fine) && name.chars().next().is_some_and(|first| !first.is_ascii_digit())
}

fn sample(line: &str) -> (String, Labels, f64) {
    let (series, value) = line.rsplit_once(' ').expect(line);
    let value: f64 = value.parse().expect(line);
    let Some((name, labels)) = series.split_once('{') else {
        assert!(is_name(series), "{line}");
        return (series.to_owned(), Vec::new(), value);
    };
    assert!(is_name(name), "{line}");
    let mut rest = labels.strip_suffix('}').expect(line);
    let mut read = Vec::new();
    while !rest.is_empty() {
        let (key, after) = rest.split_once("=\"").expect(line);
        assert!(is_name(key), "{line}");
        let mut text = String::new();
        let mut letters = after.char_indices();
        let end = loop {
            match letters.next().expect(line) {
                (at, '"') => break at,
                (_, '\\') => match letters.next().expect(line).1 {
                    'n' => text.push('\n'),
                    escaped @ ('"' | '\\') => text.push(escaped),
                    other => panic!("{line}: \\{other}"),
                },
                (_, letter) => text.push(letter),
            }
        };
        read.push((key.to_owned(), text));
        rest = &after[end + 1..];
        rest = match rest.strip_prefix(',') {
            Some(more) => {
                assert!(!more.is_empty(), "{line}");
                more
            }
            None => {
                assert!(rest.is_empty(), "{line}");
                rest
            }
        };
    }
    read.sort();
    assert!(read.windows(2).all(|pair| pair[0].0 != pair[1].0), "a label twice: {line}");
    (name.to_owned(), read, value)
}
