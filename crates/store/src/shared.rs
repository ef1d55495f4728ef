//! What several nodes share beyond [`Store`]: who is alive, who owns what, and cancels that reach over nodes.
//!
//! # The rules
//!
//! The simulation in `crates/cluster/tests` keeps to them, and shows for most what happens without.
//!
//! - A node is a row with an **epoch** and an end of its **lease**, by the database's clock. It renews the lease
//!   ([`Shared::renew`]); whoever finds it over takes the node's work away ([`Shared::take_over`]), in the
//!   transaction that raises the epoch. Every write of a node is in a transaction that holds its row with its epoch
//!   (`FOR KEY SHARE`): after a takeover every one of them fails with [`StoreError::Lapsed`], and none is half done.
//!   A node that left in order is the same: nothing of that life is written any more.
//! - A node is *live* to the others while it drains as well: it is asked around, and taken over when its lease ends.
//! - A request that is not over has one **owner**, or none: then it waits in the shared queue and any node may
//!   [`Shared::claim`] it. Only its owner changes it, but for a fence. Within one life a node's writes are carried out in the order in which
//!   they were made, each by one connection after the last one's fate is known: so none of them can meet a request that the node
//!   gave back and has for the second time. (The simulation has a version for each change of owner instead.)
//! - A name is one node's. Who joins says where its data folder is (the machine since its start, the file of its lock), and does
//!   not take the name from a node elsewhere that holds its lease. An older life of the same place is over: its lock is held.
//! - A function may ask for labels of its node. A claim of a node takes nothing of a function that asks for one which that node's row
//!   does not have; what a node got otherwise (it accepted it, or the function changed) and may not run it gives back.
//! - An answer that is lost says nothing. A repeated write is told the same as the first: a release says what is *still*
//!   the node's, not what went just now. A claim or an accept that nobody heard of leaves requests with a node that does not
//!   know them: the node looks through what it owns from time to time, and takes up what it did not know at two looks in a row.
//! - A **fence** over a tree is one transaction that holds the lock of the tree's root alone; who accepts a request below
//!   another holds the same lock together with others, and looks whether anything above is fenced: so no child is
//!   accepted behind a fence, on any node ([`StoreError::Banned`]). *Anything above*: what the child names, and on from there
//!   by what the store has, through requests that are over too. A fence of one request bans its own children alone.
//!   What its owner settles after a fence of another node is written as cancelled, and hands nothing on: the order of the
//!   two commits decides, and nobody's memory.
//! - The store does not know synchronous requests. A fence over one ([`Shared::ask_around`]) bans its id within the asker's
//!   project and fences what the store has below it, in the transaction that asks the nodes: it may be over, and its children
//!   elsewhere, before its node hears of it. A request that is over may have synchronous ones
//!   below it that still run, which its node alone knows: a cancel of its tree asks every node as well. (The simulation keeps such
//!   a **tail** in the store instead.)
//! - What a fence found on a node is a **part** of the cancel for that node, as a row, one for each request and node: a
//!   notification only wakes, the row is read again at every heartbeat. A node that does not hold the request bans it for itself
//!   *before* it says so, as the answer to its claim may be on the way; and its report settles the request. Who leaves closes
//!   its open parts: nobody takes over a node that left.

use cancel::{CancelId, Level, RequestId, Scope};
use tokio::sync::broadcast;

use crate::{
    BulkRecord, FunctionFilter, FunctionKey, InvocationRecord, Labels, NodeLabels, ReceiptRecord, Status,
    Store, StoreFuture,
};

/// A node as it introduces itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joining {
    /// Where others and operators reach its API.
    pub endpoint: String,
    /// The program's version.
    pub version: String,
    /// How long its lease is from each renewal on, in milliseconds.
    pub lease_ms: u32,
    /// What functions may ask of their nodes, and it has.
    pub labels: NodeLabels,
}

/// Another node that has this one's name: one of the two data folders is a copy, or this one's machine was started anew
/// within a lease.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "another node with this node's name is alive at {endpoint}, or was {left_ms} ms before its lease is over"
)]
pub struct Namesake {
    /// Where its API is.
    pub endpoint: String,
    /// How long its lease still is, in milliseconds.
    pub left_ms: i64,
    /// When its lease ends, by the database's clock, in microseconds since the Unix epoch. Later than at the last look: it
    /// was renewed meanwhile, so that node lives.
    pub until_us: i64,
}

