//! `function.toml`: what a folder is, read with all that is wrong in it at once, each with its line.

use std::{borrow::Cow, collections::BTreeMap, fs, path::Path};

use serde::Deserialize;
use serde_json::{Value, json};
use store::NodeLabels;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::{
    near::nearest,
    output::Usage,
    settings::{found, line_of, meant, position, syntax},
};

/// Instances of a function that says none.
const INSTANCES: i32 = 400;

/// What one says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FunctionFile {
    /// As the folder, if it is not given.
    #[serde(default)]
    pub(crate) name: String,
    #[serde(default = "default_package")]
    pub(crate) package: String,
    runtime: String,
    handler: String,
    /// Seconds.
    timeout: u32,
    /// MiB.
    #[serde(default = "default_memory")]
    memory_size: u32,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    initializer: Option<String>,
    /// Seconds.
    #[serde(default)]
    initializer_timeout: Option<u32>,
    #[serde(default)]
    pre_stop: Option<String>,
    /// Seconds.
    #[serde(default)]
    pre_stop_timeout: Option<u32>,
    /// Requests per instance.
    #[serde(default)]
    concurrency: Option<u32>,
    #[serde(default)]
    max_instances: Option<i32>,
    #[serde(default)]
    user_data: BTreeMap<String, String>,
    /// Passed on as it is: see [`QUELL`].
    #[serde(default)]
    quell: BTreeMap<String, Value>,
}

fn default_package() -> String {
    "default".to_owned()
}

fn default_memory() -> u32 {
    128
}

/// What a value is.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Count,
    /// A count, or -1.
    Limit,
    Truth,
    /// A table of texts.
    Texts,
    /// A list of labels of nodes.
    NodeLabels,
    /// The table of [`QUELL`].
    Options,
}

const KEYS: [(&str, Kind); 15] = [
    ("name", Kind::Text),
    ("package", Kind::Text),
    ("runtime", Kind::Text),
    ("handler", Kind::Text),
    ("timeout", Kind::Count),
    ("memory_size", Kind::Count),
    ("description", Kind::Text),
    ("initializer", Kind::Text),
    ("initializer_timeout", Kind::Count),
    ("pre_stop", Kind::Text),
    ("pre_stop_timeout", Kind::Count),
    ("concurrency", Kind::Count),
    ("max_instances", Kind::Limit),
    ("user_data", Kind::Texts),
    ("quell", Kind::Options),
];

/// Keys of the table `[quell]`; what they may be is for the node to say.
const QUELL: [(&str, Kind); 8] = [
    ("grace_ms", Kind::Count),
    ("on_grace_expired", Kind::Text),
    ("on_collateral", Kind::Text),
    ("on_disconnect", Kind::Text),
    ("start_timeout_s", Kind::Count),
    ("network", Kind::Text),
    ("fork_server", Kind::Truth),
    ("node_labels", Kind::NodeLabels),
];

/// What must be there, and a line that says it.
const REQUIRED: [(&str, &str); 3] = [
    ("runtime", "runtime = \"Python3.10\""),
    ("handler", "handler = \"index.handler\""),
    ("timeout", "timeout = 30, in seconds"),
];

