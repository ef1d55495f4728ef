//! Tips for what people type first: words of other tools, flags by other names, and a verb alone.

use clap::{
    builder::StyledStr,
    error::{ContextKind, ContextValue, ErrorKind},
};

/// Words of other tools, by the verb they are typed behind, and how it is said here.
const WORDS: [(&str, &str, &str); 37] = [
    ("", "start", "quell serve"),
    ("", "run", "`quell serve` runs a node, `quell invoke FUNCTION` a function"),
    ("", "up", "quell serve"),
    ("", "daemon", "quell serve"),
    ("", "ps", "quell ls"),
    ("", "list", "quell ls"),
    ("", "status", "quell ls"),
    ("", "kill", "quell cancel REQUEST --force"),
    ("", "stop", "`quell cancel REQUEST` stops a request, Ctrl-C (or SIGTERM) a node"),
    ("", "abort", "quell cancel REQUEST"),
    ("", "version", "quell --version"),
    ("", "delete", "quell functions delete NAME"),
    ("", "rm", "quell functions delete NAME"),
    ("", "remove", "quell functions delete NAME"),
    ("", "disable", "quell functions disable NAME"),
    ("", "enable", "quell functions enable NAME"),
    ("", "create", "quell deploy FOLDER"),
    ("", "call", "quell invoke FUNCTION"),
    ("", "show", "quell tree REQUEST"),
    ("", "describe", "quell tree REQUEST"),
    ("", "history", "quell receipts"),
    ("", "log", "quell logs REQUEST"),
    ("functions", "list", "quell functions"),
    ("functions", "ls", "quell functions"),
    ("functions", "show", SHOW_FUNCTION),
    ("functions", "describe", SHOW_FUNCTION),
    ("functions", "create", "quell deploy FOLDER"),
    ("functions", "rm", "quell functions delete NAME"),
    ("functions", "remove", "quell functions delete NAME"),
    ("credentials", "ls", "quell credentials list"),
    ("credentials", "delete", "quell credentials revoke KEY"),
    ("credentials", "remove", "quell credentials revoke KEY"),
    ("credentials", "rm", "quell credentials revoke KEY"),
    ("context", "ls", "quell context list"),
    ("context", "delete", "quell context remove NAME"),
    ("context", "rm", "quell context remove NAME"),
    ("config", "validate", "quell config check FILE"),
];

const SHOW_FUNCTION: &str =
    "`quell functions` lists them; all there is to know of each: `quell functions --output json`";

const ALL: &str = "`quell ls` shows all that lives; what is over: `quell receipts`, or `quell tree REQUEST`";
const PORT: &str = "`--listen 127.0.0.1:PORT` says where a node listens";
const EVENT: &str = "`--event '{\"name\": \"you\"}'` is the event";

/// Arguments of other tools, by the verb they are typed behind.
const ARGUMENTS: [(&str, &str, &str); 9] = [
    ("serve", "--port", PORT),
    ("serve", "-p", PORT),
    ("serve", "--host", "`--listen ADDRESS:PORT` says where a node listens"),
    ("serve", "--data-dir", "`--data FOLDER` says where a node keeps its data"),
    ("ls", "--all", ALL),
    ("ls", "-a", ALL),
    ("cancel", "--all", "`quell cancel --where 'age>0s'` cancels every request: it shows the plan, and asks"),
    ("invoke", "-d", EVENT),
    ("invoke", "--payload", EVENT),
];

