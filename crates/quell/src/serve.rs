//! A node from its options to its end: wiring, and nothing that decides.

use std::{
    ffi::OsString,
    net::SocketAddr,
    num::NonZeroU32,
    os::{fd::OwnedFd, unix::process::CommandExt as _},
    path::Path,
    process::{Command, ExitCode, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use api::{Api, ApiSettings, NodeKey, RateLimits, Secrets};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use store::{Shared, Store};
use supervisor::{
    Handle, Lease, LogSettings, Lost, Node, Nodes, Recovered, RequestRow, RuntimeImage, Settings, Tunable,
    Working,
    group::{Containment, HelperProgram, Isolation, LeaseClock, Spawner, Swept},
    http,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    INSTANCE_INIT,
    config::ClientConfig,
    data_folder, images,
    listeners::{Listeners, Tls, handed_over},
    manager::Manager,
    open_listener::OpenListener,
    otlp::{Exporter, Exporting},
    output,
    reload::{Changeable, Reloads},
    runtime_user::{self, Chosen, RuntimeUser},
    settings::{Given, IsolationArg, Loaded, NodeSettings},
    signals::EndSignals,
    stores,
};

/// What the end of a node takes beside its drain and its kills, at the most: answers under way (5 s), logs, the
/// store's last commits on a slow disk.
const ENDING: Duration = Duration::from_secs(15);

/// A node that serves.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    /// Where it listens, in words.
    status: String,
    pub(crate) client: ClientConfig,
    pub(crate) containment: Arc<Containment>,
    changeable: Changeable,
    node: Node,
    store: Arc<dyn Store>,
    /// The same, where other nodes have it too.
    shared: Option<Arc<dyn Shared>>,
    lease: Option<Lease>,
    working: Option<Working>,
    /// The API's socket, for a next life in this process.
    listener: OwnedFd,
    server: JoinHandle<()>,
    open: Option<JoinHandle<()>>,
    exporting: Option<Exporting>,
    end: CancellationToken,
}

/// `quell serve`.
pub(crate) async fn serve(given: Given, loaded: Loaded) -> anyhow::Result<ExitCode> {
    let mut signals = EndSignals::listen()?;
    let handed = handed_over(&loaded.settings)?;
    let manager = Manager::of_environment();
    raise_descriptor_limit();
    given.warn();
    if let Some(file) = &loaded.file {
        tracing::info!(file = %file.display(), "read the configuration");
    }
    let mut reloads = Reloads::listen(given, loaded, manager.clone())?;
    let Some(mut running) = start_with(reloads.settings(), handed, Some(&mut signals)).await? else {
        output::note("quell: ended before it had started");
        return Ok(ExitCode::SUCCESS);
    };
    let status = running.status.clone();
    output::note(format_args!("quell: {status}"));
    manager.ready(&status);
    let handle = running.node.handle.clone();
    // Of a project nobody has: the cheapest look that the core answers.
    let feeding = tokio::spawn(manager.clone().feed(move || {
        let handle = handle.clone();
        async move { handle.node(Some(String::new())).await.is_some() }
    }));
    let mut lapsed = None;
    tokio::select! {
        () = signals.next() => {}
        why = lost(&mut running.lease) => lapsed = Some(why),
        why = running.node.failed() => bail!("the node's core failed, nothing can be decided: {why}"),
        () = reloads.follow(&running.changeable, &status) => {}
    }
    if let Some(why) = lapsed {
        feeding.abort();
        return begin_again(running, &mut signals, why).await;
    }
    let drain = reloads.settings().drain;
    // The drain, what is killed then and may be stuck, and answers, logs and the store.
    manager.stopping(drain + reloads.settings().kill_timeout + ENDING);
    output::note(format_args!(
        "quell: draining for at most {} s: it waits for {}; Ctrl-C again (or SIGTERM) stops now",
        drain.as_secs_f32(),
        awaited(&running.node.handle).await
    ));
    let left = running.stop(drain, Some(&mut signals)).await?;
    feeding.abort(); // it ends with the core
    match left {
        0 => {
            output::note("quell: every instance was reaped; ended");
            Ok(ExitCode::SUCCESS)
        }
        left => {
            output::note(format_args!("quell: ended, and {left} instances could not be killed; see the log"));
            Ok(ExitCode::from(output::UNKILLABLE))
        }
    }
}

/// Resolves when the lease is lost; never on a node that has none.
async fn lost(lease: &mut Option<Lease>) -> Lost {
    if let Some(lease) = lease
        && let Ok(why) = (&mut lease.lost).await
    {
        return why;
    }
    std::future::pending().await
}

/// The node's lease is over: other nodes may run its requests. Everything it runs is killed, now and with proof; then
/// it waits for the database and begins a new life, in this process and on the same listening socket.
async fn begin_again(running: Running, signals: &mut EndSignals, why: Lost) -> anyhow::Result<ExitCode> {
    tracing::error!(%why, "the lease is over: everything that runs here is killed");
    let left = running.node.handle.drain(Duration::ZERO).await;
    if left > 0 {
        output::note(format_args!("quell: {left} instances could not be killed; not joining again"));
        return Ok(ExitCode::from(output::UNKILLABLE));
    }
    tracing::warn!("every instance was reaped; waiting for the database, new requests get 503");
    if let Some(shared) = &running.shared {
        tokio::select! {
            () = stores::reachable(shared.as_ref()) => {}
            () = signals.next() => {
                running.stop(Duration::ZERO, None).await?;
                output::note("quell: every instance was reaped; ended");
                return Ok(ExitCode::SUCCESS);
            }
        }
    }
    let listener = running.listener.try_clone()?;
    // What it cannot write any more is not this life's to write.
    if let Err(error) = running.stop(Duration::ZERO, None).await {
        tracing::warn!(%error, "the last life did not close cleanly");
    }
    Err(again(listener).into())
}

/// Executes this program in its own place, with the listening socket. Returns only if that fails.
fn again(listener: OwnedFd) -> std::io::Error {
    let mut args = std::env::args_os();
    let name = args.next().unwrap_or_else(|| "quell".into());
    let mut command = Command::new("/proc/self/exe");
    command.arg0(name).args(args).stdin(Stdio::from(listener));
    http::handing_on(&mut command);
    command.exec()
}

/// What a drain that begins now waits for, and what it leaves, in words.
async fn awaited(handle: &Handle) -> String {
    let Some(node) = handle.node(None).await else { return "nothing, the core has ended".to_owned() };
    // Those that no instance holds are safe in the store, if they are asynchronous.
    let is_left = |row: &RequestRow| row.asynchronous == Some(true) && row.instance.is_none();
    let left = node.requests.iter().filter(|row| is_left(row)).count();
    let waits = node.requests.len() - left;
    let counted = |count: usize, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
    let at_least = if node.truncated { "at least " } else { "" };
    let end = counted(node.instances.len(), "instance");
    let mut text = match waits {
        0 => format!("no request, and ends {end}"),
        _ => format!("{at_least}{} on {end}", counted(waits, "request")),
    };
    if left > 0 {
        text.push_str(&format!("; {at_least}{} left to its next life", counted(left, "waiting request")));
    }
    text
}

/// How much callers may ask.
pub(crate) fn rate_limits(settings: &NodeSettings) -> RateLimits {
    RateLimits {
        requests: NonZeroU32::new(settings.rate_limit),
        running: NonZeroU32::new(settings.function_rate_limit),
        refusals: NonZeroU32::new(settings.refusal_limit),
    }
}

/// What may change while the node runs.
pub(crate) fn tunable(settings: &NodeSettings) -> Tunable {
    Tunable {
        kill_timeout: settings.kill_timeout,
        idle_release: settings.idle,
        queue_timeout: settings.queue_timeout,
        max_instances: settings.max_instances,
        max_processes: settings.max_processes,
        tmp_bytes: settings.tmp_mib << 20,
        retry_backoff: settings.retry_backoff,
        retention: days(settings.keep_days),
    }
}

fn node_settings(args: &NodeSettings, data: &Path, listeners: &Listeners) -> Settings {
    let mut settings = Settings {
        logs: Some(LogSettings {
            dir: data.join("logs"),
            instance_bytes: args.log_instance_mib << 20,
            function_bytes: args.log_function_mib << 20,
            total_bytes: args.log_total_mib << 20,
            keep: days(args.keep_days),
        }),
        api_endpoint: listeners.runtime_endpoint(),
        node_labels: args.node_labels.clone(),
        ..Settings::default()
    };
    settings.tune(tunable(args));
    settings
}

fn days(days: u64) -> Duration {
    Duration::from_secs(days * 24 * 3_600)
}

/// Takes what the system allows: runtimes and callers hold descriptors by the thousand.
fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

/// Starts a node that no service manager knows of.
pub(crate) async fn start(args: &NodeSettings) -> anyhow::Result<Running> {
    start_with(args, None, None).await?.context("nobody ends it while it starts")
}

/// Starts a node: store, what an earlier life left, runtimes, API, in this order. `None`: it was ended while it waited
/// for its database.
async fn start_with(
    args: &NodeSettings,
    handed: Option<std::net::TcpListener>,
    mut signals: Option<&mut EndSignals>,
) -> anyhow::Result<Option<Running>> {
    let tls = Tls::of(args)?;
    let data = data_folder::made(&args.data)?;
    let Some(opened) = stores::open(args, &data, signals.as_deref_mut()).await? else { return Ok(None) };
    let store = Arc::clone(&opened.store);
    let nodes = stores::nodes_of(&opened, args);
    let listeners = Listeners::bind(args, tls, handed)?;
    if !stores::alone(&opened, &listeners.endpoint(), &data, signals).await? {
        return Ok(None);
    }
    let open = OpenListener::bind(args.metrics_listen)?;
    let (address, status) = (listeners.address(), listeners.status());
    let (images, chosen) = runtimes(args, &data)?;
    let clock = match &nodes {
        Some(_) => Some(LeaseClock::starting_with(LeaseClock::boottime_now()?)?),
        None => None,
    };
    let (containment, spawner) = contain(args, chosen.user, &opened.name, clock.clone()).await?;
    let (exporter, spans) = Exporter::of(args, &opened.name)?.unzip();
    let settings = Settings { spans, ..node_settings(args, &data, &listeners) };
    // Everything that may fail comes before the node, which takes up the work of its last life.
    let key = NodeKey::of(store.as_ref()).await?;
    let client = credential(args, &data, store.as_ref(), &key, &listeners).await?;
    // Whatever an older life of this node left is proven ended: now it may own what it runs.
    let mut lease = match (&nodes, clock) {
        (Some(nodes), Some(clock)) => {
            let settings = stores::lease(args, listeners.endpoint())?;
            Some(stores::join(nodes, settings, clock, &data).await?)
        }
        _ => None,
    };
    let node = Node::start(settings, Arc::clone(&store), nodes.clone(), spawner)?;
    let api_settings =
        ApiSettings { region: args.region.clone(), data_dir: data.clone(), limits: rate_limits(args) };
    let api = Api::new(node.handle.clone(), Arc::clone(&store), key, images, api_settings);
    if let Err(error) = take_over(&api, &node, containment.base().is_some()).await {
        node.handle.drain(Duration::ZERO).await; // what it had taken up already
        node.ended().await;
        return Err(error);
    }
    let working = match (&nodes, &mut lease) {
        (Some(nodes), Some(lease)) => {
            tokio::spawn(follow_functions(Arc::clone(&api), Arc::clone(nodes)));
            Some(nodes.work(node.handle.clone(), lease))
        }
        _ => None,
    };
    let exporting = exporter.map(|exporter| exporter.start(node.handle.clone()));
    let end = CancellationToken::new();
    let certificates = listeners.certificates();
    let changeable = Changeable { handle: node.handle.clone(), api: Arc::clone(&api), certificates };
    let open = open.map(|open| tokio::spawn(open.serve(Arc::clone(&api), end.clone())));
    let listener = listeners.handed_on()?;
    let server = listeners.serve(api::router(api), args, end.clone());
    Ok(Some(Running {
        shared: opened.shared,
        lease,
        working,
        listener,
        address,
        status,
        client,
        containment,
        changeable,
        node,
        store,
        server,
        open,
        exporting,
        end,
    }))
}

/// Reads functions again whenever another node may have changed them; ends with the node.
async fn follow_functions(api: Arc<Api>, nodes: Arc<Nodes>) {
    let mut changes = nodes.function_changes();
    while changes.changed().await.is_ok() {
        match api.load_again().await {
            Ok(()) => nodes.functions_read(),
            Err(error) => tracing::warn!(%error, "what other nodes changed of functions could not be read"),
        }
    }
}

/// Takes up what the last life of this node left in the store.
async fn take_over(api: &Api, node: &Node, swept: bool) -> anyhow::Result<()> {
    let functions = api.load().await?;
    let Recovered { requeued, settled_canceled, settled_failed, discarded } =
        node.recover(&functions, swept).await?;
    tracing::info!(
        functions = functions.len(),
        requeued,
        settled_canceled,
        settled_failed,
        discarded,
        "took over from the last life"
    );
    Ok(())
}

/// The images that functions run by, and as whom.
fn runtimes(args: &NodeSettings, data: &Path) -> anyhow::Result<(Vec<Arc<RuntimeImage>>, Chosen)> {
    let mut images = images::install(data)?;
    for folder in &args.images {
        images::add_own(folder, &mut images)?;
    }
    let chosen = runtime_user::choose(args.runtime_user, Some(data), &images, helper)?;
    match chosen.user {
        None if nix::unistd::geteuid().is_root() && args.runtime_user == RuntimeUser::Auto => {
            tracing::warn!("{chosen}");
        }
        _ => tracing::info!("{chosen}"),
    }
    Ok((images, chosen))
}

/// Probes what contains runtimes, and first of all ends what an earlier life of this node left.
async fn contain(
    args: &NodeSettings,
    user: Option<u32>,
    name: &str,
    clock: Option<LeaseClock>,
) -> anyhow::Result<(Arc<Containment>, Arc<Spawner>)> {
    let isolation = match args.isolation {
        IsolationArg::Auto => Isolation::Auto,
        IsolationArg::Cgroup => Isolation::Cgroup,
        IsolationArg::Subreaper => Isolation::Subreaper,
        IsolationArg::ProcessGroup => Isolation::ProcessGroup,
    };
    let helper = helper(user);
    let containment = Arc::new(Containment::probe(name, isolation, &helper)?);
    for layer in containment.layers() {
        tracing::info!(%layer, "containment");
    }
    for limit in containment.limits() {
        tracing::info!(%limit, "containment");
    }
    let swept = containment.sweep(args.kill_timeout).await?;
    let Swept { leaves, processes } = swept;
    tracing::info!(leaves, processes, "ended what an earlier life left running");
    let spawner = Arc::new(Spawner::start(helper, Arc::clone(&containment), clock)?);
    Ok((containment, spawner))
}

/// This binary under its hidden argument. By its own link, so that an upgrade of the file on disk
/// while the node runs does not change the helper under it.
pub(crate) fn helper(user: Option<u32>) -> HelperProgram {
    HelperProgram { program: "/proc/self/exe".into(), args: vec![OsString::from(INSTANCE_INIT)], user }
}

/// The credential of the command line on this machine: made at the first start, kept in client.json.
async fn credential(
    args: &NodeSettings,
    data: &Path,
    store: &dyn Store,
    key: &NodeKey,
    listeners: &Listeners,
) -> anyhow::Result<ClientConfig> {
    let kept = ClientConfig::read(data)?.filter(|kept| kept.project == args.project);
    let project = args.project.clone();
    let known = match &kept {
        // One that was revoked or is of another store opens nothing: then there is a new one.
        Some(kept) => api::secrets_of(store, key, &kept.token).await?,
        None => None,
    };
    let secrets = match known {
        Some(secrets) => secrets,
        None => {
            let made = api::mint_operator(store, key, &project, "made at the start of the node").await?;
            // Not the credential itself: logs are read by more people than the file.
            tracing::info!(%project, data = %data.display(), "made a credential, see client.json");
            made
        }
    };
    let Secrets { token, access_key, secret_key } = secrets;
    let (endpoint, ca) = (listeners.endpoint(), listeners.ca());
    let client =
        ClientConfig { endpoint, token, project, access_key, secret_key, ca, is_project_named: false };
    client.write(data)?;
    Ok(client)
}

impl Running {
    /// Drains within `limit`, reaps everything, closes. Another signal cuts the drain short. Returns how
    /// many instances could not be killed.
    pub(crate) async fn stop(
        mut self,
        limit: Duration,
        signals: Option<&mut EndSignals>,
    ) -> anyhow::Result<usize> {
        let handle = self.node.handle.clone();
        if let Some(working) = &self.working {
            working.cease();
        }
        // Beside the drain: a database that does not answer holds up nothing here.
        let telling = self.shared.clone().map(|shared| tokio::spawn(stores::tell_drain(shared)));
        let drain = handle.drain(limit);
        let left = match signals {
            None => drain.await,
            Some(signals) => {
                tokio::pin!(drain);
                tokio::select! {
                    left = &mut drain => left,
                    why = lost(&mut self.lease) => {
                        tracing::error!(%why, "the lease is over: everything that runs here is killed");
                        handle.drain(Duration::ZERO).await
                    }
                    () = signals.next() => {
                        output::note("quell: stopping now: what still runs is killed");
                        handle.drain(Duration::ZERO).await
                    }
                }
            }
        };
        self.end.cancel();
        self.node.ended().await;
        if let Some(telling) = telling {
            telling.abort(); // what it had to say is not worth more waiting
        }
        if let Some(working) = self.working {
            working.end().await;
        }
        if let Some(shared) = &self.shared {
            stores::leave(shared.as_ref(), left).await;
        }
        if let Some(lease) = self.lease {
            lease.end().await;
        }
        if let Err(error) = self.containment.close() {
            tracing::warn!(%error, "the node's cgroup stays behind");
        }
        for server in [Some(self.server), self.open].into_iter().flatten() {
            if let Err(error) = server.await {
                tracing::error!(%error, "a listener's task ended badly");
            }
        }
        if let Some(exporting) = self.exporting {
            exporting.ended().await;
        }
        let closed = match &self.shared {
            None => self.store.close().await,
            Some(_) => stores::within(self.store.close()).await,
        };
        if closed.is_err() && self.shared.is_some() {
            // Its last owner would wait for what it still writes, and nobody answers that.
            Box::leak(Box::new(Arc::clone(&self.store)));
        }
        closed.context("the store did not close cleanly")?;
        Ok(left)
    }
}
