//! What the verbs of the client take.

use std::path::PathBuf;

use cancel::{CancelId, RequestId};
use clap::{Args, Subcommand, ValueEnum, builder::PossibleValuesParser};

use crate::logs;

/// Over what says which node is meant, in the help of every verb.
const CONNECTION: &str = "Connection options";

/// How to reach a node.
#[derive(Debug, Clone, Args)]
pub(crate) struct NodeArgs {
    /// The node's API, e.g. http://127.0.0.1:7171, or https://node.example:7171.
    #[arg(long, help_heading = CONNECTION, env = "QUELL_ENDPOINT")]
    pub(crate) endpoint: Option<String>,
    /// Whom to trust beside nobody else: a PEM file with the node's certificate, or with one that signed it.
    /// Without it, and where client.json names none: whom this machine trusts.
    #[arg(long, help_heading = CONNECTION, env = "QUELL_CA", value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// The credential. Prefer QUELL_TOKEN: arguments are seen by other users of the machine.
    #[arg(long, help_heading = CONNECTION, env = "QUELL_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// The project the credential opens.
    #[arg(long, help_heading = CONNECTION, env = "QUELL_PROJECT")]
    pub(crate) project: Option<String>,
    /// The data folder of a node on this machine; its client.json fills in what is not given [default:
    /// quell-data, where there is no current context].
    #[arg(long, help_heading = CONNECTION, env = "QUELL_DATA")]
    pub(crate) data: Option<PathBuf>,
    /// How to reach the node, by a name of your own: see `quell context`.
    #[arg(long, help_heading = CONNECTION, env = "QUELL_CONTEXT")]
    pub(crate) context: Option<String>,
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
    #[arg(long, value_parser = logs::since)]
    pub(crate) since: Option<i64>,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
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
    #[arg(long = "scope", value_delimiter = ',', required = true,
          value_parser = PossibleValuesParser::new(api::SCOPES))]
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

/// What a cancel is about, and how it is meant; for one request or for many.
#[derive(Debug, Clone, Args)]
pub(crate) struct CancelArgs {
    #[command(flatten)]
    pub(crate) of: PlanArgs,
    /// Why, for the receipt.
    #[arg(long)]
    pub(crate) reason: Option<String>,
    /// Print what would be stopped, and touch nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// The function, where the request is no longer live: package:name or a URN.
    #[arg(long, conflicts_with = "selection")]
    pub(crate) function: Option<String>,
    /// With --where: do not ask.
    #[arg(long, short, conflicts_with = "request")]
    pub(crate) yes: bool,
    /// With --where: a name for this cancel of many; given again it tells how it stands, and stops nobody
    /// else [default: one that nobody has].
    #[arg(long, conflicts_with = "request")]
    pub(crate) key: Option<String>,
    /// With --where: cancels a second, at most [default: 1000].
    #[arg(long, conflicts_with = "request", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) rate: Option<u32>,
}