/// How a node stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeState {
    /// It holds its lease, or nobody has found it over yet.
    Live,
    /// It takes nothing new, and ends with what it runs.
    Draining,
    /// Its lease ran out, and its work was taken away.
    Fenced,
    /// It ended in order.
    Left,
}

/// A node as the others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRow {
    /// Its name: 32 hexadecimal digits, made once in its data folder.
    pub node: String,
    /// Rises with each of its lives, and when it is fenced.
    pub epoch: i64,
    /// How it stands.
    pub state: NodeState,
    /// Where its API is.
    pub endpoint: String,
    /// The program's version.
    pub version: String,
    /// How long its lease still is by the database's clock, in milliseconds; negative: over.
    pub lease_left_ms: i64,
    /// How long its lease is from each renewal on, in milliseconds. All nodes should have the same.
    pub lease_ms: u32,
    /// Requests that it owns and that are not over.
    pub owns: u64,
    /// When it joined.
    pub joined_ms: i64,
    /// What functions may ask of their nodes, and it has.
    pub labels: NodeLabels,
}

/// What a renewal found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beat {
    /// Other live nodes whose lease is over: their work can be taken over.
    pub lapsed: Vec<String>,
    /// Parts of cancels that this node has not reported as done: the oldest, at most 1,024.
    pub parts: Vec<Part>,
    /// Whether requests wait in the shared queue that could run now.
    pub waiting: bool,
    /// Whether receipts are open of nodes that are gone: they can be [adopted](Shared::adopt).
    pub orphans: bool,
    /// Bulk cancels of this node, by project and key, that were called off on another one and that it has not ended since.
    pub called_off: Vec<(String, String)>,
    /// Whether there is something to do of a bulk cancel whose node is gone.
    pub abandoned: bool,
    /// Rises with every change of functions, aliases or asynchronous configurations by any node.
    pub functions: i64,
    /// Rises with every change of credentials by any node.
    pub credentials: i64,
}

/// What a node would run now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// At most so many.
    pub limit: u32,
    /// Of each version of a function at most so many.
    pub each: u32,
    /// None of these: the node cannot run them, or has enough of them waiting.
    pub not: Vec<FunctionKey>,
}

/// Which requests that are not over, and that the asking node does not own; every given field narrows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ElsewhereQuery {
    /// Of this project.
    pub project: String,
    /// Of this function.
    pub function: Option<FunctionFilter>,
    /// Accepted before this moment, by the clock of whoever accepted it, in milliseconds since the Unix epoch.
    pub created_before_ms: Option<i64>,
    /// Those that a runtime holds, or those that wait.
    pub running: Option<bool>,
    /// Of those that a runtime holds only what was handed to it before this moment.
    pub started_before_ms: Option<i64>,
    /// Made by this request.
    pub parent: Option<RequestId>,
    /// With all of these.
    pub labels: Labels,
    /// Behind this [place](Elsewhere::place).
    pub after: u64,
    /// Rows to return at most.
    pub limit: u32,
}

/// A request that another node owns, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    /// As it is kept, without its payload.
    pub row: InvocationRecord,
    /// Whose it is; `None`: it waits in the shared queue.
    pub owner: Option<String>,
    /// Its place in the order of acceptance over all nodes.
    pub place: u64,
}

/// Some of them, in the order of acceptance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ElsewherePage {
    /// The rows.
    pub rows: Vec<Elsewhere>,
    /// How many match in all, wherever the page begins.
    pub total: u64,
}

/// A bulk cancel, and whose it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedBulk {
    /// As it is kept.
    pub record: BulkRecord,
    /// The node that carries it out, or did.
    pub node: String,
}

/// A cancel that is asked for on a node that does not hold its target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    /// The new cancel's id.
    pub cancel: CancelId,
    /// What is to be stopped.
    pub target: RequestId,
    /// The function it must be of.
    pub function: FunctionFilter,
    /// How wide.
    pub scope: Scope,
    /// How hard.
    pub level: Level,
    /// The receipt so far, JSON.
    pub body: String,
    /// Who asks and why, JSON, handed to the owners as it is.
    pub actor: String,
    /// When.
    pub now_ms: i64,
}

