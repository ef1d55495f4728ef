//! Process groups: the only place with PIDs and signals.
//!
//! An instance is one process group and, where a cgroup v2 hierarchy is writable, one cgroup leaf of
//! its own that it joins before anything of the runtime is executed. Its main process is known by
//! pidfd and stays unreaped until everything else is seen gone, so neither its pid nor its group
//! number can be reused while we might still signal them (I8). Facts and figures:
//! `ARCHITECTURE.md`, "Containment".

mod containment;
mod ending;
mod exit;
mod init;
mod leaf;
mod output;
mod pgid;
mod process;
mod spawner;
mod watch;

pub use containment::{Containment, GroupError, Isolation, Layer, Mechanism, Swept};
pub use ending::{NotProven, Proof, Step};
pub use exit::Exit;
pub use init::instance_init;
pub use output::{Output, OutputRing};
pub use process::{Member, Survivor};
pub use spawner::{Group, HelperProgram, SpawnError, SpawnOrder, Spawner};
