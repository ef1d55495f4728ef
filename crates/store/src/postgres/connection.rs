//! How a connection to the server is made, and what every one of them is told.

use std::{
    path::Path,
    str::FromStr as _,
    time::{Duration, Instant},
};

use deadpool_postgres::{
    ClientWrapper, Hook, HookError, Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime, Timeouts,
};
use tokio::sync::watch;
use tokio_postgres::{
    Client, Config, Connection, Row, Socket,
    config::{SslMode, TargetSessionAttrs},
    types::ToSql,
};

use super::{
    fault::{Fault, words},
    tls::{Encrypted, Tls},
};
use crate::StoreError;

/// A connection with its prepared statements.
pub(crate) type Db = ClientWrapper;
/// The parameters of one statement.
pub(crate) type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

/// Each address of each host has so long to answer.
const DIAL: Duration = Duration::from_secs(2);
/// All of them together, with the handshake and the greeting.
pub(crate) const CONNECT: Duration = Duration::from_secs(5);
/// One statement, as the server counts: longer is a lock that is not let go, or a server past helping.
const STATEMENT: Duration = Duration::from_secs(10);
/// A transaction whose node says nothing any more is taken back after that, and its locks with it: others wait for them that long. Between
/// two statements a live node needs milliseconds, and a group with all the events that may wait crosses a slow wire within it.
const SILENT: Duration = Duration::from_secs(5);
/// While it works the server looks so often whether its client is there: what waits for a lock is let go of with it.
const LOOK: Duration = Duration::from_secs(2);
/// A server that does not even acknowledge what was sent, or the probes of an idle connection, is gone after that.
const UNHEARD: Duration = Duration::from_secs(10);
/// Reads side by side.
pub(crate) const READERS: usize = 8;

/// Where the server is, and how to speak to it.
#[derive(Clone)]
pub(crate) struct Connector {
    config: Config,
    tls: Tls,
    moved: Moved,
}

/// The writes may have gone to another server at this moment, while sessions of the one before go on. What was connected
/// before is not used any more.
#[derive(Clone)]
pub(crate) struct Moved(watch::Sender<Instant>);

impl Moved {
    /// The server of this connection said that it takes no writes; only the first to hear it makes all connect anew.
    pub(crate) fn by(&self, heard: &Object) {
        let since = Object::metrics(heard).created;
        let first = self.0.send_if_modified(|moved| {
            let newer = since > *moved;
            if newer {
                *moved = Instant::now();
            }
            newer
        });
        if first {
            tracing::warn!("the server takes no more writes: looking for the one that does");
        }
    }
}

