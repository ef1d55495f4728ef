//! Faults that are planted to see that they are found.

/// One rule of the protocol that is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A child is accepted without a look at the bans above it.
    NoBanCheck,
    /// Only the ids that a child names are looked at, not what is above those in the store.
    ShallowBanCheck,
    /// The database takes writes of lives that are over.
    NoEpochCheck,
    /// A settle, or a release, need not name the version it is about.
    NoVersionCheck,
    /// A node's things run until the very end of its lease, as it counts it.
    NoLeaseMargin,
    /// Parts are read when a notification says so, and not at a heartbeat.
    NoHeartbeatReread,
    /// A fence leaves what is in the shared queue there, and a claim takes it.
    ClaimIgnoresFence,
    /// Work is taken away before the lease is over.
    TakeOverEarly,
    /// 200 as soon as the fence stands.
    AnswerBeforeParts,
    /// A node joins and claims again before its kill is proven.
    RejoinBeforeProof,
    /// A claim or an accept whose answer was lost is not asked after.
    NoReadOfOwned,
    /// A node that does not hold a request says so and forgets that it was asked.
    NoBanOnNotHere,
    /// Synchronous requests below one that is over are not looked for.
    NoTail,
    /// Who leaves in order leaves its parts open.
    LeaveForgetsParts,
    /// A request that the store does not know is not banned when every node is asked for it.
    NoBanOnUnknown,
    /// A release is answered by what went just now, and not by what is still the node's.
    ReleaseSaysWhatWent,
    /// What hangs below a request that the store does not know is not looked for in the store.
    NoWalkBelowUnknown,
}

impl Fault {
    pub(crate) const ALL: [Self; 17] = [
        Self::NoBanCheck,
        Self::ShallowBanCheck,
        Self::NoEpochCheck,
        Self::NoVersionCheck,
        Self::NoLeaseMargin,
        Self::NoHeartbeatReread,
        Self::ClaimIgnoresFence,
        Self::TakeOverEarly,
        Self::AnswerBeforeParts,
        Self::RejoinBeforeProof,
        Self::NoReadOfOwned,
        Self::NoBanOnNotHere,
        Self::NoTail,
        Self::LeaveForgetsParts,
        Self::NoBanOnUnknown,
        Self::ReleaseSaysWhatWent,
        Self::NoWalkBelowUnknown,
    ];
}