impl FunctionFile {
    /// Reads that of a folder.
    ///
    /// # Errors
    /// [`Usage`] with everything that is wrong, in words.
    pub(crate) fn of(dir: &Path) -> Result<Self, Usage> {
        if !dir.is_dir() {
            let why = if dir.exists() { "is no folder" } else { "is not there" };
            return Err(Usage(format!(
                "{} {why}: give the folder of a function, with its function.toml and code",
                dir.display()
            )));
        }
        let path = dir.join("function.toml");
        let text = fs::read_to_string(&path).map_err(|error| {
            let hint = "it says what the folder is, e.g. name = \"hello\", runtime = \"Python3.10\", handler = \
                        \"index.handler\", timeout = 30, a line each";
            Usage(format!("{} cannot be read ({hint}): {error}", path.display()))
        })?;
        let mut function = Self::parse(&path, &text)?;
        if function.name.is_empty() {
            // Not `dir` itself: that may be `.` or end with `..`.
            let whole = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
            let name = whole.file_name().and_then(|name| name.to_str());
            let none = "has no name, and its folder none either: say name = \"...\"";
            name.ok_or_else(|| Usage(format!("{} {none}", path.display())))?.clone_into(&mut function.name);
        }
        Ok(function)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, Usage> {
        let wrong = mistakes(text);
        if wrong.is_empty() {
            let function = toml::from_str(text);
            // Numbers that are too large.
            return function.map_err(|error| Usage(format!("{} is not understood: {error}", path.display())));
        }
        let told = wrong.iter().map(|(at, what)| match at {
            Some(at) => {
                let (line, column) = position(text, *at);
                format!("{}:{line}:{column}: {what}", path.display())
            }
            None => format!("{}: {what}", path.display()),
        });
        let told: Vec<String> = told.collect();
        Err(Usage(match told.as_slice() {
            [one] => format!("the function's file is wrong: {one}"),
            several => format!(
                "the function's file is wrong in {} places:\n  {}",
                several.len(),
                several.join("\n  ")
            ),
        }))
    }

    /// The configuration, as the API takes it.
    pub(crate) fn config(&self) -> Value {
        let mut config = json!({
            "func_name": self.name,
            "package": self.package,
            "runtime": self.runtime,
            "handler": self.handler,
            "timeout": self.timeout,
            "memory_size": self.memory_size,
        });
        let mut set = |name: &str, value: Value| {
            if let Some(config) = config.as_object_mut() {
                config.insert(name.to_owned(), value);
            }
        };
        if let Some(description) = &self.description {
            set("description", json!(description));
        }
        if let Some(initializer) = &self.initializer {
            set("initializer_handler", json!(initializer));
        }
        if let Some(limit) = self.initializer_timeout {
            set("initializer_timeout", json!(limit));
        }
        if let Some(handler) = &self.pre_stop {
            set("pre_stop_handler", json!(handler));
        }
        if let Some(limit) = self.pre_stop_timeout {
            set("pre_stop_timeout", json!(limit));
        }
        if !self.user_data.is_empty() {
            // The API wants an object written as a string.
            set("user_data", json!(json!(self.user_data).to_string()));
        }
        if self.concurrency.is_some() || self.max_instances.is_some() {
            let strategy = json!({
                "concurrency": self.max_instances.unwrap_or(INSTANCES),
                "concurrent_num": self.concurrency.unwrap_or(1),
            });
            set("strategy_config", strategy);
        }
        if !self.quell.is_empty() {
            set("quell", json!(self.quell));
        }
        config
    }
}

/// Where something is wrong, and what; what is missing is nowhere.
type Wrong = Vec<(Option<usize>, String)>;

/// Everything that is wrong with a text, in its order, and then what is missing.
fn mistakes(text: &str) -> Wrong {
    let (table, errors) = DeTable::parse_recoverable(text);
    let at = |error: &toml::de::Error| error.span().unwrap_or_default().start;
    let mut wrong: Wrong = errors
        .iter()
        .map(|error| (Some(at(error)), syntax(error.message(), line_of(text, at(error)))))
        .collect();
    // What is on the line of a syntax error was guessed by the parser: nothing is said about it twice.
    let broken: Vec<usize> = errors.iter().map(|error| position(text, at(error)).0).collect();
    let is_broken = |key: &Spanned<Cow<'_, str>>| broken.contains(&position(text, key.span().start).0);
    for (key, value) in table.get_ref().iter().filter(|(key, _)| !is_broken(key)) {
        look_at(&KEYS, "", key, value, &mut wrong);
    }
    wrong.sort();
    let is_there = |name: &str| table.get_ref().keys().any(|key| key.get_ref() == name);
    let is_meant = |name: &str| broken.iter().any(|line| key_of_line(text, *line) == name);
    for (name, like) in REQUIRED {
        if !is_there(name) && !is_meant(name) {
            wrong.push((None, format!("`{name}` is missing: a line like {like}")));
        }
    }
    wrong
}

/// What a line, counted from 1, begins with.
fn key_of_line(text: &str, line: usize) -> &str {
    let line = text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
    line.split_once(['=', ':']).map_or(line, |(key, _)| key).trim()
}

fn look_at(
    known: &[(&str, Kind)],
    inside: &str,
    key: &Spanned<Cow<'_, str>>,
    value: &Spanned<DeValue<'_>>,
    wrong: &mut Wrong,
) {
    let name = format!("{inside}{}", key.get_ref());
    let Some((_, kind)) = known.iter().find(|(known, _)| *known == key.get_ref()) else {
        let plain = key.get_ref().to_lowercase().replace('-', "_");
        let names = || known.iter().map(|(known, _)| *known);
        let hint = match nearest(&plain, names()) {
            Some(near) => format!("did you mean `{inside}{near}`?"),
            None => format!("known are {}", names().collect::<Vec<_>>().join(", ")),
        };
        return wrong.push((Some(key.span().start), format!("unknown key `{name}`; {hint}")));
    };
    let at = Some(value.span().start);
    let value = value.get_ref();
    let mut is_none = |what: &str, hint: String| {
        wrong.push((at, format!("{name}: {} is not {what}{hint}", found(value))));
    };
    match (kind, value) {
        (Kind::Text, DeValue::String(_)) | (Kind::Truth, DeValue::Boolean(_)) => {}
        (Kind::Count, DeValue::Integer(number)) if !number.as_str().starts_with('-') => {}
        (Kind::Limit, DeValue::Integer(_)) => {}
        (Kind::Text, _) => is_none("a text", ": texts stand in double quotes".to_owned()),
        (Kind::Truth, _) => is_none("true or false", String::new()),
        (Kind::Count | Kind::Limit, _) => is_none("a whole number", meant(value)),
        (Kind::Texts, DeValue::Table(texts)) => {
            for (inner, value) in texts {
                if !matches!(value.get_ref(), DeValue::String(_)) {
                    let what =
                        format!("{name}.{}: {} is not a text", inner.get_ref(), found(value.get_ref()));
                    wrong.push((Some(value.span().start), format!("{what}: texts stand in double quotes")));
                }
            }
        }
        (Kind::NodeLabels, DeValue::Array(labels)) => look_at_labels(&name, labels, at, wrong),
        (Kind::NodeLabels, _) => is_none("a list of labels", ": write [\"gpu\", \"zone=a\"]".to_owned()),
        (Kind::Options, DeValue::Table(options)) => {
            options.iter().for_each(|(inner, value)| look_at(&QUELL, "quell.", inner, value, wrong));
        }
        (Kind::Texts | Kind::Options, _) => is_none("a table", format!(": it begins with a line [{name}]")),
    }
}

/// Every label that is none, each with its place; and whether there are too many.
fn look_at_labels(name: &str, labels: &[Spanned<DeValue<'_>>], at: Option<usize>, wrong: &mut Wrong) {
    let mut good = Vec::new();
    for label in labels {
        let place = Some(label.span().start);
        match label.get_ref() {
            DeValue::String(text) => match NodeLabels::new([text]) {
                Ok(_) => good.push(text),
                Err(why) => wrong.push((place, format!("{name}: {why}"))),
            },
            other => {
                let what = format!("{name}: {} is not a text: texts stand in double quotes", found(other));
                wrong.push((place, what));
            }
        }
    }
    if let Err(why) = NodeLabels::new(good) {
        wrong.push((at, format!("{name}: {why}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        FunctionFile::parse(Path::new("function.toml"), text).unwrap_err().to_string()
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once_with_its_line_and_what_was_meant() {
        let told = refused(
            "name = 3\nruntime = \"Python3.10\"\nhandlr = \"index.handler\"\ntimeout = \"30s\"\nmemroy_size = 128\n\
             max_instances = true\n[user_data]\nn = 5\n[quell]\ngrace = 5\ngrace_ms = \"2\"\n",
        );
        for said in [
            "wrong in 9 places",
            "function.toml:1:8: name: the number 3 is not a text: texts stand in double quotes",
            "function.toml:3:1: unknown key `handlr`; did you mean `handler`?",
            "function.toml:4:11: timeout: the text \"30s\" is not a whole number: write 30, without quotes and unit",
            "function.toml:5:1: unknown key `memroy_size`; did you mean `memory_size`?",
            "function.toml:6:17: max_instances: true is not a whole number",
            "function.toml:8:5: user_data.n: the number 5 is not a text",
            "function.toml:10:1: unknown key `quell.grace`; ",
            "function.toml:11:12: quell.grace_ms: the text \"2\" is not a whole number: write 2",
            "function.toml: `handler` is missing: a line like handler = \"index.handler\"",
        ] {
            assert!(told.contains(said), "{said}: {told}");
        }
    }

    #[test]
    fn every_label_that_is_none_is_told_with_its_place() {
        let head = "runtime = \"r\"\nhandler = \"index.handler\"\ntimeout = 3\n[quell]\n";
        let told = refused(&format!("{head}node_labels = [\"gpu\", \"a b\", 3, \"-\"]\n"));
        for said in [
            "wrong in 3 places",
            "function.toml:5:23: quell.node_labels: \"a b\" is no label of a node",
            "function.toml:5:30: quell.node_labels: the number 3 is not a text",
            "function.toml:5:33: quell.node_labels: \"-\" is no label",
        ] {
            assert!(told.contains(said), "{said}: {told}");
        }
        let told = refused(&format!("{head}node_labels = \"gpu\"\n"));
        assert!(
            told.contains("5:15: quell.node_labels: the text \"gpu\" is not a list of labels: write ["),
            "{told}"
        );
        let many: Vec<String> = (0..17).map(|at| format!("\"l{at}\"")).collect();
        let told = refused(&format!("{head}node_labels = [{}]\n", many.join(", ")));
        assert!(told.contains("5:15: quell.node_labels: 17 labels; there may be 16"), "{told}");
        let text = format!("{head}node_labels = [\"zone=a\", \"gpu\"]\n");
        let config = FunctionFile::parse(Path::new("function.toml"), &text).unwrap().config();
        assert_eq!(config["quell"], json!({ "node_labels": ["zone=a", "gpu"] }));
    }

    #[test]
    fn what_is_missing_or_no_toml_is_told_in_words_and_nothing_twice() {
        let told = refused("runtime = \"Python3.10\"\nhandler = \"index.handler\"\n");
        assert!(
            told.contains("`timeout` is missing: a line like timeout = 30") && !told.contains('\n'),
            "{told}"
        );
        let told = refused("runtime = Python3.10\nhandler = \"index.handler\"\ntimeout = 30\n");
        assert!(told.contains("function.toml:1:") && told.contains("double quotes"), "{told}");
        assert!(!told.contains("missing"), "{told}");
        let told = refused("runtime = \"r\"\nhandler = \"index.handler\"\ntimeout = 99999999999\n");
        assert!(told.contains("not understood"), "{told}");
    }

    #[test]
    fn a_function_is_called_as_its_folder_unless_it_says_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("resize");
        fs::create_dir(&folder).unwrap();
        let rest = "runtime = \"Python3.10\"\nhandler = \"index.handler\"\ntimeout = 3\n";
        for (text, name) in [(rest.to_owned(), "resize"), (format!("name = \"other\"\n{rest}"), "other")] {
            fs::write(folder.join("function.toml"), text).unwrap();
            for path in [folder.clone(), folder.join("."), folder.join("../resize")] {
                assert_eq!(FunctionFile::of(&path).unwrap().name, name);
            }
        }
    }
}