/// What would be stopped, and how.
#[derive(Debug, Clone, Args)]
pub(crate) struct PlanArgs {
    /// The request id.
    #[arg(value_parser = request, required_unless_present = "selection", conflicts_with = "selection")]
    pub(crate) request: Option<String>,
    /// All live requests that have this in common, e.g. function=f,age>10m,status=waiting,label.team=x; also
    /// status=running|draining (queued and placed are waiting) and parent=REQUEST. All that is given must hold.
    /// Quote it: > means something to a shell.
    #[arg(long = "where", value_name = "WHERE", id = "selection", value_parser = selection)]
    pub(crate) selection: Option<String>,
    /// Also everything they invoked, and everything below that.
    #[arg(long, short)]
    pub(crate) recursive: bool,
    /// Kill the runtimes at once; other requests they serve end with 4208.
    #[arg(long, short)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

/// The functions of the project, or one of them.
#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct FunctionsArgs {
    #[command(subcommand)]
    pub(crate) command: Option<FunctionsCommand>,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum FunctionsCommand {
    /// Delete a function with all its versions. What runs of it may finish, what waits ends unrun.
    Delete {
        /// Its name, package:name, or a URN; with a version or an alias only that one goes.
        name: String,
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Let nobody invoke a function: 0 instances. It stays, and what runs of it goes on.
    Disable {
        /// Its name, package:name, or a URN.
        name: String,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Let it be invoked again.
    Enable {
        /// Its name, package:name, or a URN.
        name: String,
        /// How many instances it may have; -1 is any number [default: what it has, or had before it was
        /// disabled].
        #[arg(long, allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(-1..=1_000))]
        max_instances: Option<i64>,
        #[command(flatten)]
        node: NodeArgs,
    },
}

#[derive(Debug, Clone, Args)]
pub(crate) struct CallOffArgs {
    /// Its key, as `cancel --where` prints it.
    #[arg(required_unless_present = "list", conflicts_with = "list")]
    pub(crate) key: Option<String>,
    /// Show the cancels of many that the node remembers, the newest first, with their keys; end none.
    #[arg(long)]
    pub(crate) list: bool,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ReceiptsArgs {
    /// Of this function: a name, package:name, or a URN.
    #[arg(long)]
    pub(crate) function: Option<String>,
    /// The last so many.
    #[arg(long, short = 'n', default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=500))]
    pub(crate) limit: u32,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum ContextCommand {
    /// Show them; the current one is marked. Tokens are never shown.
    List {
        /// How to print.
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Make one current: the node that is meant where nothing else is said.
    Use {
        /// Its name.
        name: String,
    },
    /// Keep one. Its token is read from stdin, unless --data or --token-file says where it is.
    Add(NewContextArgs),
    /// Forget one.
    Remove {
        /// Its name.
        name: String,
    },
}

#[derive(Debug, Clone, Args)]
pub(crate) struct NewContextArgs {
    /// A name of your own: letters, digits, - and _.
    pub(crate) name: String,
    /// The node's API, e.g. https://node.example:7171.
    #[arg(long, required_unless_present = "data", conflicts_with = "data")]
    pub(crate) endpoint: Option<String>,
    /// The project that the credential opens.
    #[arg(long)]
    pub(crate) project: Option<String>,
    /// A file that holds the token and that nobody else may read.
    #[arg(long, value_name = "FILE", conflicts_with = "data")]
    pub(crate) token_file: Option<PathBuf>,
    /// A PEM file with the node's certificate, or with one that signed it.
    #[arg(long, value_name = "FILE", conflicts_with = "data")]
    pub(crate) ca: Option<PathBuf>,
    /// The data folder of a node on this machine; its client.json says the rest, whatever it is then.
    #[arg(long)]
    pub(crate) data: Option<PathBuf>,
}

/// A request id, as it must look: what is mistyped is told without a node.
pub(crate) fn request(text: &str) -> Result<String, String> {
    let ask =
        "a request id is like 1167bf8c-87b0-43ab-8f5f-26b16c64f252; `quell ls` shows those of live requests";
    RequestId::parse(text).map(|id| id.to_string()).ok_or_else(|| ask.to_owned())
}

/// A label, by the node's own rules.
pub(crate) fn label(text: &str) -> Result<String, String> {
    api::check_labels(text).map(|()| text.to_owned())
}

/// A cancel id, the same way.
pub(crate) fn receipt(text: &str) -> Result<String, String> {
    let ask =
        "a cancel id is like 1167bf8c-87b0-43ab-8f5f-26b16c64f252; `quell receipts` shows the last ones";
    CancelId::parse(text).map(|id| id.to_string()).ok_or_else(|| ask.to_owned())
}

/// A selection, by the node's own rules.
pub(crate) fn selection(text: &str) -> Result<String, String> {
    api::Where::parse(text).map(|_| text.to_owned())
}
