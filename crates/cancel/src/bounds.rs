//! What is bounded, and why (I10). Over a bound new work is refused; nothing old is lost.

/// The bounds of an engine. All are counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Longest chain of parents; a root has depth 0. Each settled request costs a walk up this chain.
    pub max_depth: u16,
    /// Live requests below one root, itself included: one runaway tree must not take the node.
    pub max_below_root: u32,
    /// Live requests in all; with [`Engine::BYTES_PER_REQUEST`](crate::Engine::BYTES_PER_REQUEST)
    /// this bounds the memory of the tree.
    pub max_live: u32,
    /// Settled requests that are remembered so that a late cancel is told how they ended: at most so many, and
    /// at least half of it. The oldest go first, half of them at once; the durable store knows the rest.
    pub max_tombstones: u32,
    /// Askers that wait for one cancel; a client that retries in a loop must not grow memory.
    pub max_askers: u32,
    /// Requests that a cancel fences, and acts upon, in one step; 0 counts as 1. The others wait for
    /// `Event::WalkOn`, and unrelated events come in between: at some 150 ns a request, and some
    /// microseconds of the shell for its effects, this keeps nobody waiting for longer than 2 ms.
    pub slice: u32,
    /// Cancels that are on their way through their scope at once, each with a list of what it fenced. One
    /// more than that goes its way in one step, however long: late is better than never.
    pub max_walks: u32,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            max_depth: 64,
            max_below_root: 100_000,
            max_live: 1_000_000,
            max_tombstones: 100_000,
            max_askers: 1_024,
            slice: 512,
            max_walks: 16,
        }
    }
}
