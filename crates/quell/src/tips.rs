//! Tips for what people type first: words of other tools, flags by other names, and a verb alone.

use clap::{
    builder::StyledStr,
    error::{ContextKind, ContextValue, ErrorKind},
};

/// Words of other tools, and how it is said here.
const WORDS: [(&str, &str); 20] = [
    ("start", "quell serve"),
    ("run", "quell serve` runs a node, `quell invoke FUNCTION` a function"),
    ("up", "quell serve"),
    ("daemon", "quell serve"),
    ("ps", "quell ls"),
    ("list", "quell ls"),
    ("status", "quell ls"),
    ("kill", "quell cancel REQUEST --force"),
    ("stop", "quell cancel REQUEST"),
    ("abort", "quell cancel REQUEST"),
    ("version", "quell --version"),
    ("delete", "quell functions delete NAME"),
    ("rm", "quell functions delete NAME"),
    ("remove", "quell functions delete NAME"),
    ("disable", "quell functions disable NAME"),
    ("enable", "quell functions enable NAME"),
    ("create", "quell deploy FOLDER"),
    ("call", "quell invoke FUNCTION"),
    ("show", "quell tree REQUEST"),
    ("log", "quell logs REQUEST"),
];

/// Arguments of other tools, by the verb they are typed behind.
const ARGUMENTS: [(&str, &str, &str); 9] = [
    ("serve", "--port", "`--listen 127.0.0.1:PORT` says where a node listens"),
    ("serve", "-p", "`--listen 127.0.0.1:PORT` says where a node listens"),
    ("serve", "--host", "`--listen ADDRESS:PORT` says where a node listens"),
    ("serve", "--data-dir", "`--data FOLDER` says where a node keeps its data"),
    (
        "ls",
        "--all",
        "`quell ls` shows all that lives; what is over: `quell receipts`, or `quell tree REQUEST`",
    ),
    ("ls", "-a", "`quell ls` shows all that lives; what is over: `quell receipts`, or `quell tree REQUEST`"),
    ("cancel", "--all", "`quell cancel --where 'age>0s'` cancels every request: it shows the plan, and asks"),
    (
        "invoke",
        "--data",
        "`--event '{\"name\": \"you\"}'` is the event; `--data` is the data folder of a node",
    ),
    ("invoke", "-d", "`--event '{\"name\": \"you\"}'` is the event"),
];

/// Adds to an error of the command line what was probably meant.
pub(crate) fn with_tip(mut error: clap::Error, words: &[String]) -> clap::Error {
    if let Some(tip) = tip(&error, words) {
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![StyledStr::from(tip)]));
    }
    error
}

fn tip(error: &clap::Error, words: &[String]) -> Option<String> {
    let of = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let mut verbs = words.iter().skip(1).map(String::as_str).filter(|word| !word.starts_with('-'));
    let (verb, second) = (verbs.next().unwrap_or_default(), verbs.next().unwrap_or_default());
    match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let typed = of(ContextKind::InvalidSubcommand)?;
            let (_, meant) = WORDS.iter().find(|(word, _)| *word == typed)?;
            Some(format!("did you mean `{meant}`?"))
        }
        ErrorKind::UnknownArgument => {
            let typed = of(ContextKind::InvalidArg)?;
            if (verb, second) == ("config", "show") && !typed.starts_with('-') {
                return Some(format!("`quell config show --config {typed}` shows what holds with that file"));
            }
            let known = ARGUMENTS.iter().find(|(of, argument, _)| (*of, *argument) == (verb, typed));
            known.map(|(_, _, tip)| (*tip).to_owned())
        }
        ErrorKind::MissingRequiredArgument => match verb {
            "cancel" | "plan" => Some(format!(
                "`quell ls` shows request ids; many at once: `quell {verb} --where 'function=NAME,age>10m'`"
            )),
            "logs" => Some(
                "`quell ls` shows requests and instances; of a function: `quell logs --function NAME`".into(),
            ),
            "call-off" => Some("`quell call-off --list` shows the cancels of many".into()),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn no_word_that_has_a_tip_is_a_command_and_each_command_that_a_tip_names_is_there() {
        let command = Cli::command();
        let is_there = |word: &str| command.get_subcommands().any(|verb| verb.get_name() == word);
        for (word, meant) in WORDS {
            assert!(!is_there(word), "{word} is a command: its tip is never seen");
            let verb = meant.split([' ', '`']).nth(1).unwrap();
            assert!(verb == "--version" || is_there(verb), "{meant}");
        }
    }

    #[test]
    fn no_argument_that_has_a_tip_is_taken_and_each_is_seen() {
        for (verb, argument, tip) in ARGUMENTS {
            let words = ["quell", verb, argument].map(str::to_owned);
            let Err(error) = Cli::try_parse_from(&words) else { panic!("{verb} {argument} is taken") };
            if error.kind() == ErrorKind::UnknownArgument {
                assert!(with_tip(error, &words).to_string().contains(tip), "{verb} {argument}");
            }
        }
    }
}
