//! The kinds of values: how each is read from a flag or a variable, from TOML, and how it is shown.

use std::{
    ffi::OsStr,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::ValueEnum;
use store::NodeLabels;
use toml::{Value, de::DeValue};
use tracing_subscriber::EnvFilter;

use super::IsolationArg;
use crate::runtime_user::RuntimeUser;

/// The least and the most of a number.
pub(crate) type Range = (f64, f64);

/// A field of the settings. What cannot be read changes nothing, and is answered with what is expected instead.
pub(crate) trait Field {
    /// Reads what a flag (given perhaps more than once) or a variable says.
    fn read_text(&mut self, texts: &[&OsStr], range: Range) -> Result<(), String>;

    /// Reads a value of a file in this folder, to which relative paths belong.
    fn read_toml(&mut self, value: &DeValue<'_>, folder: &Path, range: Range) -> Result<(), String>;

    /// As a value of TOML; `None` where there is none.
    fn shown(&self) -> Option<String>;

    /// What it is, in words: `a number of seconds`.
    fn kind(&self, range: Range) -> String;
}

fn word<'a>(texts: &[&'a OsStr]) -> Result<&'a str, String> {
    let last = texts.last().copied().unwrap_or_default();
    last.to_str().ok_or_else(|| format!("{last:?} is not UTF-8"))
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// What a value of a file is, for a message.
pub(crate) fn found(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the text {}", quoted(text)),
        DeValue::Integer(number) => format!("the number {}", number.as_str()),
        DeValue::Float(number) => format!("the number {}", number.as_str()),
        DeValue::Boolean(truth) => format!("{truth}"),
        DeValue::Datetime(time) => format!("the date {time}"),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

fn number_of(value: &DeValue<'_>) -> Option<f64> {
    match value {
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).ok().map(|n| n as f64)
        }
        DeValue::Float(number) => number.as_str().parse().ok(),
        _ => None,
    }
}

/// The number that begins a text such as `30s` or `512`: what was probably meant.
pub(crate) fn meant(value: &DeValue<'_>) -> String {
    let DeValue::String(text) = value else { return String::new() };
    leading(text).map_or_else(String::new, |(number, _)| format!(": write {number}, without quotes and unit"))
}

fn leading(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim()))
}

/// The same of a time: in seconds, whatever its unit.
fn meant_seconds(text: &str, quoted: bool) -> String {
    let Some((number, unit)) = leading(text) else { return String::new() };
    let seconds = match unit {
        "ms" => number / 1_000.0,
        "m" | "min" => number * 60.0,
        "h" => number * 3_600.0,
        _ => number,
    };
    format!(": write {seconds}, without {}unit", if quoted { "quotes and " } else { "a " })
}

fn within(number: f64, (least, most): Range, shown: &str, unit: &str) -> Result<f64, String> {
    if number >= least && number <= most {
        return Ok(number);
    }
    Err(format!("`{shown}` is not between {least} and {most}{unit}"))
}

impl Field for Duration {
    fn read_text(&mut self, texts: &[&OsStr], range: Range) -> Result<(), String> {
        let text = word(texts)?;
        let number = text
            .parse()
            .map_err(|_| format!("`{text}` is not a number of seconds{}", meant_seconds(text, false)))?;
        *self = Self::from_secs_f64(within(number, range, text, " seconds")?);
        Ok(())
    }

    fn read_toml(&mut self, value: &DeValue<'_>, _: &Path, range: Range) -> Result<(), String> {
        let number = number_of(value).ok_or_else(|| {
            let meant = value.as_str().map(|text| meant_seconds(text, true)).unwrap_or_default();
            format!("{} is not a number of seconds{meant}", found(value))
        })?;
        *self = Self::from_secs_f64(within(number, range, &number.to_string(), " seconds")?);
        Ok(())
    }

    fn shown(&self) -> Option<String> {
        Some(self.as_secs_f64().to_string())
    }

    fn kind(&self, (least, most): Range) -> String {
        format!("a number of seconds, {least} to {most}")
    }
}

