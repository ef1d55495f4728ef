//! The cancellation-latency harness: every figure beside its floor, measured in the same run.

fn main() {}
