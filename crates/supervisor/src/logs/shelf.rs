//! What is on the disk, and what has to go: bounds for an instance, a function and the node. Plain data, no I/O.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::PathBuf,
};

use super::{LogSettings, files::Part};

/// A file takes a block of the disk however little is in it.
const LEAST: u64 = 4_096;
/// Parts on the disk: more make every look into a folder slow.
const MAX_PARTS: usize = 20_000;

/// A part that is there, by its age: the smaller number is older.
pub(super) type Age = u64;

#[derive(Debug)]
struct Kept {
    part: Part,
    bytes: u64,
    written_ms: i64,
}

/// The bytes of some parts together, and which they are.
#[derive(Debug, Default)]
struct Sum {
    bytes: u64,
    parts: BTreeSet<Age>,
}

/// All parts there are.
#[derive(Debug)]
pub(super) struct Shelf {
    settings: LogSettings,
    parts: BTreeMap<Age, Kept>,
    of_instance: HashMap<String, Sum>,
    of_function: HashMap<PathBuf, Sum>,
    total: u64,
    next: Age,
}

impl Shelf {
    pub(super) fn new(settings: LogSettings) -> Self {
        let (parts, of_instance, of_function) = (BTreeMap::new(), HashMap::new(), HashMap::new());
        Self { settings, parts, of_instance, of_function, total: 0, next: 0 }
    }

    /// A new part, the youngest.
    pub(super) fn add(&mut self, part: Part, bytes: u64, written_ms: i64) -> Age {
        let age = self.next;
        self.next += 1;
        let cost = bytes.max(LEAST);
        for sum in self.sums(&part) {
            sum.bytes += cost;
            sum.parts.insert(age);
        }
        self.total += cost;
        self.parts.insert(age, Kept { part, bytes, written_ms });
        age
    }

    pub(super) fn has(&self, age: Age) -> bool {
        self.parts.contains_key(&age)
    }

    pub(super) fn grew(&mut self, age: Age, by: u64, now_ms: i64) {
        let Some(kept) = self.parts.get_mut(&age) else { return };
        let before = kept.bytes.max(LEAST);
        kept.bytes += by;
        kept.written_ms = now_ms;
        let more = kept.bytes.max(LEAST) - before;
        let part = kept.part.clone();
        for sum in self.sums(&part) {
            sum.bytes += more;
        }
        self.total += more;
    }

    /// A part that has to go since this one grew, the oldest of whatever is too much.
    pub(super) fn excess(&self, grown: Age) -> Option<Age> {
        let of = self.parts.get(&grown).map(|kept| &kept.part);
        let over = |sum: Option<&Sum>, bound| sum.filter(|sum| sum.bytes > bound)?.parts.first().copied();
        let instance = of.and_then(|part| self.of_instance.get(&part.stem));
        let function = of.and_then(|part| self.of_function.get(&part.folder));
        over(instance, self.settings.instance_bytes)
            .or_else(|| over(function, self.settings.function_bytes))
            .or_else(|| {
                let over = self.total > self.settings.total_bytes || self.parts.len() > MAX_PARTS;
                self.parts.first_key_value().map(|(age, _)| *age).filter(|_| over)
            })
    }

    /// Parts that nothing was written to since then.
    pub(super) fn untouched_since(&self, ms: i64) -> Vec<Age> {
        self.parts.iter().filter(|(_, kept)| kept.written_ms < ms).map(|(age, _)| *age).collect()
    }

    pub(super) fn remove(&mut self, age: Age) -> Option<Part> {
        let Kept { part, bytes, .. } = self.parts.remove(&age)?;
        let cost = bytes.max(LEAST);
        for sum in self.sums(&part) {
            sum.bytes -= cost;
            sum.parts.remove(&age);
        }
        if self.of_instance.get(&part.stem).is_some_and(|sum| sum.parts.is_empty()) {
            self.of_instance.remove(&part.stem);
        }
        if self.of_function.get(&part.folder).is_some_and(|sum| sum.parts.is_empty()) {
            self.of_function.remove(&part.folder);
        }
        self.total -= cost;
        Some(part)
    }

    fn sums(&mut self, part: &Part) -> [&mut Sum; 2] {
        let instance = self.of_instance.entry(part.stem.clone()).or_default();
        [instance, self.of_function.entry(part.folder.clone()).or_default()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn shelf() -> Shelf {
        Shelf::new(LogSettings {
            instance_bytes: 4 * MIB,
            function_bytes: 8 * MIB,
            total_bytes: 16 * MIB,
            ..LogSettings::at("".into())
        })
    }

    fn part(function: &str, instance: u32, number: u32) -> Part {
        Part { stem: format!("1-i{instance}"), number, folder: function.into() }
    }

    /// Removes what has to go; who that was.
    fn fit(shelf: &mut Shelf, grown: Age) -> Vec<Part> {
        let mut gone = Vec::new();
        while let Some(age) = shelf.excess(grown) {
            gone.extend(shelf.remove(age));
        }
        gone
    }

    #[test]
    fn each_bound_takes_the_oldest_of_what_is_too_much_and_nothing_else() {
        let mut shelf = shelf();
        let first = shelf.add(part("g", 1, 1), 3 * MIB, 1);
        assert!(fit(&mut shelf, first).is_empty());
        for number in 1..=4 {
            let age = shelf.add(part("f", 2, number), 0, 1);
            shelf.grew(age, 2 * MIB, 2);
            let gone = fit(&mut shelf, age);
            let wanted: Vec<Part> = number
                .checked_sub(2)
                .filter(|old| *old > 0)
                .map(|old| part("f", 2, old))
                .into_iter()
                .collect();
            assert_eq!(gone, wanted, "of the instance");
        }
        for (instance, gone) in [(3, None), (4, Some(part("f", 2, 3))), (5, Some(part("f", 2, 4)))] {
            let age = shelf.add(part("f", instance, 1), 3 * MIB - if instance == 3 { MIB } else { 0 }, 3);
            assert_eq!(
                fit(&mut shelf, age),
                gone.into_iter().collect::<Vec<_>>(),
                "of the function: {instance}"
            );
        }
        let mut gone = Vec::new();
        for (instance, function) in [(8, "h"), (9, "i")] {
            let age = shelf.add(part(function, instance, 1), 4 * MIB, 4);
            gone.extend(fit(&mut shelf, age));
        }
        assert_eq!(gone, [part("g", 1, 1)], "of the node");
        assert_eq!(shelf.total, shelf.parts.values().map(|kept| kept.bytes).sum::<u64>());
    }

    #[test]
    fn a_small_file_counts_as_a_block_and_age_is_since_it_was_written() {
        let mut shelf = shelf();
        let old = shelf.add(part("f", 1, 1), 1, 10);
        let young = shelf.add(part("f", 1, 2), 1, 10);
        shelf.grew(young, 1, 20);
        assert_eq!(shelf.total, 2 * LEAST);
        assert_eq!(shelf.untouched_since(20), [old]);
        shelf.remove(old);
        shelf.remove(young);
        assert_eq!((shelf.total, shelf.of_instance.len(), shelf.of_function.len()), (0, 0, 0));
        assert_eq!(shelf.remove(young), None);
    }
}
