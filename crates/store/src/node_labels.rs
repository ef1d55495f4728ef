//! What is said of a node, and asked of one: words such as `gpu` and `zone=a`. They have nothing to do with the labels of
//! requests.

use std::{fmt, sync::Arc};

use crate::label::{BadLabel, check_label};

/// Of one node, or asked for by one function: each is compared with every other one whenever requests are claimed.
const MAX_NODE_LABELS: usize = 16;

/// Labels of a node, or those that a function asks for: in order, each once. A copy costs no memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeLabels(Arc<[String]>);

impl NodeLabels {
    /// These, if each can be one, and they are not too many. One that is given twice counts once.
    ///
    /// # Errors
    /// In words, which label and what is wrong with it.
    pub fn new<T: AsRef<str>>(labels: impl IntoIterator<Item = T>) -> Result<Self, String> {
        let mut all = Vec::new();
        for label in labels {
            let label = label.as_ref();
            check(label)?;
            all.push(label.to_owned());
        }
        all.sort_unstable();
        all.dedup();
        match all.len() {
            0..=MAX_NODE_LABELS => Ok(Self(all.into())),
            many => Err(format!("{many} labels; there may be {MAX_NODE_LABELS}")),
        }
    }

    /// What was kept of them. Whoever kept it had looked at each.
    pub fn kept(mut labels: Vec<String>) -> Self {
        labels.sort_unstable();
        Self(labels.into())
    }

    /// Those that a function asks for, of its configuration: the one thing that a store reads of it, since a claim must
    /// see it. Of what is no such configuration, none.
    pub(crate) fn asked_by(config: &str) -> Self {
        let config: serde_json::Value = serde_json::from_str(config).unwrap_or_default();
        let asked = config["quell"]["node_labels"].as_array();
        let asked = asked.into_iter().flatten().filter_map(|label| label.as_str());
        Self::kept(asked.map(str::to_owned).collect())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// The same as texts of their own.
    pub fn to_vec(&self) -> Vec<String> {
        self.0.to_vec()
    }

    /// Whether all that are asked for are among them.
    pub fn include(&self, asked: &Self) -> bool {
        asked.iter().all(|label| self.0.iter().any(|mine| mine == label))
    }

    /// Those that are asked for and are not among them.
    pub fn missing(&self, asked: &Self) -> Self {
        let missing = asked.iter().filter(|label| self.0.iter().all(|mine| mine != label));
        Self(missing.map(str::to_owned).collect())
    }
}

/// As people write them: `gpu, zone=a`.
impl fmt::Display for NodeLabels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

fn check(label: &str) -> Result<(), String> {
    let (name, value) = label.split_once('=').unwrap_or((label, ""));
    check_label(name, value).map_err(|bad| match bad {
        BadLabel::Letters => format!(
            "{label:?} is no label of a node: a name or name=value is, of letters, digits and - _ . / : @, and it begins \
             with a letter or digit"
        ),
        BadLabel::Length { .. } => bad.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(all: &[&str]) -> NodeLabels {
        NodeLabels::new(all).unwrap()
    }

    #[test]
    fn all_that_is_asked_for_must_be_there_as_it_is() {
        let mine = labels(&["zone=a", "gpu"]);
        for (asked, missing) in [
            (labels(&[]), labels(&[])),
            (labels(&["gpu"]), labels(&[])),
            (labels(&["gpu", "zone=a"]), labels(&[])),
            (labels(&["zone=b", "gpu"]), labels(&["zone=b"])),
            (labels(&["zone"]), labels(&["zone"])),
        ] {
            assert_eq!(mine.missing(&asked), missing, "{asked}");
            assert_eq!(mine.include(&asked), missing.is_empty(), "{asked}");
        }
        assert_eq!((labels(&["b", "a", "b"]).to_string(), labels(&[]).is_empty()), ("a, b".into(), true));
    }

    #[test]
    fn each_mistake_is_named() {
        let many: Vec<String> = (0..17).map(|at| format!("l{at}")).collect();
        for (wrong, said) in [
            (vec!["gpu", ""], "\"\" is no label of a node"),
            (vec!["=a"], "\"=a\" is no label"),
            (vec!["a b"], "letters, digits"),
            (vec!["a,b"], "letters, digits"),
            (vec!["a=b=c"], "letters, digits"),
            (vec!["-a"], "begins"),
            (vec![&"x".repeat(64)], "64 bytes"),
            (many.iter().map(String::as_str).collect(), "17 labels; there may be 16"),
        ] {
            let error = NodeLabels::new(&wrong).unwrap_err();
            assert!(error.contains(said), "{wrong:?}: {error}");
        }
        assert!(NodeLabels::new([format!("{}={}", "n".repeat(63), "v".repeat(63))]).is_ok());
    }

    #[test]
    fn what_a_function_asks_for_is_read_of_its_configuration_and_of_nothing_else() {
        let asked = |config: &str| NodeLabels::asked_by(config);
        assert_eq!(asked(r#"{"quell":{"node_labels":["zone=a","gpu"]}}"#), labels(&["gpu", "zone=a"]));
        for none in ["", "no JSON", "{}", r#"{"quell":{}}"#, r#"{"quell":{"node_labels":"gpu"}}"#] {
            assert!(asked(none).is_empty(), "{none}");
        }
    }
}
