//! Which store a node has: its own, or one that it shares with other nodes.

use std::{
    fs,
    io::Write as _,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use cluster::Timing;
use store::{Embedded, Namesake, Postgres, Shared, Store, StoreError};
use supervisor::{Lease, LeaseSettings, Nodes, group::LeaseClock};

use crate::{data_folder, settings::NodeSettings, signals::EndSignals};

/// Between two tries to reach the database at the start, and after a lease was lost.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// That it still waits is said so often.
const TELL_AGAIN: Duration = Duration::from_secs(30);
/// The file in the data folder that has the node's name, where the store is another's.
const NAME_FILE: &str = "node";
/// The file in the data folder that says that what its own store holds was moved into a database.
pub(crate) const MOVED_FILE: &str = "moved";
/// A renewal is sent so often in a lease.
const RENEWALS: u32 = 10;

/// An opened store.
pub(crate) struct Opened {
    pub(crate) store: Arc<dyn Store>,
    /// The same, where other nodes have it too.
    pub(crate) shared: Option<Arc<dyn Shared>>,
    /// The node's name: 32 hexadecimal digits.
    pub(crate) name: String,
}

/// Opens the store that the settings name. A database that is not there yet is waited for: machines of a site start
/// in any order.
///
/// `None`: it was ended meanwhile.
pub(crate) async fn open(
    args: &NodeSettings,
    data: &Path,
    mut signals: Option<&mut EndSignals>,
) -> anyhow::Result<Option<Opened>> {
    let Some(url) = &args.store else {
        not_moved(data)?;
        let store: Arc<dyn Store> = Arc::new(data_folder::store_in(data)?);
        let name = match store.fact("node").await? {
            Some(name) => name,
            None => {
                let name = fresh_name();
                store.put_fact("node", name.clone()).await?;
                name
            }
        };
        return Ok(Some(Opened { store, shared: None, name }));
    };
    if data.join("quell.db").exists() && !data.join(MOVED_FILE).exists() {
        tracing::warn!(
            data = %data.display(),
            "there is a store of its own in the data folder: it is not used. `quell migrate` moves what is in it"
        );
    }
    let name = name_in(data, fresh_name)?;
    let password = args.store_password_file.as_deref().map(password).transpose()?;
    let mut waiting = Waiting::default();
    loop {
        let opened = Postgres::connect(
            url.as_str(),
            password.as_deref(),
            args.store_ca.as_deref(),
            name.clone(),
            data,
        );
        match opened {
            Ok(store) => {
                let shared: Arc<Postgres> = Arc::new(store);
                return Ok(Some(Opened { store: shared.clone(), shared: Some(shared), name }));
            }
            Err(StoreError::Unreadable(why)) => {
                if waiting.is_to_be_told() {
                    let hosts = url.hosts();
                    tracing::warn!(hosts, why, "the database is not there; trying again every second");
                }
                let ended = async {
                    match &mut signals {
                        Some(signals) => signals.next().await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = tokio::time::sleep(TRY_AGAIN) => {}
                    () = ended => return Ok(None),
                }
            }
            Err(error) => return Err(in_use(error)),
        }
    }
}

/// Refuses a store whose content went elsewhere: what was owed then would be run here again.
fn not_moved(data: &Path) -> anyhow::Result<()> {
    let mark = data.join(MOVED_FILE);
    if mark.exists() {
        bail!(
            "what was in {} was moved into a database by quell migrate: give --store, or `store` in quell.toml. Here it is as it \
             was then, and what was not over would run again; remove {} to have that",
            data.join("quell.db").display(),
            mark.display()
        );
    }
    Ok(())
}

/// How long a node has not said that it waits for the database.
#[derive(Default)]
struct Waiting(Option<Instant>);

impl Waiting {
    /// At the first try, and then each [`TELL_AGAIN`]: whoever looks at the log later is to see it too.
    fn is_to_be_told(&mut self) -> bool {
        let due = self.0.is_none_or(|told| told.elapsed() >= TELL_AGAIN);
        if due {
            self.0 = Some(Instant::now());
        }
        due
    }
}

/// With what to do about it, where that is known.
fn in_use(error: StoreError) -> anyhow::Error {
    match error {
        StoreError::Locked(_) => anyhow::Error::new(error).context(
            "cannot start (give --data, or `data` in quell.toml, another folder; or end the node that runs)",
        ),
        error => error.into(),
    }
}

/// What the end of a node waits for the database at each step: a commit takes milliseconds, and one that does not
/// answer takes the node's work away itself when the lease is over.
const END_STEP: Duration = Duration::from_secs(3);

/// A step of the end, or why it was not waited for any longer.
pub(crate) async fn within<T>(step: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    match tokio::time::timeout(END_STEP, step).await {
        Ok(done) => done,
        Err(_) => Err(StoreError::Unwritable("the database does not answer".to_owned())),
    }
}

/// Tells the other nodes that this one drains.
pub(crate) async fn tell_drain(shared: Arc<dyn Shared>) {
    if let Err(error) = within(shared.drain()).await {
        tracing::warn!(%error, "the other nodes are not told that this one drains");
    }
}

/// Gives everything back, if nothing of it runs any more.
pub(crate) async fn leave(shared: &dyn Shared, left: usize) {
    if left > 0 {
        return;
    }
    match within(shared.leave()).await {
        Ok(requests) => tracing::info!(requests, "left the nodes of this store; what waits is theirs"),
        Err(error) => tracing::warn!(%error, "the other nodes take over when the lease is over"),
    }
}

/// Resolves when the database answers again.
pub(crate) async fn reachable(shared: &dyn Shared) {
    let mut waiting = Waiting::default();
    while let Err(error) = shared.nodes().await {
        if waiting.is_to_be_told() {
            tracing::warn!(%error, "the database does not answer; trying again every second");
        }
        tokio::time::sleep(TRY_AGAIN).await;
    }
}

/// Resolves when no other node holds the lease of this one's name: with an older life of this folder there is nothing to
/// wait for, with one of another machine (or of this one before it was started anew) for the end of its lease. False: it was
/// ended meanwhile. To be called before anything of that name is touched here.
///
/// # Errors
/// When that node renews its lease: it lives, and one of the two folders is a copy. Or the database does not answer.
pub(crate) async fn alone(
    opened: &Opened,
    endpoint: &str,
    data: &Path,
    mut signals: Option<&mut EndSignals>,
) -> anyhow::Result<bool> {
    let Some(shared) = &opened.shared else { return Ok(true) };
    let mut first: Option<i64> = None;
    while let Some(other) = shared.namesake(endpoint.to_owned()).await? {
        match first {
            Some(first) if other.until_us > first => return Err(copied(&opened.name, data, &other)),
            Some(_) => {}
            None => {
                tracing::warn!(
                    node = opened.name,
                    endpoint = other.endpoint,
                    left_ms = other.left_ms,
                    "a node with this one's name holds its lease: waiting for its end, or a sign of life of it"
                );
                first = Some(other.until_us);
            }
        }
        let left = Duration::from_millis(u64::try_from(other.left_ms).unwrap_or_default() + 1);
        let ended = async {
            match &mut signals {
                Some(signals) => signals.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = tokio::time::sleep(left.min(TRY_AGAIN)) => {} // nothing tells when a lease is over
            () = ended => return Ok(false),
        }
    }
    Ok(true)
}

/// What to say of two nodes of one name.
pub(crate) fn copied(name: &str, data: &Path, other: &Namesake) -> anyhow::Error {
    anyhow::anyhow!(
        "another node with this one's name, {name}, is alive at {}: one of the two data folders is a copy of the other. \
         Where this one is the copy, remove {} and start it again, and it is a node of its own",
        other.endpoint,
        data.join(NAME_FILE).display()
    )
}

/// Joins the others.
pub(crate) async fn join(
    nodes: &Arc<Nodes>,
    settings: LeaseSettings,
    clock: LeaseClock,
    data: &Path,
) -> anyhow::Result<Lease> {
    match nodes.join(settings, clock).await {
        // It has joined since this one looked.
        Err(StoreError::Namesake(other)) => Err(copied(&nodes.shared().node(), data, &other)),
        joined => Ok(joined?),
    }
}

/// The others, for a node that shares its store.
pub(crate) fn nodes_of(opened: &Opened, args: &NodeSettings) -> Option<Arc<Nodes>> {
    let shared = opened.shared.as_ref()?;
    Some(Nodes::new(Arc::clone(shared), args.kill_timeout, args.lease))
}

/// How the node joins the others.
pub(crate) fn lease(args: &NodeSettings, endpoint: String) -> anyhow::Result<LeaseSettings> {
    let margin = (args.lease * 3 / 10).max(Duration::from_secs(1) + args.lease / 100);
    let timing = Timing { lease: args.lease, heartbeat: args.lease / RENEWALS, margin };
    let timing = timing.checked().context("lease_s")?;
    let (version, labels) = (env!("CARGO_PKG_VERSION").to_owned(), args.node_labels.clone());
    Ok(LeaseSettings { timing, endpoint, version, labels })
}

fn fresh_name() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// The name of a node that is being moved into a shared store: it keeps the one it has.
pub(crate) async fn name_of(store: &Embedded, data: &Path) -> anyhow::Result<String> {
    let known = store.fact("node").await?;
    name_in(data, || known.unwrap_or_else(fresh_name))
}

/// The name that is kept in the folder; made at the first start, and durable before it is used.
fn name_in(data: &Path, fresh: impl FnOnce() -> String) -> anyhow::Result<String> {
    let path = data.join(NAME_FILE);
    match fs::read_to_string(&path) {
        Ok(text) => {
            let name = text.trim().to_owned();
            if name.len() != 32 || !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                bail!("{} does not hold the name of a node (32 hexadecimal digits)", path.display());
            }
            Ok(name)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let name = fresh();
            let part = data.join(format!("{NAME_FILE}.part"));
            let mut file = fs::File::create(&part)?;
            writeln!(file, "{name}")?;
            file.sync_all()?;
            fs::rename(&part, &path)?;
            fs::File::open(data)?.sync_all()?;
            Ok(name)
        }
        Err(error) => Err(error).with_context(|| format!("{} cannot be read", path.display())),
    }
}

pub(crate) fn password(file: &Path) -> anyhow::Result<String> {
    let text = fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}
