//! The command line: what can be typed and what it means.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use clap_complete::Shell;

use crate::{
    args,
    args::{
        CallOffArgs, CancelArgs, ContextCommand, CredentialsCommand, FunctionsArgs, LogsArgs, NodeArgs,
        Output, PlanArgs, ReceiptsArgs,
    },
    credentials, demo, deploy, logs, migrate,
    migrate::MigrateArgs,
    serve,
    settings::{self, Given, Loaded, LogFormat, Mistakes},
    verbs,
};

const AFTER_HELP: &str = "\
Exit codes:
  0  done (for `cancel`: everything in scope is stopped, and that is proven and recorded)
  1  the node refused (a request id it cannot cancel included) or failed; it said why. `cancel --where`: some could
     not be stopped, each is named; or you said no; or what was printed could not be written
  2  the command line, or what it names, is wrong: an event that is not JSON, a folder that is no function, a
     configuration, a context, a file or a folder that is not there or cannot be used, no node named at all; or
     nobody is there to be asked
  3  the node cannot be reached
  4  the credential is missing or wrong, lacks the scope, or opens another project than the one that is named
  5  not found: no such function, live request, instance or receipt
  6  `cancel`: fenced and settled, but code may still run on a draining instance (with --where: of one or more)
  7  `cancel`, `serve`: something could not be killed; it stays fenced
  8  `invoke`: the function ran and failed, or was cancelled
  130  Ctrl-C: at a question nothing was done; a cancel or an invocation that the node has goes on, and stderr says
     how to see it

Try it:
  quell demo                       everything at once, in a scratch folder
  quell serve                      a node with its data in ./quell-data
  quell deploy my-function/        a folder with function.toml and code
  quell invoke my-function --event '{\"name\": \"you\"}'
  quell ls                         what runs
  quell cancel REQUEST --recursive --dry-run
  quell cancel REQUEST --recursive --reason 'wrong input'
  quell cancel --where 'function=my-function,age>10m'
                                   many at once: it shows the plan, and asks
  quell top                        live, with keys to plan and to cancel
  quell completions bash           what your shell needs to complete all this

How the node is found:
  --endpoint and --token (or QUELL_ENDPOINT, QUELL_TOKEN); else --context (or QUELL_CONTEXT); else the file
  client.json that `quell serve` writes into its data folder, where --data (or QUELL_DATA) names one; else the
  current context (`quell context`); else client.json in ./quell-data.

Colours:
  for terminals, and not where NO_COLOR is set.";

const INVOKE_EXAMPLES: &str = "\
Examples:
  quell invoke hello --event '{\"name\": \"you\"}'
  quell invoke hello --async --label team=x --label run=7 --event - < event.json
  quell invoke hello:!prod";

const CANCEL_EXAMPLES: &str = "\
Examples:
  quell cancel REQUEST --reason 'wrong input'
  quell cancel REQUEST --recursive --force       the whole tree, at once
  quell cancel --where 'function=hello,age>10m'  many: it shows the plan, and asks
  quell cancel --where 'label.run=7,status=waiting' --yes --key run-7";

const TOP_KEYS: &str = "\
Keys:
  up, down, k, j       choose a request; page up and page down go further
  p, enter             plan: what a cancel of it would stop, and who else would be touched
  c                    plan, and ask; only y is a yes
  r, f                 the whole tree below it (recursive); at once (force)
  ?                    these keys
  q, Ctrl-C            end";

const CONTEXT_EXAMPLES: &str = "\
Examples:
  quell context add here --data /var/lib/quell
  quell context add prod --endpoint https://node.example:7171 --token-file ~/.secrets/quell
  quell context use prod";

