//! The command line: what can be typed and what it means.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{
    credentials, demo, deploy, logs, serve,
    settings::{self, Given, Loaded, LogFormat, Mistakes},
    verbs,
};

const AFTER_HELP: &str = "\
Exit codes:
  0  done (for `cancel`: everything in scope is stopped, and that is proven and recorded)
  1  the node refused (a request id it cannot cancel included) or failed; it said why
  2  the command line or the configuration is wrong
  3  the node cannot be reached
  4  the credential is missing or wrong
  5  not found: no such function, live request, instance or receipt
  6  `cancel`: fenced and settled, but code may still run on a draining instance
  7  `cancel`, `serve`: something could not be killed; it stays fenced
  8  `invoke`: the function ran and failed, or was cancelled

Try it:
  quell demo                       everything at once, in a scratch folder
  quell serve                      a node with its data in ./quell-data
  quell deploy my-function/        a folder with function.toml and code
  quell invoke my-function --event '{\"name\": \"you\"}'
  quell ls                         what runs
  quell cancel REQUEST --recursive --dry-run
  quell cancel REQUEST --recursive --reason 'wrong input'

How the node is found: --endpoint and --token (or QUELL_ENDPOINT, QUELL_TOKEN); without them, the
file client.json that `quell serve` writes into its data folder (--data, or QUELL_DATA).";

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
    Invoke {
        /// The function: a name, package:name, or a URN; then perhaps :!alias or :version (see docs/api.md).
        function: String,
        /// The event, JSON; `-` reads it from stdin.
        #[arg(long, default_value = "{}")]
        event: String,
        /// Return the request id as soon as the request is durable.
        #[arg(long = "async")]
        asynchronous: bool,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Stop a request; returns when it is stopped, and says on what evidence.
    Cancel(CancelArgs),
    /// Show the tree a request is in.
    Tree {
        /// A request id.
        request: String,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Show the live requests and instances of the node.
    Ls {
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Show what a request, an instance or a function printed.
    Logs(LogsArgs),
    /// Show the receipt of a cancel.
    Receipt {
        /// A cancel id, as `cancel` prints it.
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

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum CredentialsCommand {
    /// Make a credential; its secrets are shown this once.
    Create(NewCredentialArgs),
    /// Show the credentials of the project; an operator's of every project.
    List {
        #[command(flatten)]
        node: NodeArgs,
    },
    /// From now on it opens nothing, nor do the logins and signatures made with it.
    Revoke {
        /// Its key, as `list` shows it.
        key: String,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Give it other secrets; the old ones open nothing from now on.
    Rotate {
        /// Its key, as `list` shows it.
        key: String,
        #[command(flatten)]
        node: NodeArgs,
    },
}

#[derive(Debug, Clone, Args)]
pub(crate) struct NewCredentialArgs {
    /// What it may do: read, invoke, cancel; admin is all of these and changes functions and credentials;
    /// operator makes credentials of other projects and backups.
    #[arg(long = "scope", value_delimiter = ',', required = true)]
    pub(crate) scopes: Vec<String>,
    /// The project it opens, if not that of the credential you use (which must be an operator's).
    #[arg(long)]
    pub(crate) for_project: Option<String>,
    /// What it is for.
    #[arg(long, default_value = "")]
    pub(crate) note: String,
    /// A name to log in with at POST /v3/auth/tokens; its password is read from stdin.
    #[arg(long)]
    pub(crate) login: Option<String>,
    /// It opens nothing after so many days.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=36_500))]
    pub(crate) expires_days: Option<u64>,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

/// How to reach a node.
#[derive(Debug, Clone, Args)]
pub(crate) struct NodeArgs {
    /// The node's API, e.g. http://127.0.0.1:7171, or https://node.example:7171.
    #[arg(long, env = "QUELL_ENDPOINT")]
    pub(crate) endpoint: Option<String>,
    /// Whom to trust beside nobody else: a PEM file with the node's certificate, or with one that signed it.
    /// Without it, and where client.json names none: whom this machine trusts.
    #[arg(long, env = "QUELL_CA", value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// The credential. Prefer QUELL_TOKEN: arguments are seen by other users of the machine.
    #[arg(long, env = "QUELL_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// The project the credential opens.
    #[arg(long, env = "QUELL_PROJECT")]
    pub(crate) project: Option<String>,
    /// The data folder of a node on this machine; its client.json fills in what is not given.
    #[arg(long, env = "QUELL_DATA", default_value = "quell-data")]
    pub(crate) data: PathBuf,
    /// How to print.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct CancelArgs {
    /// The request id.
    pub(crate) request: String,
    /// Also stop everything it invoked, and everything below that.
    #[arg(long, short)]
    pub(crate) recursive: bool,
    /// Kill the runtimes at once; other requests they serve end with 4208.
    #[arg(long, short)]
    pub(crate) force: bool,
    /// Why, for the receipt.
    #[arg(long)]
    pub(crate) reason: Option<String>,
    /// Print what would be stopped, and touch nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// The function, where the request is no longer live: package:name or a URN.
    #[arg(long)]
    pub(crate) function: Option<String>,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct LogsArgs {
    /// A request id, or an instance as `ls` shows it.
    #[arg(required_unless_present = "function", conflicts_with = "function")]
    pub(crate) what: Option<String>,
    /// All instances of a function: a name, package:name, or a URN; then perhaps :version.
    #[arg(long)]
    pub(crate) function: Option<String>,
    /// Go on with what is printed from now on, until the request or the instance has ended.
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// The last so many lines [default: 1000, if no --since is given].
    #[arg(long, short = 'n', value_parser = clap::value_parser!(u64).range(0..=10_000))]
    pub(crate) tail: Option<u64>,
    /// Not before this: 2026-01-31T23:59:59 (UTC), or so long ago: 90s, 15m, 2h, 1d.
    #[arg(long)]
    pub(crate) since: Option<String>,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
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
            Command::Invoke { function, event, asynchronous, node } => {
                verbs::invoke(&function, &event, asynchronous, &node).await
            }
            Command::Cancel(args) => verbs::cancel(&args).await,
            Command::Tree { request, node } => verbs::tree(&request, &node).await,
            Command::Ls { node } => verbs::ls(&node).await,
            Command::Logs(args) => logs::logs(&args).await,
            Command::Receipt { cancel, node } => verbs::receipt(&cancel, &node).await,
            Command::Credentials(command) => credentials::credentials(command).await,
            Command::Backup { file, node } => credentials::backup(&file, &node).await,
            Command::Doctor { data } => verbs::doctor(&data),
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
