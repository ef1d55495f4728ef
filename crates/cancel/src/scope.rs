//! How wide, how hard and why a cancel is.

/// How wide. `Request < Subtree`, and a running cancel only ever widens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// The one request that was named.
    Request,
    /// It and everything below it, the unborn included.
    Subtree,
}

/// How hard. `Ask < Kill`; the level of a request and of a cancel only ever rises (I3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// The runtime is told, and has its grace.
    Ask,
    /// The instance dies now.
    Kill,
}

/// Why. A request keeps the cause of its first fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Somebody asked.
    Asked,
    /// The function's own time limit passed: the outcome is 4010 instead of 4208.
    Deadline,
    /// The synchronous caller went away, and the function asked for that to count.
    Disconnect,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn harder_and_wider_compare_as_greater() {
        assert!(Level::Ask < Level::Kill);
        assert!(Scope::Request < Scope::Subtree);
    }
}
