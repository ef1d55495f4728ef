//! `quell config`: what is wrong with a file, what holds and why, and a file to begin with.

use std::{path::PathBuf, process::ExitCode};

use serde_json::{Value, json};

use super::{Given, Mistakes, NAME, NodeSettings, Reload, SETTINGS, Setting};
use crate::{args::Output, output};

/// `quell config check`: reads a file, and nothing of flags and environment.
///
/// # Errors
/// All that is wrong with it.
pub(crate) fn check(file: Option<PathBuf>) -> Result<ExitCode, Mistakes> {
    let file = file.unwrap_or_else(|| PathBuf::from(NAME));
    Given::file(file.clone()).load()?;
    output::line(format_args!("{}: nothing is wrong with it", file.display()));
    Ok(ExitCode::SUCCESS)
}

/// `quell config show`: what a node that is started like this would run with. No setting is a secret: keys and
/// credentials are in files that settings name.
///
/// # Errors
/// All that is wrong.
pub(crate) fn show(given: &Given, how: Output) -> Result<ExitCode, Mistakes> {
    let loaded = given.load()?;
    let row = |setting: &Setting| {
        let shown = setting.shown(&loaded.settings);
        (setting.key, shown, loaded.origin(setting.key).to_string())
    };
    let rows = SETTINGS.iter().map(row);
    match how {
        Output::Json => {
            let all: serde_json::Map<String, Value> = rows
                .map(|(key, shown, from)| {
                    (key.to_owned(), json!({ "value": shown.map(plain), "from": from }))
                })
                .collect();
            output::line(Value::Object(all));
        }
        Output::Table => {
            let text = |(key, shown, from): (&str, Option<String>, String)| {
                [key.to_owned(), shown.unwrap_or_else(|| "-".to_owned()), from]
            };
            output::table(["KEY", "VALUE", "FROM"], &rows.map(text).collect::<Vec<_>>());
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A value of TOML as JSON: numbers, texts and lists of texts are written alike.
fn plain(shown: String) -> Value {
    serde_json::from_str(&shown).unwrap_or(Value::String(shown))
}

/// `quell config example`.
pub(crate) fn example() -> ExitCode {
    output::line(example_file().trim_end());
    ExitCode::SUCCESS
}

/// A `quell.toml` with every key, all of them commented out.
fn example_file() -> String {
    let mut text =
        String::from("# Settings of `quell serve`. Every key has its default here; docs/configuration.md\n");
    text.push_str("# says why it is that. Flags and QUELL_... variables count more than this file.\n");
    for setting in SETTINGS {
        let value = setting.shown(&NodeSettings::default());
        let value = value.unwrap_or_else(|| "\"...\"".to_owned());
        let unit = if setting.unit.is_empty() { String::new() } else { format!(" ({})", setting.unit) };
        text.push_str(&format!("\n# {}{unit}.\n#{} = {value}\n", setting.help, setting.key));
    }
    text
}

/// The table of docs/configuration.md.
#[cfg_attr(not(test), expect(dead_code, reason = "a test writes it and compares it"))]
fn documented() -> String {
    let mut text = String::new();
    for setting in SETTINGS {
        let default = setting.shown(&NodeSettings::default());
        let default = default.map_or_else(|| "none".to_owned(), |shown| format!("`{shown}`"));
        let unit = if setting.unit.is_empty() { "" } else { &format!(" {}", setting.unit) };
        let reload = match setting.reload {
            Reload::AtOnce => "yes".to_owned(),
            Reload::Next(what) => format!("yes: {what}"),
            Reload::Restart(why) => format!("no: {why}"),
        };
        text.push_str(&format!(
            "### `{}`\n\n{}.\n\n| | |\n|---|---|\n| flag, variable | `--{}`, `{}` |\n| value | {} |\n| default | \
             {default}{unit}: {} |\n| SIGHUP | {reload} |\n\n",
            setting.key,
            setting.help,
            setting.flag,
            setting.variable(),
            setting.kind(),
            setting.why,
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    const BEGIN: &str = "<!-- settings: from the table in the code, compared by a test -->\n\n";

    #[test]
    fn the_documentation_is_what_the_code_says() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
        let text = fs::read_to_string(&path).unwrap();
        let (before, was) = text.split_once(BEGIN).expect("the line where the settings begin");
        if std::env::var_os("QUELL_UPDATE_DOCS").is_some() {
            fs::write(&path, format!("{before}{BEGIN}{}\n", documented().trim_end())).unwrap();
            return;
        }
        for (is, was) in documented().trim_end().lines().zip(was.lines()) {
            assert_eq!(is, was, "docs/configuration.md; QUELL_UPDATE_DOCS=1 rewrites it");
        }
        assert_eq!(documented().trim_end().lines().count(), was.trim_end().lines().count());
    }

    #[test]
    fn the_example_is_a_configuration_once_its_comments_are_taken_away() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("quell.toml");
        let lines: Vec<String> = example_file()
            .lines()
            .filter(|line| !line.contains("\"...\""))
            .filter_map(|line| {
                line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).map(str::to_owned)
            })
            .collect();
        assert!(lines.len() > 20, "{lines:?}");
        fs::write(&file, lines.join("\n")).unwrap();
        let loaded = Given::file(file).load().unwrap();
        let defaults = NodeSettings { data: dir.path().join("quell-data"), ..NodeSettings::default() };
        assert_eq!(loaded.settings, defaults);
    }
}