/// What came of a [`Fence`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fenced {
    /// No such request of this function is in the store. It may be a synchronous one of a node
    /// ([`Shared::ask_around`]).
    Unknown,
    /// It is over, and was not cancelled; nothing below it that was to be stopped is left.
    Finished(Status),
    /// It is over, and this cancel had stopped it.
    Canceled(CancelId),
    /// It is fenced, durably. What was in the shared queue is settled: these.
    Stopping {
        /// Requests that were settled by the fence itself, as no node had them.
        settled: Vec<(RequestId, FunctionKey)>,
        /// What is left to nodes.
        parts: Vec<Part>,
    },
}

/// What a cancel wants of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its own number.
    pub part: i64,
    /// The cancel it is a part of.
    pub cancel: CancelId,
    /// Whose part it is, and in which epoch the request was owned.
    pub node: String,
    /// The epoch of the owner when the fence fell.
    pub epoch: i64,
    /// The request on that node.
    pub request: RequestId,
    /// Its function; `None` where the node is only asked whether it has the request.
    pub function: Option<FunctionKey>,
    /// The project of whoever asks.
    pub project: String,
    /// How wide.
    pub scope: Scope,
    /// How hard.
    pub level: Level,
    /// Who asks and why, JSON.
    pub actor: String,
    /// What became of it.
    pub state: PartState,
    /// The evidence or the reason, in words or JSON of the supervisor crate.
    pub detail: String,
}

/// What became of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PartState {
    /// Not reported yet.
    Open,
    /// Proven: nothing of it runs.
    Stopped,
    /// Settled and fenced; code may still run on a draining instance.
    Draining,
    /// It could not be killed within the limit.
    Unkillable,
    /// It had ended by itself.
    Finished,
    /// The node does not hold the request.
    NotHere,
    /// The node is fenced and its lease over; it stops what it runs within its lease, or is dead.
    NodeLost,
}

impl PartState {
    /// Whether nothing of it runs any more.
    pub fn is_stopped(self) -> bool {
        matches!(self, Self::Stopped | Self::Finished | Self::NotHere | Self::NodeLost)
    }
}

/// What reaches a node between its heartbeats. Only a hint: everything it is about is in rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// There are parts for this node.
    Parts,
    /// A part of this cancel was reported.
    Reported(CancelId),
    /// Requests came into the shared queue.
    Queue,
    /// Functions, aliases or asynchronous configurations changed.
    Functions,
    /// Credentials changed.
    Credentials,
    /// A bulk cancel of this node was called off on another one.
    Bulks,
    /// The connection was lost and is back: whatever was told meanwhile was missed.
    Again,
}

