//! Process groups: the only place with PIDs and signals.
//!
//! An instance is one process group and, where a cgroup v2 hierarchy is writable, one cgroup leaf of
//! its own that it joins before anything of the runtime is executed. Its main process is known by
//! pidfd and stays unreaped until everything else is seen gone, so neither its pid nor its group
//! number can be reused while we might still signal them (I8). Facts and figures:
//! `ARCHITECTURE.md`, "Containment".

mod aside;
mod containment;
mod controllers;
mod ending;
mod exit;
mod forking;
mod handing;
mod helper_order;
mod helpers;
mod hierarchy;
mod inherited;
mod init;
mod kept;
mod leaf;
mod lease;
mod limits;
mod namespace;
mod network;
mod output;
mod own_folders;
mod pgid;
mod privileges;
mod process;
mod proof;
mod rounds;
mod running;
mod spawner;
mod start;
mod survivor;
mod sweep;
mod warden;
mod watch;

pub use containment::{Containment, GroupError, Isolation, Layer, Mechanism};
pub use controllers::LimitKind;
pub use exit::Exit;
pub use forking::{ForkError, Template};
pub use init::instance_init;
pub use lease::LeaseClock;
pub use limits::{Limits, OutOfMemory};
pub use network::{Network, Sockets};
pub use output::{Output, OutputRing};
pub use process::Member;
pub use proof::{NotProven, Phases, Proof, Step};
pub use running::Group;
pub use spawner::{HelperProgram, SpawnError, SpawnOrder, Spawner};
pub use survivor::{Survivor, SurvivorCause};
pub use sweep::Swept;
