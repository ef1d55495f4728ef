//! Durable functions, invocations, receipts and credentials behind one trait.
//!
//! The trait is [`Store`]; the embedded form is [`Embedded`], one SQLite file in a data folder. What several nodes share is
//! [`Shared`], and its form is [`Postgres`]; [`copy`] takes the content of the first into the second. This
//! crate depends on nothing of Quell but the plain ids of `cancel`, and knows nothing of HTTP or
//! processes: what a function's configuration or a receipt's body says is text to it.
//!
//! # What is promised
//!
//! By the embedded form; where the other one differs, [`Postgres`] says so.
//!
//! - A write that resolved with `Ok` is on the disk: neither SIGKILL nor power loss takes it back, as
//!   far as the disk keeps what it was synced. SQLite runs in WAL mode with `synchronous=FULL`; the
//!   folder itself is synced when it or a file is made.
//! - Writes take effect in the order of the calls, whether or not anybody waits for them. A dropped
//!   future loses its answer, never its write.
//! - One commit serves all writes that wait (up to a bound). Each runs in a savepoint of its own: one
//!   that fails ([`StoreError::Exists`]) leaves nothing behind and takes no other with it. If the commit
//!   itself fails, or the disk is full, every write of the group gets [`StoreError::Unwritable`], and
//!   the next group is tried anew.
//! - A write that failed left nothing that a reader of this process sees. There is one gap, which no
//!   store has closed: if the sync of a commit failed and the power went too, the log may hold that
//!   commit. What was answered with an error may then be there, never the other way round.
//! - Nothing waits without bound: over 4,096 writes (1,024 of them kept for what is running already:
//!   new requests and functions cannot crowd out cancels and settlements), 128 MiB of events and code,
//!   or 1,024 reads, the caller gets [`StoreError::Busy`].
//! - One process has a folder, by an exclusive lock that its writer holds until the last write is done.
//! - A database that is damaged, newer than the program or another program's is refused, unchanged.
//!
//! # Files of the embedded form
//!
//! `quell.db`, beside it SQLite's `-wal` and `-shm` while open, and `lock`, in a folder of mode 0700,
//! each of mode 0600. A copy is made by [`Store::backup`] while the store works on; it is a `quell.db` by itself.
//!
//! # Tables of the embedded form
//!
//! | table | key | else | looked up by |
//! |---|---|---|---|
//! | `functions` | project, package, name, version | revision, configuration, digest and size of the code, times | key; code digest |
//! | `aliases` | project, package, name, alias | version, another with its share, description, times | key |
//! | `async_configs` | project, package, name, version | the configuration, times | key |
//! | `code` | digest | the package's bytes; gone with the last function that names it | digest |
//! | `invocations` | request | `seq` (order of acceptance), function and version, alias, parent, payload, labels, status, error, attempts, times, `fenced_by` | request; function and time; not settled, by `seq`; end |
//! | `receipts` | cancel | `seq`, target, function and version, body, time | cancel; function and time; project and time; time |
//! | `bulks` | project, key | `seq`, body, the requests that are not done | key |
//! | `fences` | request, cancel | `seq` (the first counts) | request; cancel |
//! | `credentials` | key id | hash of the secret, project, note, scopes, login and hash of its password, times, generation | key id; login |
//! | `facts` | name | text | name |
//!
//! Ids are blobs of 16 bytes, big-endian, so that `hex(request)` is the id without its dashes. Times are
//! milliseconds since the Unix epoch. Status: 0 WAIT, 1 RUNNING, 2 SUCCESS, 3 FAIL, 4 DISCARD.
//! `PRAGMA user_version` is the version of the tables, `application_id` says that they are Quell's.
//!
//! # Tables in PostgreSQL
//!
//! The same, with ids as UUIDs, and:
//!
//! | table | key | else |
//! |---|---|---|
//! | `quell_schema` | | the version of the tables, and the oldest program that works with them |
//! | `nodes` | node | epoch, state, lease by the server's clock, endpoint, version, labels |
//! | `functions` | | also the labels that its node must have |
//! | `groups` | node | the number of the node's last transaction |
//! | `changes` | `functions`, `credentials` | how often they changed |
//! | `invocations` | | also the owner (none: it waits in the shared queue) and the root of its tree |
//! | `above` | request, above | what a request hangs below, up to the next asynchronous one |
//! | `fences` | | also whether it is over all below |
//! | `receipts`, `bulks` | | also the node whose they are; of a bulk cancel, that it was called off on another one |
//! | `parts` | part | what a cancel wants of which node, and what became of it |
//! | `waits` | cancel, part | parts of other cancels that a cancel waits for |

mod aliases;
mod async_configs;
mod backup;
mod bulks;
mod credentials;
mod embedded;
mod fault;
mod folder;
mod functions;
mod invocations;
mod label;
mod labels;
mod migrate;
mod node_labels;
mod postgres;
mod reader;
mod receipts;
mod record;
mod schema;
mod shared;
mod store;
mod writer;

pub use embedded::Embedded;
pub use label::{BadLabel, check_label};
pub use labels::Labels;
pub use migrate::{Copied, copy};
pub use node_labels::NodeLabels;
pub use postgres::Postgres;
pub use record::*;
pub use shared::{
    Beat, Claim, Elsewhere, ElsewherePage, ElsewhereQuery, Fence, Fenced, Joining, Namesake, News, NodeRow,
    NodeState, Part, PartState, Shared, SharedBulk,
};
pub use store::{Store, StoreError, StoreFuture, Told};
pub use writer::StoreMetrics;