/// The whole numbers alike.
macro_rules! whole_numbers {
    ($($number:ty),*) => {$(
        impl Field for $number {
            fn read_text(&mut self, texts: &[&OsStr], range: Range) -> Result<(), String> {
                let text = word(texts)?;
                // Read as what holds every one of them, so that a large one is out of range and not "no number".
                let number: i128 = text.parse().map_err(|_| format!("`{text}` is not a whole number"))?;
                within(number as f64, range, text, "")?;
                *self = Self::try_from(number).map_err(|_| format!("`{text}` is too large"))?;
                Ok(())
            }

            fn read_toml(&mut self, value: &DeValue<'_>, _: &Path, range: Range) -> Result<(), String> {
                let wrong = || format!("{} is not a whole number{}", found(value), meant(value));
                let DeValue::Integer(digits) = value else { return Err(wrong()) };
                let number = i128::from_str_radix(digits.as_str(), digits.radix()).map_err(|_| wrong())?;
                within(number as f64, range, digits.as_str(), "")?;
                *self = Self::try_from(number).map_err(|_| wrong())?;
                Ok(())
            }

            fn shown(&self) -> Option<String> {
                Some(self.to_string())
            }

            fn kind(&self, (least, most): Range) -> String {
                format!("a whole number, {least} to {most}")
            }
        }
    )*};
}

whole_numbers!(u32, u64, usize);

/// What is one text in a file, too: its kind, and how it is read.
macro_rules! texts {
    ($($of:ty, $kind:expr, $read:expr, $shown:expr;)*) => {$(
        impl Field for $of {
            fn read_text(&mut self, texts: &[&OsStr], _: Range) -> Result<(), String> {
                let read: fn(&str) -> Result<Self, String> = $read;
                *self = read(word(texts)?)?;
                Ok(())
            }

            fn read_toml(&mut self, value: &DeValue<'_>, _: &Path, _: Range) -> Result<(), String> {
                let read: fn(&str) -> Result<Self, String> = $read;
                let text = value.as_str().ok_or_else(|| {
                    format!("{} is not {}: a text in quotes is expected", found(value), $kind)
                })?;
                *self = read(text)?;
                Ok(())
            }

            fn shown(&self) -> Option<String> {
                let shown: fn(&Self) -> Option<String> = $shown;
                shown(self).map(|text| quoted(&text))
            }

            fn kind(&self, _: Range) -> String {
                $kind.to_owned()
            }
        }
    )*};
}

texts! {
    SocketAddr, "an address and a port, such as \"127.0.0.1:7171\"", address, |at| Some(at.to_string());
    String, "a name: 1 to 64 letters, digits, `-` and `_`", name, |name| Some(name.clone());
    IsolationArg, "one of \"auto\", \"cgroup\", \"subreaper\", \"process-group\"", choice, chosen;
    LogFormat, "one of \"text\", \"json\"", choice, chosen;
    Endpoint, "an endpoint, such as \"http://127.0.0.1:4318\"", Endpoint::parse, |to| Some(to.0.clone());
    StoreUrl, "a database, such as \"postgres://quell@127.0.0.1/quell\"", StoreUrl::parse, |to| Some(to.0.clone());
    Filter, "a level (off, error, warn, info, debug, trace), or levels by crate such as \"info,supervisor=debug\"",
        Filter::parse, |filter| Some(filter.0.clone());
}

/// Where a server of HTTP is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint(String);

impl Endpoint {
    fn parse(text: &str) -> Result<Self, String> {
        let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
        match host {
            Some(host) if !host.is_empty() && !host.contains(char::is_whitespace) => {
                Ok(Self(text.to_owned()))
            }
            _ => Err(format!("`{text}` is no endpoint: http:// or https:// and a host are expected")),
        }
    }

