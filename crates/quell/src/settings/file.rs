//! Reads a `quell.toml`: every mistake in it, each with its line and column.

use std::{collections::HashMap, fs, io, path::Path};

use toml::de::{DeTable, DeValue};

use super::{Mistakes, NodeSettings, SETTINGS, Setting};
use crate::near::edits;

/// A configuration is a few KB; what is larger is another file.
const MAX_BYTES: u64 = 1 << 20;
/// A key that is further from all known ones than this was not meant to be one of them.
const NEAR: usize = 3;
/// The same of a variable.
const NEAR_VARIABLE: usize = 2;

/// What a file says.
#[derive(Clone, Debug)]
pub(crate) struct File {
    /// What it sets, and the defaults where it sets nothing.
    pub(super) values: NodeSettings,
    /// The keys it has, and where: `quell.toml:3:1`.
    pub(super) places: HashMap<&'static str, String>,
}

impl File {
    /// Reads one: what can be understood of it, and everything that is wrong with the rest.
    pub(crate) fn read(path: &Path) -> (Self, Mistakes) {
        match text_of(path) {
            Ok(text) => Self::parse(path, &text),
            Err(why) => {
                let mut mistakes = Mistakes::default();
                mistakes.add(path.display().to_string(), why);
                (Self::empty(), mistakes)
            }
        }
    }

    fn empty() -> Self {
        Self { values: NodeSettings::default(), places: HashMap::new() }
    }

    fn parse(path: &Path, text: &str) -> (Self, Mistakes) {
        let place = |at: usize| {
            let (line, column) = position(text, at);
            format!("{}:{line}:{column}", path.display())
        };
        let mut file = Self::empty();
        let (table, errors) = DeTable::parse_recoverable(text);
        let at = |error: &toml::de::Error| error.span().unwrap_or_default().start;
        let mut wrong: Vec<(usize, String)> = errors
            .iter()
            .map(|error| (at(error), syntax(error.message(), line_of(text, at(error)))))
            .collect();
        // What is on the line of a syntax error was guessed by the parser: nothing is said about it twice.
        let broken: Vec<usize> = wrong.iter().map(|(at, _)| position(text, *at).0).collect();
        let folder = path.parent().unwrap_or(Path::new(""));
        for (key, value) in table.get_ref() {
            if broken.contains(&position(text, key.span().start).0) {
                continue;
            }
            let at = key.span().start;
            let Some(setting) = known(key.get_ref()) else {
                wrong.push((at, unknown(key.get_ref(), value.get_ref())));
                continue;
            };
            let field = (setting.at.field)(&mut file.values);
            match field.read_toml(value.get_ref(), folder, setting.range) {
                Ok(()) => drop(file.places.insert(setting.key, place(at))),
                Err(why) => wrong.push((value.span().start, format!("{}: {why}", setting.key))),
            }
        }
        wrong.sort();
        let mut mistakes = Mistakes::default();
        for (at, what) in wrong {
            mistakes.add(place(at), what);
        }
        (file, mistakes)
    }
}

/// What is in a file, or why that cannot be read.
fn text_of(path: &Path) -> Result<String, String> {
    let seen = fs::metadata(path).map_err(|error| reason(&error))?;
    if seen.is_dir() {
        return Err("it is a folder: name the file in it".to_owned());
    }
    if seen.len() > MAX_BYTES {
        return Err("it is larger than 1 MiB: that is no configuration".to_owned());
    }
    let bytes = fs::read(path).map_err(|error| reason(&error))?;
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8, so it is no TOML".to_owned())
}

/// Why a file cannot be read, and what to do.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "there is no such file: look at its name and at the folder you are in; `quell config example > FILE` writes \
             one to begin with, and without any file the defaults hold"
                .to_owned()
        }
        io::ErrorKind::PermissionDenied => "it may not be read by the user that the node runs as".to_owned(),
        _ => format!("it cannot be read: {error}"),
    }
}

fn known(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

fn unknown(key: &str, value: &DeValue<'_>) -> String {
    if let DeValue::Table(table) = value {
        let inside = table.keys().any(|inner| known(inner.get_ref()).is_some());
        let hint = if inside { ": its keys are right, the line with the brackets is too much" } else { "" };
        return format!("unknown section `{key}`: all keys stand at the top, there are no sections{hint}");
    }
    match nearest(key) {
        Some(near) => format!("unknown key `{key}`; did you mean `{near}`?"),
        None => format!("unknown key `{key}`; `quell config show` lists all there are"),
    }
}

/// The key that was probably meant: a flag's name, another spelling, a typing error.
fn nearest(key: &str) -> Option<&'static str> {
    let plain = key.to_lowercase().replace('-', "_");
    let plain = plain.strip_prefix("quell_").unwrap_or(&plain);
    let by_flag = SETTINGS.iter().find(|one| one.flag.replace('-', "_") == plain || one.key == plain);
    let distance = |one: &Setting| {
        let without_unit = one.flag.replace('-', "_");
        edits(plain, one.key).min(edits(plain, &without_unit))
    };
    let nearest = || SETTINGS.iter().min_by_key(|one| distance(one)).filter(|one| distance(one) <= NEAR);
    by_flag.or_else(nearest).map(|one| one.key)
}

/// The setting whose key, without its `QUELL_` and in capitals, this nearly is. Stricter than in a file, where whatever
/// stands was meant for a node.
pub(super) fn mistyped(name: &str) -> Option<&'static Setting> {
    let name = name.to_lowercase();
    let near = |one: &&Setting| one.key.len() > 5 && edits(&name, one.key) <= NEAR_VARIABLE;
    SETTINGS.iter().find(near)
}

/// The parser's message, and what it means for whoever writes TOML for the first time.
pub(crate) fn syntax(message: &str, line: &str) -> String {
    let value = line.split_once('=').map(|(_, value)| value.trim()).unwrap_or_default();
    let bare =
        value.chars().next().is_some_and(|first| first.is_ascii_alphanumeric() || "/.:*".contains(first));
    if message.contains("duplicate key")
        && let Some((key, _)) = line.split_once('=')
    {
        return format!("the key `{}` is there twice: leave one of the lines out", key.trim());
    }
    let hint = match line.split_once('=') {
        None if line.contains(':') => "; a line is `key = value`",
        Some(_) if bare && value.parse::<f64>().is_err() => {
            "; texts, paths and addresses stand in double quotes"
        }
        _ => "",
    };
    format!("{message}{hint}")
}

/// The line that a place is on.
pub(crate) fn line_of(text: &str, at: usize) -> &str {
    let at = at.min(text.len());
    let begin = text.get(..at).and_then(|before| before.rfind('\n')).map_or(0, |end| end + 1);
    text.get(begin..).and_then(|rest| rest.lines().next()).unwrap_or_default()
}

/// Line and column, from 1, columns in characters.
pub(crate) fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at.min(text.len())).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}
