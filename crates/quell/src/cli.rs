//! The command line: what can be typed and what it means.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use supervisor::LogSettings;

use crate::{
    args,
    args::{
        CancelArgs, ContextCommand, CredentialsCommand, LogsArgs, NodeArgs, Output, PlanArgs, ReceiptsArgs,
    },
    credentials, demo, deploy, logs,
    runtime_user::RuntimeUser,
    serve, verbs,
};

const AFTER_HELP: &str = "\
Exit codes:
  0  done (for `cancel`: everything in scope is stopped, and that is proven and recorded)
  1  the node refused (a request id it cannot cancel included) or failed; it said why. `cancel --where`: some could
     not be stopped, each is named; or you said no
  2  the command line is wrong, or names a context that is not there, or nobody is there to be asked
  3  the node cannot be reached
  4  the credential is missing or wrong
  5  not found: no such function, live request, instance or receipt
  6  `cancel`: fenced and settled, but code may still run on a draining instance (with --where: of one or more)
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
  quell cancel --where 'function=my-function,age>10m'
                                   many at once: it shows the plan, and asks
  quell top                        live, with keys to plan and to cancel
  quell completions bash           what your shell needs to complete all this

How the node is found: --endpoint and --token (or QUELL_ENDPOINT, QUELL_TOKEN); else --context (or
QUELL_CONTEXT); else the file client.json that `quell serve` writes into its data folder, where --data (or
QUELL_DATA) names one; else the current context (`quell context`); else client.json in ./quell-data.

Colours are for terminals, and not where NO_COLOR is set.";

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
    Serve(ServeArgs),
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
        #[arg(long = "label", value_name = "NAME=VALUE")]
        labels: Vec<String>,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Stop a request, or with --where many; returns when they are stopped, and says on what evidence.
    #[command(after_help = CANCEL_EXAMPLES)]
    Cancel(CancelArgs),
    /// End a cancel of many before it is done: whoever it has not reached is left alone.
    CallOff {
        /// Its key, as `cancel --where` prints it.
        key: String,
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Show what a cancel would stop, and who else would be touched.
    Plan(PlanArgs),
    /// Show the tree a request is in.
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
    /// Show the functions of the project.
    Functions {
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Show the live instances of the project, with their processes.
    Instances {
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Watch the live requests; keys plan and cancel them.
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

/// How to run a node.
#[derive(Debug, Clone, Args)]
pub(crate) struct ServeArgs {
    /// Where the node keeps everything it must not forget.
    #[arg(long, env = "QUELL_DATA", default_value = "quell-data")]
    pub(crate) data: PathBuf,
    /// A folder of runtime images of your own, each a folder with an image.toml (docs/runtime-images.md). May be given
    /// more than once.
    #[arg(long, value_name = "DIR")]
    pub(crate) images: Vec<PathBuf>,
    /// The address of the API. Before you leave loopback: --tls-cert and --tls-key, or a TLS proxy in front.
    #[arg(long, env = "QUELL_LISTEN", default_value = "127.0.0.1:7171")]
    pub(crate) listen: SocketAddr,
    /// Speak TLS: a PEM file with the certificate of this node and those that signed it, its own first. Read
    /// again when it changes, and at SIGHUP.
    #[arg(long, env = "QUELL_TLS_CERT", requires = "tls_key", value_name = "FILE")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// A PEM file with the key of that certificate. Make it readable for nobody but the node.
    #[arg(long, env = "QUELL_TLS_KEY", requires = "tls_cert", value_name = "FILE")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Connections to the API that one address (of IPv6: one /64) may have at once. This machine may have
    /// three quarters of all there are.
    #[arg(long, env = "QUELL_PEER_CONNECTIONS", default_value_t = 256,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) peer_connections: u32,
    /// How long the body of a request may take to arrive, in seconds; code has as long for each 6 MiB.
    #[arg(long, env = "QUELL_BODY_TIMEOUT_S", default_value = "60", value_parser = some_seconds)]
    pub(crate) body_timeout: Duration,
    /// The project of the credential that the first start creates.
    #[arg(long, env = "QUELL_PROJECT", default_value = "default")]
    pub(crate) project: String,
    /// The region in URNs.
    #[arg(long, env = "QUELL_REGION", default_value = "local")]
    pub(crate) region: String,
    /// How runtimes are contained.
    #[arg(long, env = "QUELL_ISOLATION", value_enum, default_value_t = IsolationArg::Auto)]
    pub(crate) isolation: IsolationArg,
    /// As whom runtimes run: the number of a user and group; `node`, as the node itself; `auto`, where the
    /// node is root as user 61000 if that one can reach the data folder and the interpreters, else as the
    /// node (`quell doctor` tells).
    #[arg(long, env = "QUELL_RUNTIME_USER", default_value = "auto")]
    pub(crate) runtime_user: RuntimeUser,
    /// Processes and threads that one instance may have at once.
    #[arg(long, env = "QUELL_MAX_PROCESSES", default_value_t = 1_024,
          value_parser = clap::value_parser!(u32).range(8..=1_000_000))]
    pub(crate) max_processes: u32,
    /// The size of the /tmp of one instance where it has its own, in MiB. What is written there counts as
    /// memory of the function.
    #[arg(long, env = "QUELL_TMP_MIB", default_value_t = 512,
          value_parser = clap::value_parser!(u64).range(1..=1_048_576))]
    pub(crate) tmp_size: u64,
    /// The pause before the second attempt of an asynchronous request, doubled before each further one, in
    /// seconds.
    #[arg(long, env = "QUELL_RETRY_BACKOFF_S", default_value = "1", value_parser = seconds)]
    pub(crate) retry_backoff: Duration,
    /// How much of what one instance prints is kept on the disk, in MiB; the oldest goes first.
    #[arg(long, env = "QUELL_LOG_INSTANCE_MIB", default_value_t = LogSettings::INSTANCE_BYTES >> 20, value_parser = mebibytes())]
    pub(crate) log_instance: u64,
    /// The same of all instances of a version of a function, in MiB.
    #[arg(long, env = "QUELL_LOG_FUNCTION_MIB", default_value_t = LogSettings::FUNCTION_BYTES >> 20, value_parser = mebibytes())]
    pub(crate) log_function: u64,
    /// The same of all there are, in MiB.
    #[arg(long, env = "QUELL_LOG_TOTAL_MIB", default_value_t = LogSettings::TOTAL_BYTES >> 20, value_parser = mebibytes())]
    pub(crate) log_total: u64,
    /// For how long the node remembers requests that are over, receipts of cancels and logs, in days.
    #[arg(long, env = "QUELL_KEEP_DAYS", default_value_t = 7, value_parser = clap::value_parser!(u64).range(1..=3_650))]
    pub(crate) keep_days: u64,
    /// How long a drain may last before what still runs is killed, in seconds.
    #[arg(long, env = "QUELL_DRAIN_S", default_value = "30", value_parser = seconds)]
    pub(crate) drain: Duration,
    /// After this a killed instance that is not proven dead is reported as unkillable, in seconds.
    #[arg(long, env = "QUELL_KILL_TIMEOUT_S", default_value = "10", value_parser = seconds)]
    pub(crate) kill_timeout: Duration,
    /// An instance with nothing to do for this long is released, in seconds.
    #[arg(long, env = "QUELL_IDLE_S", default_value = "60", value_parser = seconds)]
    pub(crate) idle: Duration,
    /// How long a synchronous request waits for a free instance, in seconds.
    #[arg(long, env = "QUELL_QUEUE_TIMEOUT_S", default_value = "60", value_parser = seconds)]
    pub(crate) queue_timeout: Duration,
    /// Instances the node runs at once.
    #[arg(long, env = "QUELL_MAX_INSTANCES", default_value_t = 512)]
    pub(crate) max_instances: usize,
    /// Requests a second that one credential may make, and one address; more are answered 429. 0: as many
    /// as come.
    #[arg(long, env = "QUELL_RATE_LIMIT", default_value_t = 0)]
    pub(crate) rate_limit: u32,
    /// The same for one running request with its own credentials: a function that calls in a loop.
    #[arg(long, env = "QUELL_FUNCTION_RATE_LIMIT", default_value_t = 1_000)]
    pub(crate) function_rate_limit: u32,
    /// Wrong credentials a second that one address is told of; more are answered 429. 0: all of them.
    #[arg(long, env = "QUELL_REFUSAL_LIMIT", default_value_t = 100)]
    pub(crate) refusal_limit: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum IsolationArg {
    /// The strongest that works here.
    Auto,
    /// A cgroup per instance and no namespace, or refuse to start.
    Cgroup,
    /// A child subreaper per instance: no privilege needed.
    Subreaper,
    /// Process groups only: what leaves the group is not seen.
    ProcessGroup,
}

