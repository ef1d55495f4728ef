//! stub
use std::time::Duration;
#[derive(Clone)]
pub struct LeaseClock;
impl LeaseClock {
    pub fn run_until(&self, _: Duration) {}
    pub fn boottime_now() -> Duration { Duration::ZERO }
}
