//! Flags, environment, file and defaults, in this order: what comes first counts.

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    fmt,
    path::PathBuf,
};

use clap::{
    Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, ValueEnum,
    builder::{OsStringValueParser, PossibleValue, TypedValueParser},
    parser::ValueSource,
    value_parser,
};

use super::{File, IsolationArg, LogFormat, Mistakes, NodeSettings, SETTINGS, Setting, checks, file};

/// The file that is read where none is named and there is one.
pub(crate) const NAME: &str = "quell.toml";
const CONFIG: &str = "config";
const CONFIG_VARIABLE: &str = "QUELL_CONFIG";
/// The flag that every command has.
const LOG: &str = "log";

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Default,
    /// Where in the file.
    File(String),
    Environment,
    Flag,
}

impl Origin {
    /// Where to look when the value is wrong.
    pub(super) fn place(&self, setting: &Setting) -> String {
        match self {
            Self::Default => setting.key.to_owned(),
            Self::File(place) => place.clone(),
            Self::Environment => setting.variable(),
            Self::Flag => format!("--{}", setting.flag),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(place) => f.write_str(place),
            Self::Environment => f.write_str("environment"),
            Self::Flag => f.write_str("flag"),
        }
    }
}

/// The command line and the environment of `quell serve`, unread.
#[derive(Clone, Debug, Default)]
pub(crate) struct Given {
    config: Option<PathBuf>,
    flags: HashMap<&'static str, Vec<OsString>>,
    variables: HashMap<&'static str, OsString>,
    /// Variables that look like one of a setting and are none, with that one.
    mistyped: Vec<(String, String)>,
}

/// What holds, and where each value comes from.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    pub(crate) settings: NodeSettings,
    /// The file that was read.
    pub(crate) file: Option<PathBuf>,
    origins: HashMap<&'static str, Origin>,
}

impl Loaded {
    pub(super) fn origin(&self, key: &str) -> &Origin {
        self.origins.get(key).unwrap_or(&Origin::Default)
    }
}

impl Given {
    /// Nothing but a file: what `quell config check` looks at.
    pub(crate) fn file(path: PathBuf) -> Self {
        Self { config: Some(path), ..Self::default() }
    }

    /// The file that is to be read: the one that was named, else the one in this folder if there is one.
    pub(crate) fn path(&self) -> Option<PathBuf> {
        let usual = || Some(PathBuf::from(NAME)).filter(|path| path.exists());
        self.config.clone().or_else(usual)
    }

    /// Says what is probably not what was meant, and yet no mistake.
    pub(crate) fn warn(&self) {
        for (name, meant) in &self.mistyped {
            tracing::warn!(variable = name, "it is no setting; did you mean {meant}?");
        }
    }

    /// Reads all of it, and looks at the machine where a value names a file of it.
    ///
    /// # Errors
    /// All that is wrong, at once. Nothing was opened, bound or made.
    pub(crate) fn load(&self) -> Result<Loaded, Mistakes> {
        let mut mistakes = Mistakes::default();
        let mut loaded =
            Loaded { settings: NodeSettings::default(), file: self.path(), origins: HashMap::new() };
        if let Some((file, more)) = loaded.file.as_deref().map(File::read) {
            loaded.settings = file.values;
            let places = file.places.into_iter();
            loaded.origins = places.map(|(key, place)| (key, Origin::File(place))).collect();
            mistakes.extend(more);
        }
        for setting in SETTINGS {
            let flag = self.flags.get(setting.key).map(|texts| (Origin::Flag, texts.as_slice()));
            let variable = self.variables.get(setting.key);
            let variable = variable.map(|text| (Origin::Environment, std::slice::from_ref(text)));
            // A wrong variable is told of even where a flag counts in its place: it will be there without the flag.
            for (origin, texts) in [variable, flag].into_iter().flatten() {
                let texts: Vec<&OsStr> = texts.iter().map(OsString::as_os_str).collect();
                match (setting.at.field)(&mut loaded.settings).read_text(&texts, setting.range) {
                    Ok(()) => drop(loaded.origins.insert(setting.key, origin)),
                    Err(why) => mistakes.add(origin.place(setting), why),
                }
            }
        }
        checks::check(&loaded, &mut mistakes);
        mistakes.none_or(loaded)
    }

