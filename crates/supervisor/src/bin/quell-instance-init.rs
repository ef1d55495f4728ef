//! The helper alone, for this crate's tests. A node runs the same function from its own binary under a
//! hidden argument.

use std::process::ExitCode;

fn main() -> ExitCode {
    supervisor::group::instance_init(std::env::args_os().skip(1))
}