/// Adds to an error of the command line what was probably meant; what the parser guesses goes where that is known, and
/// where it would have an option taken for a value.
pub(crate) fn with_tip(mut error: clap::Error, words: &[String]) -> clap::Error {
    let tip = tip(&error, words);
    if tip.is_some() || error.kind() == ErrorKind::UnknownArgument {
        error.remove(ContextKind::Suggested);
    }
    if let Some(tip) = tip {
        error.remove(ContextKind::SuggestedSubcommand);
        error.remove(ContextKind::SuggestedArg);
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
            let behind = if typed == verb { "" } else { verb };
            let (.., meant) = WORDS.iter().find(|(of, word, _)| (*of, *word) == (behind, typed))?;
            let is_sentence = meant.starts_with('`');
            let meant = if typed == "run" && !second.is_empty() {
                meant.replace("FUNCTION", second)
            } else {
                (*meant).to_owned()
            };
            Some(if is_sentence { meant } else { format!("did you mean `{meant}`?") })
        }
        ErrorKind::UnknownArgument => {
            let typed = of(ContextKind::InvalidArg)?;
            if (verb, second) == ("config", "show") && !typed.starts_with('-') {
                return Some(format!("`quell config show --config {typed}` shows what holds with that file"));
            }
            if verb == "invoke" && !typed.starts_with('-') {
                return Some(format!("the event is: --event '{typed}'"));
            }
            if let Some(term) = as_term(verb, typed, words) {
                return Some(format!("`quell {verb} --where '{term}'`"));
            }
            let known = ARGUMENTS.iter().find(|(of, argument, _)| (*of, *argument) == (verb, typed));
            known.map(|(_, _, tip)| (*tip).to_owned())
        }
        ErrorKind::MissingRequiredArgument => match (verb, second) {
            ("cancel" | "plan", _) => Some(format!(
                "`quell ls` shows request ids; many at once: `quell {verb} --where 'function=NAME,age>10m'`"
            )),
            ("logs", _) => Some(
                "`quell ls` shows requests and instances; of a function: `quell logs --function NAME`".into(),
            ),
            ("call-off", _) => Some("`quell call-off --list` shows the cancels of many".into()),
            ("context", "add") => {
                Some("`--data FOLDER` for a node on this machine, `--endpoint URL` for any other".into())
            }
            _ => None,
        },
        _ => None,
    }
}

/// A flag that is a term of a selection here.
fn as_term(verb: &str, typed: &str, words: &[String]) -> Option<String> {
    if !["cancel", "plan", "ls"].contains(&verb) {
        return None;
    }
    let at = words.iter().position(|word| word == typed || word.starts_with(&format!("{typed}=")))?;
    let value = words[at].strip_prefix(&format!("{typed}=")).or(words.get(at + 1).map(String::as_str));
    let value = value.filter(|value| !value.starts_with('-'));
    Some(match typed {
        "--label" | "-l" => format!("label.{}", value.unwrap_or("NAME=VALUE")),
        "--function" => format!("function={}", value.unwrap_or("NAME")),
        "--status" | "--state" => format!("status={}", value.unwrap_or("waiting")),
        _ => return None,
    })
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
        for (behind, word, meant) in WORDS {
            let words: Vec<String> = ["quell", behind, word]
                .iter()
                .filter(|word| !word.is_empty())
                .map(|word| (*word).to_owned())
                .collect();
            let Err(error) = Cli::try_parse_from(&words) else { panic!("{words:?} is a command") };
            let shown = with_tip(error, &words).to_string();
            assert!(shown.contains(meant.trim_matches('`')), "the tip of {words:?} is never seen: {shown}");
            let verb = meant.split([' ', '`']).skip_while(|word| *word != "quell").nth(1).unwrap();
            assert!(verb == "--version" || is_there(verb), "{meant}");
        }
    }

    fn shown(words: &[&str]) -> String {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let Err(error) = Cli::try_parse_from(&words) else { panic!("{words:?} is taken") };
        with_tip(error, &words).to_string()
    }

    #[test]
    fn what_is_a_term_here_is_told_as_one_and_no_option_is_taken_for_a_value() {
        for (words, tip) in [
            (&["quell", "cancel", "--label", "team=x"] as &[&str], "quell cancel --where 'label.team=x'"),
            (&["quell", "plan", "--label=team=x", "-r"], "quell plan --where 'label.team=x'"),
            (&["quell", "ls", "--label", "team=x"], "quell ls --where 'label.team=x'"),
            (&["quell", "ls", "--function", "f"], "quell ls --where 'function=f'"),
            (&["quell", "plan", "--function", "f"], "quell plan --where 'function=f'"),
            (&["quell", "invoke", "f", "{\"a\": 1}"], "--event '{\"a\": 1}'"),
            (&["quell", "run", "hello"], "quell invoke hello"),
            (&["quell", "context", "add", "x"], "--data FOLDER"),
        ] {
            let shown = shown(words);
            assert!(shown.contains(tip) && !shown.contains("as a value"), "{words:?}: {shown}");
        }
        let shown = shown(&["quell", "stop", "x"]);
        assert!(shown.contains("quell cancel REQUEST") && !shown.contains("similar"), "{shown}");
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