/// A node that runs functions and really stops them.
#[derive(Debug, Parser)]
#[command(name = "quell", version, about, after_long_help = AFTER_HELP, max_term_width = 100)]
pub(crate) struct Cli {
    /// What to log on stderr, e.g. `info`, `supervisor=debug` [default: info for serve, else warn].
    #[arg(long, global = true, env = "QUELL_LOG")]
    pub(crate) log: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node until SIGTERM or Ctrl-C; the first drains, a second stops now.
    Serve(Box<Given>),
    /// Look at the settings of a node: check a file, show what holds, print an example.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Create or update a function from a folder.
    Deploy {
        /// A folder with function.toml and the code.
        dir: PathBuf,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Invoke a function and print its result.
    #[command(after_help = INVOKE_EXAMPLES)]
    Invoke {
        /// The function: a name, package:name, or a URN; then perhaps :!alias or :version (see docs/api.md).
        function: String,
        /// The event, JSON; `-` reads it from stdin.
        #[arg(long, default_value = "{}")]
        event: String,
        /// Return the request id as soon as the request is durable.
        #[arg(long = "async")]
        asynchronous: bool,
        /// A label of the request, name=value, by which it is found and cancelled later. May be given more than
        /// once.
        #[arg(long = "label", value_name = "NAME=VALUE", value_parser = args::label)]
        labels: Vec<String>,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Stop a request, or with --where many; returns when they are stopped, and says on what evidence.
    #[command(after_help = CANCEL_EXAMPLES)]
    Cancel(CancelArgs),
    /// End a cancel of many before it is done: whoever it has not reached is left alone.
    CallOff(CallOffArgs),
    /// Show what a cancel would stop, and who else would be touched.
    Plan(PlanArgs),
    /// Show the live tree a request is in; of an asynchronous one that is over, what it came to.
    Tree {
        /// A request id.
        #[arg(value_parser = args::request)]
        request: String,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Show the live requests and instances of the node.
    Ls {
        /// Only requests that have this in common, as for `cancel`.
        #[arg(long = "where", value_name = "WHERE", value_parser = args::selection)]
        selection: Option<String>,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Show the functions of the project; delete, disable or enable one.
    Functions(FunctionsArgs),
    /// Show the live instances of the project, with their processes.
    Instances {
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Show the nodes that share this one's store.
    Nodes {
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Move what a lone node keeps into a database that several nodes share.
    Migrate(MigrateArgs),
    /// Watch the live requests; keys plan and cancel them.
    #[command(after_help = TOP_KEYS)]
    Top {
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Show the last cancels.
    Receipts(ReceiptsArgs),
    /// Show what a request, an instance or a function printed.
    Logs(LogsArgs),
    /// Show the receipt of a cancel.
    Receipt {
        /// A cancel id, as `cancel` prints it.
        #[arg(value_parser = args::receipt)]
        cancel: String,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Say who may do what: create, list, revoke, rotate credentials.
    #[command(subcommand)]
    Credentials(CredentialsCommand),
    /// Write a copy of all that the node must not forget, while it works on.
    Backup {
        /// A file that is not there yet.
        file: PathBuf,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Show what contains runtimes on this machine, and what each layer guarantees.
    Doctor {
        /// The data folder that the node has or will have.
        #[arg(long, env = "QUELL_DATA", default_value = "quell-data")]
        data: PathBuf,
        /// How to print.
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Name nodes, so that nobody pastes endpoints and tokens.
    #[command(subcommand, after_help = CONTEXT_EXAMPLES)]
    Context(ContextCommand),
    /// Print what a shell needs to complete commands.
    Completions {
        /// Which shell.
        shell: Shell,
    },
    /// Write man pages into a folder.
    Man {
        /// The folder; it is made.
        dir: PathBuf,
    },
    /// See it all: a node of its own, functions three levels deep, recursive and force cancels.
    Demo,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Say everything that is wrong with a quell.toml, each with its line and column: exit code 0 if nothing is,
    /// 2 if something is. Looks at the file and at files it names, and not at flags and environment.
    Check {
        /// The file [default: quell.toml].
        file: Option<PathBuf>,
    },
    /// Show what `quell serve` with the same options would run with, and where each value comes from.
    Show {
        #[command(flatten)]
        given: Box<Given>,
        /// How to print.
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Print a quell.toml with every key, its default, and what it is.
    Example,
}

impl Cli {
    /// The settings of the node that is to be started; `None` for a client.
    ///
    /// # Errors
    /// All that is wrong with them.
    pub(crate) fn settings(&self) -> Result<Option<Loaded>, Mistakes> {
        match &self.command {
            Command::Serve(given) => given.load().map(Some),
            _ => Ok(None),
        }
    }

    /// What to log, and how: a daemon tells what it does, a client only what is wrong.
    pub(crate) fn logging<'a>(&'a self, node: Option<&'a Loaded>) -> (&'a str, LogFormat) {
        match node {
            Some(node) => (node.settings.log.as_str(), node.settings.log_format),
            None => (self.log.as_deref().unwrap_or("warn"), LogFormat::Text),
        }
    }

    /// Does what was asked; `node` is what [`Cli::settings`] gave.
    pub(crate) async fn run(self, node: Option<Loaded>) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Serve(given) => match node {
                Some(node) => serve::serve(*given, node).await,
                None => Ok(ExitCode::FAILURE), // cannot be: they were read before
            },
            Command::Config(ConfigCommand::Check { file }) => Ok(settings::check(file)?),
            Command::Config(ConfigCommand::Show { given, output }) => Ok(settings::show(&given, output)?),
            Command::Config(ConfigCommand::Example) => Ok(settings::example()),
            Command::Deploy { dir, node } => deploy::deploy(&dir, &node).await,
            Command::Invoke { function, event, asynchronous, labels, node } => {
                verbs::invoke(&function, &event, asynchronous, &labels, &node).await
            }
            Command::Cancel(args) => verbs::cancel(&args).await,
            Command::Tree { request, node } => verbs::tree(&request, &node).await,
            Command::Ls { selection, node } => verbs::ls(selection.as_deref(), &node).await,
            Command::CallOff(args) => verbs::call_off(&args).await,
            Command::Plan(args) => verbs::plan(&args).await,
            Command::Functions(args) => verbs::functions(&args).await,
            Command::Instances { node } => verbs::instances(&node).await,
            Command::Nodes { node } => verbs::nodes(&node).await,
            Command::Migrate(args) => migrate::migrate(args).await,
            Command::Top { node } => verbs::top(&node).await,
            Command::Receipts(args) => verbs::receipts(&args).await,
            Command::Logs(args) => logs::logs(&args).await,
            Command::Receipt { cancel, node } => verbs::receipt(&cancel, &node).await,
            Command::Credentials(command) => credentials::credentials(command).await,
            Command::Backup { file, node } => credentials::backup(&file, &node).await,
            Command::Doctor { data, output } => verbs::doctor(&data, output),
            Command::Context(command) => verbs::context(command),
            Command::Completions { shell } => Ok(verbs::completions(shell)),
            Command::Man { dir } => verbs::man(&dir),
            Command::Demo => demo::demo().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
