//! What whoever invoked a request says of it, as `name=value`, for whoever looks for it later.

use std::{collections::BTreeMap, sync::Arc};

/// The labels of one request. Most have none, which costs a live request one word and the store nothing;
/// a copy costs no memory. How many and how long they may be is for whoever takes them in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(Option<Arc<BTreeMap<String, String>>>);

impl Labels {
    /// These, by name.
    pub fn new(labels: BTreeMap<String, String>) -> Self {
        Self((!labels.is_empty()).then(|| Arc::new(labels)))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Each name with its value, in the order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().flat_map(|labels| labels.iter()).map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The same as a map of its own.
    pub fn to_map(&self) -> BTreeMap<String, String> {
        self.0.as_deref().cloned().unwrap_or_default()
    }

    /// Whether all of `wanted` are among them, with the same values.
    pub fn include(&self, wanted: &Self) -> bool {
        wanted.iter().all(|(name, value)| {
            self.0.as_ref().and_then(|labels| labels.get(name)).is_some_and(|mine| mine == value)
        })
    }

    /// As the store keeps them: an object of texts; nothing where there are none.
    pub(crate) fn text(&self) -> Option<String> {
        // Texts by text: it cannot fail.
        self.0.as_deref().and_then(|labels| serde_json::to_string(labels).ok())
    }

    /// Reads what the store keeps. What it cannot read is of no label: a request is more than its labels.
    pub(crate) fn read(text: Option<&str>) -> Self {
        text.and_then(|text| serde_json::from_str(text).ok()).map(Self::new).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        Labels::new(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn what_is_wanted_must_all_be_there_with_its_value() {
        let mine = labels(&[("team", "x"), ("tier", "1")]);
        for (wanted, fits) in [
            (labels(&[]), true),
            (labels(&[("team", "x")]), true),
            (labels(&[("tier", "1"), ("team", "x")]), true),
            (labels(&[("team", "y")]), false),
            (labels(&[("team", "x"), ("region", "r")]), false),
        ] {
            assert_eq!(mine.include(&wanted), fits, "{wanted:?}");
        }
        assert!(!Labels::default().include(&mine) && Labels::default().include(&Labels::default()));
    }

    #[test]
    fn they_come_back_from_the_store_as_they_went_and_none_is_nothing() {
        let mine = labels(&[("team", "a \"quoted\" x"), ("empty", "")]);
        assert_eq!(Labels::read(mine.text().as_deref()), mine);
        assert_eq!(labels(&[]).text(), None);
        assert!(Labels::read(None).is_empty() && Labels::read(Some("{")).is_empty());
    }
}