    /// As it was given.
    #[cfg_attr(not(feature = "otlp"), expect(dead_code, reason = "nothing else has an endpoint"))]
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Where a database is, without its password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoreUrl(String);

impl StoreUrl {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://"));
        let Some(rest) = rest.filter(|rest| !rest.is_empty() && !rest.contains(char::is_whitespace)) else {
            // Not shown whole: there may be a password in it.
            let what =
                text.split_once("://").map_or("it".to_owned(), |(begin, _)| format!("`{begin}://...`"));
            return Err(format!("{what} is no database: postgres://user@host/database is expected"));
        };
        let user = rest.split_once('@').map_or("", |(user, _)| user);
        if user.contains(':') || rest.contains("password=") {
            return Err("a password does not belong into it: write it into a file, and name that as \
                        store_password_file"
                .to_owned());
        }
        Ok(Self(text.to_owned()))
    }

    /// Its hosts and ports, for whoever reads a log; neither its user nor its parameters but that of a host.
    pub(crate) fn hosts(&self) -> String {
        let rest = self.0.split_once("://").map_or("", |(_, rest)| rest);
        let (place, parameters) = rest.split_once('?').unwrap_or((rest, ""));
        let place = place.split('/').next().unwrap_or_default();
        let hosts = place.rsplit_once('@').map_or(place, |(_, hosts)| hosts);
        if !hosts.is_empty() {
            return hosts.to_owned();
        }
        let host = parameters.split('&').find_map(|parameter| parameter.strip_prefix("host="));
        host.unwrap_or("no host that it names").to_owned()
    }

    /// As it was given.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        let hint = match text.rsplit_once(':') {
            _ if text.parse::<u16>().is_ok() => format!(": write 127.0.0.1:{text}"),
            Some(("" | "*", port)) => format!(": write 0.0.0.0:{port} for every address of the machine"),
            Some(("localhost", port)) => format!(": write 127.0.0.1:{port}, names are not looked up"),
            None if text.parse::<std::net::IpAddr>().is_ok() => {
                ": the port is missing; write the address with one, such as 127.0.0.1:7171".to_owned()
            }
            _ => String::new(),
        };
        format!("`{text}` is an invalid address: numbers and a port are expected, as in 127.0.0.1:7171{hint}")
    })
}

fn name(text: &str) -> Result<String, String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if text.is_empty() || text.len() > 64 || !text.chars().all(fine) {
        return Err(format!("`{text}` is no name: 1 to 64 letters, digits, `-` and `_` are expected"));
    }
    Ok(text.to_owned())
}

fn choice<T: ValueEnum>(text: &str) -> Result<T, String> {
    T::from_str(text, false).map_err(|_| {
        let known: Vec<String> = T::value_variants().iter().filter_map(chosen).collect();
        format!("`{text}` is none of {}", known.join(", "))
    })
}

fn chosen<T: ValueEnum>(value: &T) -> Option<String> {
    value.to_possible_value().map(|value| value.get_name().to_owned())
}

/// How lines of the log look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line, for programs.
    Json,
}

/// What is logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Filter(String);

impl Default for Filter {
    fn default() -> Self {
        Self("info".to_owned())
    }
}

impl Filter {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

    /// Reads one. A word alone is a level: as the name of a crate, which the syntax allows too, a mistyped level
    /// would switch everything off.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        for part in text.split(',').filter(|part| !part.contains('=')) {
            if !Self::LEVELS.contains(&part.trim().to_ascii_lowercase().as_str()) {
                return Err(format!(
                    "`{}` is no level: {} are, and `crate=level` beside them",
                    part.trim(),
                    Self::LEVELS.join(", ")
                ));
            }
        }
        EnvFilter::try_new(text).map_err(|error| format!("`{text}` is not understood: {error}"))?;
        Ok(Self(text.to_owned()))
    }

    /// As it was given.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Field for RuntimeUser {
    fn read_text(&mut self, texts: &[&OsStr], _: Range) -> Result<(), String> {
        let text = word(texts)?;
        *self = text.parse().map_err(|why| format!("`{text}`: {why}"))?;
        Ok(())
    }

    fn read_toml(&mut self, value: &DeValue<'_>, _: &Path, _: Range) -> Result<(), String> {
        let text = match value {
            DeValue::Integer(number) => number.as_str(),
            DeValue::String(text) => text,
            _ => {
                return Err(format!(
                    "{} is neither \"auto\", \"node\" nor the number of a user",
                    found(value)
                ));
            }
        };
        *self = text.parse().map_err(|why| format!("`{text}`: {why}"))?;
        Ok(())
    }

    fn shown(&self) -> Option<String> {
        Some(match self {
            Self::Auto => quoted("auto"),
            Self::Node => quoted("node"),
            Self::Number(number) => number.to_string(),
        })
    }

    fn kind(&self, _: Range) -> String {
        "\"auto\", \"node\", or the number of a user".to_owned()
    }
}

