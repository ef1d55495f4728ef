//! From one node to several: an embedded store's whole content into an empty PostgreSQL store.

use rusqlite::Connection;

use crate::{
    Embedded, Postgres, Store as _, StoreError, credentials, invocations, postgres::import::Import, receipts,
};

/// Rows read at once.
const ROWS: u32 = 200;
/// Requests read at once: each has its event, which may have megabytes.
const EVENTS: u32 = 16;
/// The fact that names a node, and stays with it.
const NODE: &str = "node";

/// How much was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Versions of functions, each with its code.
    pub functions: u64,
    /// Names of versions.
    pub aliases: u64,
    /// What functions say of their asynchronous requests.
    pub async_configs: u64,
    /// Credentials.
    pub credentials: u64,
    /// Requests, those that are over too.
    pub invocations: u64,
    /// Receipts of cancels.
    pub receipts: u64,
    /// Fences of those.
    pub fences: u64,
    /// Cancels of many.
    pub bulks: u64,
    /// Facts, but for the node's name.
    pub facts: u64,
}

/// Copies everything of `from` into `to`, in one transaction: after an error, or when the future is dropped, nothing
/// of it is there. Requests that are not over, receipts that are open and cancels of many belong to the node that `to` speaks for,
/// which need not have joined. The order of acceptance stays, and requests hang below those that made them.
///
/// Nobody may write to `from` meanwhile. Must be called within a Tokio runtime.
///
/// # Errors
/// [`StoreError::Exists`] if `to` has functions or requests already; [`StoreError::Unreadable`] and
/// [`StoreError::Unwritable`] as any read and write.
pub async fn copy(from: &Embedded, to: &Postgres) -> Result<Copied, StoreError> {
    let into = to.import().await?;
    let copied = everything(from, &into).await?;
    into.commit().await?;
    Ok(copied)
}

async fn everything(from: &Embedded, into: &Import) -> Result<Copied, StoreError> {
    let mut copied = Copied::default();
    for function in from.functions(None).await? {
        let config = from.async_config(function.key.clone()).await?;
        let code = from.code(function.code_digest.clone()).await?;
        into.function(&function, code.as_deref().unwrap_or_default()).await?;
        copied.functions += 1;
        if let Some(config) = config {
            into.async_config(&config).await?;
            copied.async_configs += 1;
        }
    }
    for alias in from.aliases().await? {
        into.alias(&alias).await?;
        copied.aliases += 1;
    }
    for credential in from.credentials(None).await? {
        into.credential(&credential).await?;
        copied.credentials += 1;
    }
    copied.invocations =
        pages(from, EVENTS, invocations::after, async |page| into.invocations(&page).await).await?;
    into.hang_up().await?;
    copied.receipts = pages(from, ROWS, receipts::after, async |page| into.receipts(&page).await).await?;
    copied.fences = pages(from, ROWS, receipts::fences_after, async |page| into.fences(&page).await).await?;
    for bulk in from.bulks().await? {
        into.bulk(&bulk).await?;
        copied.bulks += 1;
    }
    for (name, value) in from.reading(credentials::facts).await?.into_iter().filter(|(name, _)| name != NODE)
    {
        into.fact(&name, &value).await?;
        copied.facts += 1;
    }
    Ok(copied)
}

/// Reads rows after a number, each with its own, at most so many.
type Read<T> = fn(&Connection, i64, u32) -> rusqlite::Result<Vec<(i64, T)>>;

/// Hands all rows over, page by page, in the order of writing. How many there were.
async fn pages<T: Send + 'static>(
    from: &Embedded,
    rows: u32,
    read: Read<T>,
    each: impl AsyncFn(Vec<T>) -> Result<(), StoreError>,
) -> Result<u64, StoreError> {
    let (mut after, mut count) = (i64::MIN, 0);
    loop {
        let page = from.reading(move |db| read(db, after, rows)).await?;
        let Some((last, _)) = page.last() else { return Ok(count) };
        (after, count) = (*last, count + page.len() as u64);
        each(page.into_iter().map(|(_, row)| row).collect()).await?;
    }
}
