//! Processes of an instance that serve one request each, and end before it.

use std::net::Ipv4Addr;

use bytes::Bytes;
use cancel::{Attempt, Event, RequestId};

use crate::{
    message::{Report, ReportKind},
    shell::Shell,
};

/// What became of the request of such a process: tried again as after a crash of the whole.
const ENDED: &[u8] =
    br#"{"errorType":"RuntimeExited","errorMessage":"the process that served it ended without an answer"}"#;

impl Shell {
    /// A process of the instance is gone. Its request fails at once. Nobody replaces it inside, so the instance takes
    /// nothing new, and ends when the others have answered.
    pub(crate) fn worker_gone(&mut self, at: Ipv4Addr, serves: Option<(RequestId, Attempt)>) {
        let Some(id) = self.at(at) else { return };
        let Some(instance) = self.instances.get(&id) else { return };
        if instance.ending {
            return; // that is what ends its processes
        }
        tracing::info!(instance = %id, "a process of it is gone: it takes nothing new");
        if let Some((request, attempt)) =
            serves.filter(|(request, attempt)| instance.holds(*request, *attempt))
        {
            let body = Bytes::from_static(ENDED);
            let report = Report { request, attempt: Some(attempt), body, kind: ReportKind::BrokenOff };
            self.reported(at, report);
        }
        self.tell(Event::RetireAsked(id));
    }
}
