//! `where`: which live requests are meant, as people write it, `function=f,age>10m,status=waiting,label.team=x`,
//! and as programs do, an object of the same.

use std::{collections::BTreeMap, fmt, time::Duration};

use cancel::RequestId;
use serde_json::{Map, Value};
use store::Labels;
use supervisor::Standing;

use crate::labels;

const TERMS: &str = "the terms are function=NAME, age>10m, status=waiting|running|draining, parent=REQUEST and \
                     label.NAME=VALUE, with commas between";
/// How the names of terms begin.
const BEGINNINGS: [&str; 6] = ["fu", "ag", "st", "pa", "la", "re"];
/// More than all terms at their longest.
const MAX_TEXT: usize = 4_096;
/// A function's URN.
const MAX_FUNCTION: usize = 269;

/// What the requests have in common. Of the terms that are given all must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Where {
    /// Any form of a function's name.
    pub(crate) function: Option<String>,
    pub(crate) older_than: Option<Duration>,
    pub(crate) status: Option<Standing>,
    pub(crate) parent: Option<RequestId>,
    pub(crate) labels: Labels,
}

impl Where {
    /// Reads the form for people.
    ///
    /// # Errors
    /// In words, which term and what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_TEXT {
            return Err(format!("it is longer than {MAX_TEXT} bytes"));
        }
        let mut terms = Terms::default();
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        for term in text.split(',').map(str::trim) {
            let at = term.find(['=', '>', '<', '!']).filter(|at| *at > 0);
            let at = at.ok_or_else(|| format!("{term:?} is no term; {TERMS}"))?;
            let name = term[..at].trim_end();
            let rest = &term[at..];
            let operator = if rest.starts_with('>') { ">" } else { "=" };
            // Both mean the same to everybody who types them.
            let value = rest
                .strip_prefix(">=")
                .or_else(|| rest.strip_prefix("=="))
                .or_else(|| rest.strip_prefix(operator));
            let value = value.ok_or_else(|| format!("{term:?}: there is only = and, for age, >"))?;
            match (name, operator) {
                ("age", "=") => return Err(format!("{term:?}: an age is compared with >, as in age>10m")),
                ("age", _) => terms.age(value.trim())?,
                (_, ">") => return Err(format!("{term:?}: only age is compared with >; {TERMS}")),
                _ => terms.set(name, value.trim())?,
            }
        }
        terms.done()
    }

    /// Reads the form for programs: a text as above, or
    /// `{"function", "age", "status", "parent", "labels": {}}`.
    ///
    /// # Errors
    /// As above.
    pub(crate) fn of_json(value: &Value) -> Result<Self, String> {
        let object: &Map<String, Value> = match value {
            Value::String(text) => return Self::parse(text),
            Value::Object(object) => object,
            _ => return Err("it is neither a text nor an object".to_owned()),
        };
        let mut terms = Terms::default();
        for (name, value) in object {
            match (name.as_str(), value) {
                (_, Value::Null) => {}
                ("age", Value::String(age)) => terms.age(age.trim().trim_start_matches('>'))?,
                ("labels", Value::Object(labels)) => {
                    for (name, value) in labels {
                        let value = value.as_str().ok_or_else(|| format!("label {name:?} is not a text"))?;
                        terms.label(name, value)?;
                    }
                }
                ("function" | "status" | "parent", Value::String(text)) => terms.set(name, text)?,
                ("function" | "status" | "parent" | "age", _) => return Err(format!("{name} is not a text")),
                ("labels", _) => return Err("labels is not an object".to_owned()),
                _ => {
                    return Err(format!(
                        "there is no {name:?}; there are \"function\", \"age\", \"status\", \"parent\" and \"labels\""
                    ));
                }
            }
        }
        terms.done()
    }

    /// Whether it means every request.
    pub fn is_everything(&self) -> bool {
        *self == Self::default()
    }
}

/// The form for people, always the same for the same meaning.
impl fmt::Display for Where {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut terms = Vec::new();
        terms.extend(self.function.as_ref().map(|function| format!("function={function}")));
        terms.extend(self.older_than.map(|age| format!("age>{}ms", age.as_millis())));
        terms.extend(self.status.map(|status| format!("status={}", word(status))));
        terms.extend(self.parent.map(|parent| format!("parent={parent}")));
        terms.extend(self.labels.iter().map(|(name, value)| format!("label.{name}={value}")));
        f.write_str(&terms.join(","))
    }
}

fn word(status: Standing) -> &'static str {
    match status {
        Standing::Waiting => "waiting",
        Standing::Running => "running",
        Standing::Draining => "draining",
    }
}

/// What was read so far.
#[derive(Default)]
struct Terms {
    read: Where,
    labels: BTreeMap<String, String>,
}