fn path_of(value: &DeValue<'_>, folder: &Path) -> Result<PathBuf, String> {
    match value.as_str() {
        Some("") => Err("it is empty: a path is expected".to_owned()),
        Some(path) => Ok(folder.join(path)),
        None => Err(format!("{} is not a path: a text in quotes is expected", found(value))),
    }
}

fn path(text: &OsStr) -> Result<PathBuf, String> {
    if text.is_empty() { Err("it is empty: a path is expected".to_owned()) } else { Ok(PathBuf::from(text)) }
}

impl Field for PathBuf {
    fn read_text(&mut self, texts: &[&OsStr], _: Range) -> Result<(), String> {
        *self = path(texts.last().copied().unwrap_or_default())?;
        Ok(())
    }

    fn read_toml(&mut self, value: &DeValue<'_>, folder: &Path, _: Range) -> Result<(), String> {
        *self = path_of(value, folder)?;
        Ok(())
    }

    fn shown(&self) -> Option<String> {
        Some(quoted(&self.to_string_lossy()))
    }

    fn kind(&self, _: Range) -> String {
        "a path".to_owned()
    }
}

/// What need not be there.
impl<T: Field + Placeholder> Field for Option<T> {
    fn read_text(&mut self, texts: &[&OsStr], range: Range) -> Result<(), String> {
        let mut value = T::placeholder();
        value.read_text(texts, range)?;
        *self = Some(value);
        Ok(())
    }

    fn read_toml(&mut self, value: &DeValue<'_>, folder: &Path, range: Range) -> Result<(), String> {
        let mut read = T::placeholder();
        read.read_toml(value, folder, range)?;
        *self = Some(read);
        Ok(())
    }

    fn shown(&self) -> Option<String> {
        self.as_ref().and_then(Field::shown)
    }

    fn kind(&self, range: Range) -> String {
        T::placeholder().kind(range)
    }
}

/// Something to read into.
pub(crate) trait Placeholder {
    fn placeholder() -> Self;
}

impl Placeholder for PathBuf {
    fn placeholder() -> Self {
        Self::new()
    }
}

impl Placeholder for Endpoint {
    fn placeholder() -> Self {
        Self(String::new())
    }
}

impl Placeholder for StoreUrl {
    fn placeholder() -> Self {
        Self(String::new())
    }
}

impl Placeholder for SocketAddr {
    fn placeholder() -> Self {
        Self::from(([127, 0, 0, 1], 0))
    }
}

impl Field for Vec<PathBuf> {
    fn read_text(&mut self, texts: &[&OsStr], _: Range) -> Result<(), String> {
        // As in PATH, so that a variable can hold several.
        let all = texts.iter().flat_map(std::env::split_paths);
        *self = all.map(|one| path(one.as_os_str())).collect::<Result<_, _>>()?;
        Ok(())
    }

    fn read_toml(&mut self, value: &DeValue<'_>, folder: &Path, _: Range) -> Result<(), String> {
        let list = value
            .as_array()
            .ok_or_else(|| format!("{} is not a list of paths: [\"...\"] is expected", found(value)))?;
        *self = list.iter().map(|one| path_of(one.get_ref(), folder)).collect::<Result<_, _>>()?;
        Ok(())
    }