    /// The variables of this process. An empty one is as if it were not there: that is how unit files and
    /// containers say so.
    fn read_environment(&mut self) {
        let some = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        for setting in SETTINGS {
            if let Some(value) = some(&setting.variable()) {
                self.variables.insert(setting.key, value);
            }
        }
        let unknown = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        for name in unknown.filter(|name| SETTINGS.iter().all(|setting| setting.variable() != *name)) {
            // Not refused: containers are given variables by names that nobody here chose.
            let near = name.strip_prefix("QUELL_").and_then(file::mistyped);
            self.mistyped.extend(near.map(|setting| (name, setting.variable())));
        }
        if self.config.is_none() {
            self.config = some(CONFIG_VARIABLE).map(PathBuf::from);
        }
    }
}

impl Args for Given {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new(CONFIG)
            .long(CONFIG)
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
            .help(format!(
                "A file with these settings; flags and variables count more [env: {CONFIG_VARIABLE}] [default: \
                 {NAME} in this folder, if there is one]"
            ));
        let flags = SETTINGS.iter().filter(|setting| setting.flag != LOG).map(flag);
        command.arg(config).args(flags)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

fn flag(setting: &'static Setting) -> Arg {
    let default = setting.shown(&NodeSettings::default()).filter(|shown| shown != "[]");
    let default = default.map(|shown| format!(" [default: {}]", shown.trim_matches('"'))).unwrap_or_default();
    // What else is counted is said in the text.
    let unit = if ["seconds", "MiB", "days"].contains(&setting.unit) {
        format!(" ({})", setting.unit)
    } else {
        String::new()
    };
    let help = format!("{}{unit} [env: {}]{default}", setting.help, setting.variable());
    // Read later, together with everything else, so that all that is wrong is told at once.
    let long = (setting.key == "isolation").then(|| format!("{help}\n{}", isolations()));
    let arg = Arg::new(setting.key)
        .long(setting.flag)
        .value_name(value_name(setting))
        .value_parser(Offered(words(setting)))
        .hide_possible_values(true)
        .action(ArgAction::Append)
        .allow_hyphen_values(true)
        .help(help);
    match long {
        Some(long) => arg.long_help(long),
        None => arg,
    }
}

/// Takes any text, and offers these words to whoever completes a command: what is wrong is told later, with all the
/// rest.
#[derive(Clone)]
struct Offered(Vec<PossibleValue>);

impl TypedValueParser for Offered {
    type Value = OsString;

    fn parse_ref(
        &self,
        command: &Command,
        arg: Option<&Arg>,
        value: &OsStr,
    ) -> Result<Self::Value, clap::Error> {
        OsStringValueParser::new().parse_ref(command, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        if self.0.is_empty() { None } else { Some(Box::new(self.0.iter().cloned())) }
    }
}

/// The words that a setting can be, where they are few.
fn words(setting: &Setting) -> Vec<PossibleValue> {
    fn of<T: ValueEnum>() -> Vec<PossibleValue> {
        T::value_variants().iter().filter_map(ValueEnum::to_possible_value).collect()
    }
    match setting.key {
        "isolation" => of::<IsolationArg>(),
        "log_format" => of::<LogFormat>(),
        _ => Vec::new(),
    }
}

fn value_name(setting: &Setting) -> &'static str {
    match setting.unit {
        "" if setting.key.starts_with("tls") => "FILE",
        "" if ["data", "images"].contains(&setting.key) => "DIR",
        "" if setting.key.ends_with("listen") => "ADDRESS",
        "" => "VALUE",
        "seconds" => "SECONDS",
        "MiB" => "MIB",
        _ => "NUMBER",
    }
}

fn isolations() -> String {
    let one = |value: &IsolationArg| {
        let value = clap::ValueEnum::to_possible_value(value)?;
        Some(format!("- {}: {}", value.get_name(), value.get_help()?))
    };
    let all: Vec<String> =
        <IsolationArg as clap::ValueEnum>::value_variants().iter().filter_map(one).collect();
    all.join("\n")
}

impl FromArgMatches for Given {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut given = Self::default();
        given.update_from_arg_matches(matches)?;
        given.read_environment();
        Ok(given)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.config = matches.get_one::<PathBuf>(CONFIG).cloned();
        for setting in SETTINGS.iter().filter(|setting| setting.flag != LOG) {
            if let Some(values) = matches.get_many::<OsString>(setting.key) {
                self.flags.insert(setting.key, values.cloned().collect());
            }
        }
        // That one belongs to all commands; its variable is read with the others.
        if let Ok(Some(log)) = matches.try_get_one::<String>(LOG)
            && matches.value_source(LOG) == Some(ValueSource::CommandLine)
        {
            self.flags.insert(LOG, vec![OsString::from(log)]);
        }
        Ok(())
    }
}