impl Cli {
    /// What to log: a daemon tells what it does, a client only what is wrong.
    pub(crate) fn log_filter(&self) -> &str {
        let default = if matches!(self.command, Command::Serve(_)) { "info" } else { "warn" };
        self.log.as_deref().unwrap_or(default)
    }

    /// Does what was asked.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Serve(args) => serve::serve(args).await,
            Command::Deploy { dir, node } => deploy::deploy(&dir, &node).await,
            Command::Invoke { function, event, asynchronous, labels, node } => {
                verbs::invoke(&function, &event, asynchronous, &labels, &node).await
            }
            Command::Cancel(args) => verbs::cancel(&args).await,
            Command::Tree { request, node } => verbs::tree(&request, &node).await,
            Command::Ls { selection, node } => verbs::ls(selection.as_deref(), &node).await,
            Command::CallOff { key, node } => verbs::call_off(&key, &node).await,
            Command::Plan(args) => verbs::plan(&args).await,
            Command::Functions { node } => verbs::functions(&node).await,
            Command::Instances { node } => verbs::instances(&node).await,
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

/// One is room for some thousand lines; less would be no log.
fn mebibytes() -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(1..=1_048_576)
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("`{text}` is not a number of seconds"))?;
    Duration::try_from_secs_f64(seconds).map_err(|error| format!("`{text}`: {error}"))
}

/// The same where none would be a trap, and more than a day is meant for ever.
fn some_seconds(text: &str) -> Result<Duration, String> {
    let duration = seconds(text)?;
    if duration.is_zero() || duration > Duration::from_secs(86_400) {
        return Err(format!("`{text}` is not between 0 (not included) and 86400 seconds"));
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_are_seconds_and_nothing_else() {
        assert_eq!(seconds("1.5"), Ok(Duration::from_millis(1500)));
        assert!(seconds("-1").is_err());
        assert!(seconds("5m").is_err());
        assert!(seconds("inf").is_err());
        assert!(some_seconds("0").is_err() && some_seconds("86401").is_err() && some_seconds("0.5").is_ok());
    }
}