impl Terms {
    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        if let Some(label) = name.strip_prefix("label.") {
            return self.label(label, value);
        }
        if value.is_empty() {
            return Err(format!("{name} says nothing; {TERMS}"));
        }
        match name {
            "function" if value.len() > MAX_FUNCTION => {
                Err(format!("function is longer than {MAX_FUNCTION} bytes"))
            }
            "function" => once(name, &mut self.read.function, value.to_owned()),
            "parent" => {
                let parent = RequestId::parse(value);
                let parent = parent.ok_or_else(|| format!("parent {value:?} is no request id"))?;
                once(name, &mut self.read.parent, parent)
            }
            "status" => {
                let status = match value {
                    // Lists of requests say more exactly what is waited for; here both are this.
                    "waiting" | "queued" | "placed" => Standing::Waiting,
                    "running" => Standing::Running,
                    "draining" => Standing::Draining,
                    _ => {
                        return Err(format!(
                            "status {value:?} is none of waiting, running, draining (queued and placed are waiting)"
                        ));
                    }
                };
                once(name, &mut self.read.status, status)
            }
            // A label without its prefix, and no term with a mistyped letter: those begin alike.
            _ if labels::check(name, value).is_ok()
                && !BEGINNINGS.iter().any(|begin| name.starts_with(begin)) =>
            {
                Err(format!("there is no {name:?}; did you mean label.{name}={value}? {TERMS}"))
            }
            _ => Err(format!("there is no {name:?}; {TERMS}")),
        }
    }

    fn age(&mut self, text: &str) -> Result<(), String> {
        let units = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
        let age = units.iter().find_map(|(unit, ms)| {
            let count: u32 = text.strip_suffix(unit)?.parse().ok()?;
            Some(Duration::from_millis(u64::from(count) * ms))
        });
        let age = age.ok_or_else(|| format!("age {text:?} is not like 90s, 15m, 2h or 1d"))?;
        once("age", &mut self.read.older_than, age)
    }

    fn label(&mut self, name: &str, value: &str) -> Result<(), String> {
        labels::check(name, value)?;
        match self.labels.insert(name.to_owned(), value.to_owned()) {
            Some(_) => Err(format!("label.{name} is given twice")),
            None => Ok(()),
        }
    }

    fn done(self) -> Result<Where, String> {
        Ok(Where { labels: Labels::new(self.labels), ..self.read })
    }
}

fn once<T>(name: &str, place: &mut Option<T>, value: T) -> Result<(), String> {
    match place.replace(value) {
        Some(_) => Err(format!("{name} is given twice")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const ID: &str = "1167bf8c-87b0-43ab-8f5f-26b16c64f252";

    #[test]
    fn people_and_programs_say_the_same() {
        let text = format!("function=f, age>10m,status=waiting,parent={ID},label.team=x,label.run=7");
        let object = json!({
            "function": "f", "age": "10m", "status": "waiting", "parent": ID,
            "labels": { "team": "x", "run": "7" },
        });
        let read = Where::parse(&text).unwrap();
        assert_eq!(Where::of_json(&object), Ok(read.clone()));
        assert_eq!(Where::of_json(&json!(text)), Ok(read.clone()));
        assert_eq!(Where::parse(&read.to_string()), Ok(read.clone()));
        assert_eq!(read.older_than, Some(Duration::from_secs(600)));
        assert!(!read.is_everything() && Where::parse(" ").unwrap().is_everything());
        assert!(Where::of_json(&json!({ "status": null })).unwrap().is_everything());
        for shown in ["queued", "placed"] {
            assert_eq!(Where::parse(&format!("status={shown}")), Where::parse("status=waiting"));
        }
    }

    #[test]
    fn each_mistake_is_named() {
        for (text, said) in [
            ("f", "\"f\" is no term"),
            ("=f", "is no term"),
            ("functoin=f", "no \"functoin\"; the terms are function=NAME"),
            ("function=", "function says nothing"),
            ("function=f,function=g", "function is given twice"),
            ("function>f", "only age"),
            ("age=10m", "age>10m"),
            ("age<10m", "only = and"),
            ("age>10", "90s, 15m"),
            ("age>-5m", "90s, 15m"),
            ("age>10w", "90s, 15m"),
            ("status=done", "none of waiting, running"),
            ("team=x", "no \"team\"; did you mean label.team=x? the terms are"),
            ("lable.team=x", "no \"lable.team\"; the terms are"),
            ("parent=7", "\"7\" is no request id"),
            ("label.=x", "has no name"),
            ("label.team=a b", "letters, digits"),
            ("label.t=x,label.t=y", "label.t is given twice"),
            ("function=f,", "\"\" is no term"),
            ("status!=waiting", "only = and"),
        ] {
            let error = Where::parse(text).unwrap_err();
            assert!(error.contains(said), "{text:?}: {error}");
        }
        for (value, said) in [
            (json!(7), "neither a text nor an object"),
            (json!({ "label": { "a": "b" } }), "no \"label\""),
            (json!({ "labels": "a=b" }), "labels is not an object"),
            (json!({ "labels": { "a": 1 } }), "\"a\" is not a text"),
            (json!({ "age": 600 }), "age is not a text"),
            (json!({ "status": "over" }), "none of waiting"),
        ] {
            let error = Where::of_json(&value).unwrap_err();
            assert!(error.contains(said), "{value}: {error}");
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic_and_what_is_read_is_written_the_same(text in "[a-z.=><!,é 0-9]{0,60}") {
            if let Ok(read) = Where::parse(&text) {
                prop_assert_eq!(Where::parse(&read.to_string()), Ok(read));
            }
        }
    }
}