impl Connector {
    /// Reads a connection string (`host=a,b user=...` or `postgres://...`).
    pub(crate) fn new(
        text: &str,
        password: Option<&str>,
        authority: Option<&Path>,
    ) -> Result<Self, StoreError> {
        let mut config = Config::from_str(text).map_err(|error| {
            // The text itself may hold a password.
            StoreError::Unopenable(format!("connection string: {}", words(&error)))
        })?;
        if let Some(password) = password.filter(|_| config.get_password().is_none()) {
            config.password(password);
        }
        // Without an authority to check the server against, encryption would only look safe.
        if config.get_ssl_mode() == SslMode::Prefer && authority.is_none() {
            config.ssl_mode(SslMode::Disable);
        }
        let tls = match config.get_ssl_mode() {
            SslMode::Disable => Tls::none(),
            _ => Tls::checked_against(authority)?,
        };
        // Of several hosts the one that takes writes: a standby answers too, and a promoted one is found.
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(DIAL);
        }
        config.tcp_user_timeout(UNHEARD).keepalives_idle(UNHEARD / 2).keepalives_interval(UNHEARD / 4);
        if config.get_application_name().is_none() {
            config.application_name("quell");
        }
        let told = format!(
            "{} -c statement_timeout={} -c idle_in_transaction_session_timeout={} -c jit=off \
             -c client_connection_check_interval={}",
            config.get_options().unwrap_or_default(),
            STATEMENT.as_millis(),
            SILENT.as_millis(),
            LOOK.as_millis(),
        );
        config.options(told.trim_start());
        Ok(Self { config, tls, moved: Moved(watch::Sender::new(Instant::now())) })
    }

    /// A connection for writing.
    pub(crate) async fn open(&self) -> Result<Db, Fault> {
        let (client, connection) = self.dial().await?;
        let task = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = %words(&error), "a connection to PostgreSQL ended");
            }
        });
        let db = ClientWrapper::new(client, task);
        // A commit that returned before it was durable would make every 202 a lie. Every statement here finds its
        // rows by a key: a plan that was made while a table was small must not walk it once it is large.
        let settle = db.batch_execute(
            "SELECT set_config('synchronous_commit', 'on', false)
                 WHERE current_setting('synchronous_commit') = 'off';
             SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off;
             SET plan_cache_mode = force_generic_plan",
        );
        within(CONNECT, settle).await??;
        // Reads go where the writes go: one that is asked on the server of before knows nothing of what was written here,
        // and a cancel that finds no parts there would call itself done.
        self.moved.0.send_replace(Instant::now());
        Ok(db)
    }

    /// A connection whose notifications are for the caller to read.
    pub(crate) async fn dial(&self) -> Result<(Client, Connection<Socket, Encrypted>), Fault> {
        Ok(within(CONNECT, self.config.connect(self.tls.clone())).await??)
    }

    /// Connections for reading.
    pub(crate) fn pool(&self) -> Result<Pool, StoreError> {
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(self.config.clone(), self.tls.clone(), recycling);
        let timeouts = Timeouts { wait: Some(CONNECT), create: Some(CONNECT), recycle: Some(CONNECT) };
        let moved = self.moves();
        let of_before = Hook::sync_fn(move |_, metrics| match metrics.created > *moved.borrow() {
            true => Ok(()),
            false => Err(HookError::message("the writes go to another server")),
        });
        Pool::builder(manager)
            .max_size(READERS)
            .pre_recycle(of_before)
            .timeouts(timeouts)
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| StoreError::Unopenable(error.to_string()))
    }
}

impl Connector {
    /// To say that the writes went to another server.
    pub(crate) fn moved(&self) -> Moved {
        self.moved.clone()
    }

    /// Changes when they did.
    pub(crate) fn moves(&self) -> watch::Receiver<Instant> {
        self.moved.0.subscribe()
    }
}

/// Gives up after a while.
pub(crate) async fn within<T>(time: Duration, work: impl Future<Output = T>) -> Result<T, Fault> {
    tokio::time::timeout(time, work)
        .await
        .map_err(|_| Fault::Gone(format!("PostgreSQL did not answer within {} s", time.as_secs())))
}

/// Has these ready: what is asked side by side after that is sent at once, in the order in which it is asked, and carried
/// out in that order, for one way there and back.
pub(crate) async fn prepare(db: &Db, statements: &[&str]) -> Result<(), Fault> {
    for statement in statements {
        db.prepare_cached(statement).await?;
    }
    Ok(())
}

/// All rows of a statement, which is prepared once a connection.
pub(crate) async fn rows(db: &Db, sql: &str, values: Params<'_>) -> Result<Vec<Row>, Fault> {
    let statement = db.prepare_cached(sql).await?;
    Ok(db.query(&statement, values).await?)
}

/// Its only row, if it has one.
pub(crate) async fn row(db: &Db, sql: &str, values: Params<'_>) -> Result<Option<Row>, Fault> {
    let statement = db.prepare_cached(sql).await?;
    Ok(db.query_opt(&statement, values).await?)
}

/// How many rows it touched.
pub(crate) async fn execute(db: &Db, sql: &str, values: Params<'_>) -> Result<u64, Fault> {
    let statement = db.prepare_cached(sql).await?;
    Ok(db.execute(&statement, values).await?)
}