/// A store that several nodes share. This one speaks for one node.
pub trait Shared: Store {
    /// The name this store speaks for.
    fn node(&self) -> String;
    /// Begins a life of this node: raises its epoch (an older life that still writes gets
    /// [`StoreError::Lapsed`](crate::StoreError::Lapsed) from then on) and takes its lease. Requests that
    /// an older life owned, and that nobody took over, are still this node's. Resolves with the epoch.
    ///
    /// [`StoreError::Namesake`](crate::StoreError::Namesake) while a node of this name holds its lease that is not an older life
    /// of this one: its data folder is another, or it was on a machine that has been started since. (An older life of the
    /// same folder is over, as its lock is ours.)
    fn join(&self, joining: Joining) -> StoreFuture<i64>;
    /// Whoever keeps this node from joining with this endpoint, if anybody does.
    fn namesake(&self, endpoint: String) -> StoreFuture<Option<Namesake>>;
    /// Extends the lease. [`StoreError::Lapsed`](crate::StoreError::Lapsed) if it was taken away.
    fn renew(&self) -> StoreFuture<Beat>;
    /// Says that this node takes nothing new.
    fn drain(&self) -> StoreFuture<()>;
    /// Ends this life in order: what it owns and has not run goes back into the shared queue, whatever still
    /// counts as running as well (it must be proven gone by now); what is fenced is settled as cancelled, and its open
    /// parts are closed. Resolves with how many went back.
    fn leave(&self) -> StoreFuture<u64>;
    /// Takes requests out of the shared queue, in the order of acceptance within each function, fair between functions;
    /// without payloads. None of a fenced one, and none of a function that asks for labels which this node does not have.
    fn claim(&self, claim: Claim) -> StoreFuture<Vec<InvocationRecord>>;
    /// Gives requests of this node that never ran in its hands back into the shared queue. Those that are fenced
    /// stay; resolves with those that are no longer this node's, whether they went now or by an earlier call whose
    /// answer was lost: of what is not named here it is still the owner.
    fn release(&self, requests: Vec<RequestId>) -> StoreFuture<Vec<RequestId>>;
    /// Fences a request and what is in scope with it, wherever it is, in one transaction.
    fn fence(&self, fence: Fence) -> StoreFuture<Fenced>;
    /// Makes a part for every other live node: whoever holds this request (a synchronous one, which the store does
    /// not know) stops it. Resolves with the parts.
    fn ask_around(&self, fence: Fence) -> StoreFuture<Vec<Part>>;
    /// Parts of this node that are open: the oldest, at most 1,024.
    fn parts(&self) -> StoreFuture<Vec<Part>>;
    /// The parts that a cancel waits for: its own, and those of others over the same requests.
    fn parts_of(&self, cancel: CancelId) -> StoreFuture<Vec<Part>>;
    /// Whether the fence of this cancel is over all that hangs below the request, on every node.
    fn reaches(&self, cancel: CancelId, request: RequestId) -> StoreFuture<bool>;
    /// Says what became of a part of this node.
    fn report(&self, part: i64, state: PartState, detail: String) -> StoreFuture<()>;
    /// Takes the work of this node away if its lease is over: raises its epoch, puts what it owned back into the
    /// shared queue (what was fenced is settled as cancelled instead), and marks its open parts as
    /// [`PartState::NodeLost`]. False if its lease is not over, or another node was first.
    fn take_over(&self, node: String) -> StoreFuture<bool>;
    /// Takes open receipts of nodes that left or were taken over, the oldest first and at most so many: from then on they are as
    /// if this node had opened them, and a next life of that node has none of them. Whoever adopts them closes them.
    fn adopt(&self, limit: u32) -> StoreFuture<Vec<ReceiptRecord>>;
    /// The bulk cancel of this key, whichever node began it.
    fn bulk(&self, project: String, key: String) -> StoreFuture<Option<SharedBulk>>;
    /// Bulk cancels of a project, of all nodes: the newest first, at most `limit`.
    fn bulks_of(&self, project: String, limit: u32) -> StoreFuture<Vec<SharedBulk>>;
    /// Keeps how a bulk cancel of this node stands, for whoever asks another one. Nothing if it is over or called off.
    fn note_bulk(&self, project: String, key: String, body: String) -> StoreFuture<()>;
    /// Calls a bulk cancel off, whose it may be: from then on nobody takes it up, and its node stops when it hears of it
    /// ([`Beat::called_off`]). False if nothing was left to do of it, or there is none.
    fn call_off_bulk(&self, project: String, key: String, body: String) -> StoreFuture<bool>;
    /// Makes bulk cancels this node's whose own nodes left or are fenced, and of which there is something to do: these.
    fn adopt_bulks(&self) -> StoreFuture<Vec<BulkRecord>>;
    /// Functions that have requests in the shared queue and ask for labels which no live node has: the first of them, at
    /// most `limit`.
    fn unplaceable(&self, limit: u32) -> StoreFuture<Vec<(FunctionKey, NodeLabels)>>;
    /// All nodes there are, by name.
    fn nodes(&self) -> StoreFuture<Vec<NodeRow>>;
    /// A subtree as the store knows it: the request and those below it that are not over, with their owners.
    fn below(&self, request: RequestId, limit: u32) -> StoreFuture<Vec<(InvocationRecord, Option<String>)>>;
    /// Requests that are not over and that this node does not own: other nodes' and those in the shared queue.
    fn select(&self, query: ElsewhereQuery) -> StoreFuture<ElsewherePage>;
    /// What other nodes did, from now on. Whoever lags may miss some: as if a connection was lost.
    fn news(&self) -> broadcast::Receiver<News>;
}