    fn shown(&self) -> Option<String> {
        let all: Vec<String> = self.iter().filter_map(Field::shown).collect();
        Some(format!("[{}]", all.join(", ")))
    }

    fn kind(&self, _: Range) -> String {
        "a list of paths".to_owned()
    }
}

impl Field for NodeLabels {
    fn read_text(&mut self, texts: &[&OsStr], _: Range) -> Result<(), String> {
        let texts: Option<Vec<&str>> = texts.iter().map(|text| text.to_str()).collect();
        let texts = texts.ok_or("it is not UTF-8")?;
        // Nothing at all is none; between two commas something must be.
        let given = texts.iter().filter(|text| !text.trim().is_empty());
        *self = Self::new(given.flat_map(|text| text.split(',').map(str::trim)))?;
        Ok(())
    }

    fn read_toml(&mut self, value: &DeValue<'_>, _: &Path, _: Range) -> Result<(), String> {
        let list = value
            .as_array()
            .ok_or_else(|| format!("{} is not a list of texts: [\"...\"] is expected", found(value)))?;
        let text = |value: &toml::Spanned<DeValue<'_>>| {
            let text = value.get_ref().as_str().map(str::to_owned);
            text.ok_or_else(|| format!("{} is not a text in quotes", found(value.get_ref())))
        };
        *self = Self::new(list.iter().map(text).collect::<Result<Vec<_>, _>>()?)?;
        Ok(())
    }

    fn shown(&self) -> Option<String> {
        let all: Vec<String> = self.iter().map(quoted).collect();
        Some(format!("[{}]", all.join(", ")))
    }

    fn kind(&self, _: Range) -> String {
        "a list of labels, such as [\"gpu\", \"zone=a\"]".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_named_in_logs_without_its_user_and_never_shown_with_a_password() {
        for (url, hosts) in [
            ("postgres://quell@127.0.0.1:5433/quell", "127.0.0.1:5433"),
            ("postgres://quell@one,two:5435/quell?sslmode=require", "one,two:5435"),
            ("postgresql://one", "one"),
            ("postgres://quell@/quell?user=x&host=/run/postgresql", "/run/postgresql"),
        ] {
            assert_eq!(StoreUrl::parse(url).unwrap().hosts(), hosts);
        }
        for wrong in ["mysql://quell:secret@host/quell", "postgres://quell:secret@host", "quell:secret@host"]
        {
            assert!(!StoreUrl::parse(wrong).unwrap_err().contains("secret"), "{wrong}");
        }
    }

    #[test]
    fn labels_of_a_node_have_commas_between_them_where_they_are_one_text() {
        let any = (f64::MIN, f64::MAX);
        let read = |texts: &[&str]| {
            let mut labels = NodeLabels::default();
            let texts: Vec<&OsStr> = texts.iter().map(OsStr::new).collect();
            labels.read_text(&texts, any).map(|()| labels.shown().unwrap())
        };
        assert_eq!(read(&[""]).unwrap(), "[]");
        assert_eq!(read(&["zone=a, gpu", "fast"]).unwrap(), "[\"fast\", \"gpu\", \"zone=a\"]");
        assert!(read(&["gpu,,fast"]).unwrap_err().contains("\"\" is no label"));
        assert!(read(&["the gpu"]).unwrap_err().contains("\"the gpu\" is no label"));
        let toml = |text: &str| {
            let mut labels = NodeLabels::default();
            let table = toml::de::DeTable::parse(text).unwrap();
            let value = table.get_ref().values().next().unwrap().get_ref().clone();
            labels.read_toml(&value, Path::new("."), any).map(|()| labels.shown().unwrap())
        };
        assert_eq!(toml("x = [\"gpu\", \"zone=a\"]").unwrap(), "[\"gpu\", \"zone=a\"]");
        assert!(toml("x = \"gpu\"").unwrap_err().contains("is not a list"));
        assert!(toml("x = [\"gpu\", 3]").unwrap_err().contains("the number 3 is not a text"));
        assert!(toml("x = [\"-\"]").unwrap_err().contains("is no label of a node"));
    }
}
