//! What is said of an end: proven and how, or not and why.

use std::{fmt, time::Duration};

use super::{
    containment::{ForkedInto, Mechanism},
    exit::Exit,
    init::HelperMode,
    survivor::Survivor,
};

/// One thing that was proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The main process' exit status was collected.
    ExitCollected,
    /// The kernel said that nothing alive is in the leaf.
    Populated0,
    /// The leaf could be removed, which it cannot while anything is in it.
    LeafRemoved,
    /// A whole pass over the processes found no living member of the group.
    GroupEmpty,
    /// PID 1 of the namespace was seen dead: everything ever born in there is.
    NamespaceEnded,
    /// The reaper has no child left, and it inherits whatever the dead leave: there is no descendant.
    NoDescendants,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ExitCollected => "exit_collected",
            Self::Populated0 => "populated_0",
            Self::LeafRemoved => "leaf_removed",
            Self::GroupEmpty => "group_empty",
            Self::NamespaceEnded => "namespace_ended",
            Self::NoDescendants => "no_descendants",
        })
    }
}

/// When the parts of an end were over, counted from its first strike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Phases {
    /// The main process was seen to have ended.
    pub main_exited: Duration,
    /// Nothing else was alive.
    pub emptied: Duration,
}

/// Nothing of an instance is left, and this is how that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// What contained it.
    pub mechanism: Mechanism,
    /// How its main process ended.
    pub exit: Exit,
    /// Processes beside the main one that the end found alive. Without a leaf these are only the ones
    /// that were still dying after the first strike.
    pub others: u32,
    /// What was proven, in order.
    pub steps: Vec<Step>,
    /// What this kind of containment cannot see.
    pub cannot_see: Vec<&'static str>,
    /// When its parts were over.
    pub phases: Phases,
    /// From the first strike to the proof, failed tries included.
    pub took: Duration,
}

impl Mechanism {
    /// What runs on this mechanism may have left unseen.
    pub(super) fn cannot_see(self) -> &'static [&'static str] {
        const BY_ITS_TEMPLATE: &str =
            "what its fork server does on its behalf (code of the same version, ended with the version)";
        if self.forked == Some(ForkedInto::Own) {
            return &["processes that a daemon outside started on its behalf", BY_ITS_TEMPLATE];
        }
        if self.forked.is_some() {
            return &[
                "processes that a daemon outside started on its behalf",
                BY_ITS_TEMPLATE,
                "processes that moved themselves to another cgroup (root can, and whom it was delegated to)",
            ];
        }
        match (self.helper, self.leaf) {
            (HelperMode::Exec, false) => &["processes that left the process group (setsid, setpgid)"],
            // The strike at the leaf ends the reaper in it, before it has ended what left the leaf.
            (HelperMode::Exec | HelperMode::Reaper, true) => &[
                "processes that a daemon outside started on its behalf",
                "processes that moved themselves to another cgroup (root can, and whom it was delegated to)",
            ],
            (HelperMode::Reaper, false) => &[
                "processes that a daemon outside started on its behalf",
                "processes that entered a namespace of somebody else's (setns)",
            ],
            _ => &["processes that a daemon outside started on its behalf"],
        }
    }
}

/// Something of an instance may be left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NotProven {
    /// Who lives, as far as can be seen; bounded.
    pub survivors: Vec<Survivor>,
    /// What went wrong besides, in words.
    pub trouble: Option<String>,
}

impl fmt::Display for NotProven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts: Vec<String> = self.survivors.iter().map(ToString::to_string).collect();
        parts.extend(self.trouble.clone());
        if parts.is_empty() {
            parts.push("it was not seen empty in time".to_owned());
        }
        f.write_str(&parts.join("; "))
    }
}
