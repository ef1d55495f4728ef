//! W3C trace context: which trace a request belongs to, and below whose span.

use std::{fmt, sync::Arc};

use cancel::{Attempt, RequestId};

/// What is kept of `tracestate`: as much as the specification has everybody pass on.
const MAX_STATE: usize = 512;
const SAMPLED: u8 = 1;

/// A place in a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    trace: u128,
    /// The span above; 0 at the root of a trace.
    parent: u64,
    sampled: bool,
    /// Of those that collect the trace, passed on as it came.
    state: Option<Arc<str>>,
}

impl TraceContext {
    /// Reads the headers `traceparent` and `tracestate`. `None` if the first is none: then, as the specification says, it
    /// is as if it were not there.
    pub fn read(traceparent: &str, tracestate: &str) -> Option<Self> {
        let mut parts = traceparent.trim().split('-');
        let (version, trace) = (hex(parts.next()?, 2)?, hex(parts.next()?, 32)?);
        let (parent, flags) = (hex(parts.next()?, 16)?, hex(parts.next()?, 2)?);
        let more = parts.next().is_some();
        if version == 0xff || (version == 0 && more) || trace == 0 || parent == 0 {
            return None;
        }
        let printable = tracestate.bytes().all(|byte| (0x20..0x7f).contains(&byte));
        let state = Some(tracestate.trim())
            .filter(|state| printable && !state.is_empty() && state.len() <= MAX_STATE)
            .map(Arc::from);
        let parent = u64::try_from(parent).ok()?;
        Some(Self { trace, parent, sampled: flags & u128::from(SAMPLED) != 0, state })
    }

    /// The trace of a request that belongs to no other: its id is that of the request.
    pub(crate) fn of(request: RequestId, sampled: bool) -> Self {
        Self { trace: request.0, parent: 0, sampled, state: None }
    }

    /// The same trace, below this span.
    pub(crate) fn below(&self, span: u64) -> Self {
        Self { parent: span, ..self.clone() }
    }

    /// `tracestate`; empty if there is none.
    pub fn state(&self) -> &str {
        self.state.as_deref().unwrap_or_default()
    }

    pub(crate) fn trace(&self) -> u128 {
        self.trace
    }

    pub(crate) fn parent(&self) -> Option<u64> {
        Some(self.parent).filter(|parent| *parent != 0)
    }

    pub(crate) fn is_sampled(&self) -> bool {
        self.sampled
    }

    /// In the form that Lambda's clients know.
    pub(crate) fn xray(&self) -> String {
        let id = format!("{:032x}", self.trace);
        format!(
            "Root=1-{}-{};Parent={:016x};Sampled={}",
            &id[..8],
            &id[8..],
            self.parent,
            u8::from(self.sampled)
        )
    }
}

/// `traceparent`.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.parent, u8::from(self.sampled))
    }
}

/// The span of a request as a whole. From its id, so that nobody has to remember it.
pub(crate) fn span_of(request: RequestId) -> u64 {
    ((request.0 >> 64) as u64).max(1)
}

/// The span of one attempt of it: what its function begins is below that.
pub(crate) fn attempt_span(request: RequestId, attempt: Attempt) -> u64 {
    #[expect(clippy::cast_possible_truncation, reason = "the lower half of it")]
    let lower = request.0 as u64;
    lower.wrapping_add(u64::from(attempt.0)).max(1)
}

/// So many lower-case hexadecimal digits.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let fine = text.len() == digits
        && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if fine { u128::from_str_radix(text, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn what_is_a_traceparent_is_passed_on_as_it_came() {
        let read = TraceContext::read(PARENT, "a=1,b=2").unwrap();
        assert_eq!((read.to_string().as_str(), read.state(), read.is_sampled()), (PARENT, "a=1,b=2", true));
        assert_eq!(read.below(7).to_string(), "00-0af7651916cd43dd8448eb211c80319c-0000000000000007-01");
        assert_eq!(read.xray(), "Root=1-0af76519-16cd43dd8448eb211c80319c;Parent=b7ad6b7169203331;Sampled=1");
        let later = PARENT.replacen("00", "cc", 1) + "-what-comes-later";
        assert_eq!(
            TraceContext::read(&later, ""),
            TraceContext::read(PARENT, ""),
            "a later version is read as this one"
        );
        let long = "x".repeat(MAX_STATE + 1);
        for state in ["", "a=\u{e4}", &long] {
            assert_eq!(TraceContext::read(PARENT, state).unwrap().state(), "", "{state}");
        }
    }

    #[test]
    fn what_is_none_is_as_if_it_were_not_there() {
        for wrong in [
            "",
            "00",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(TraceContext::read(wrong, "a=1"), None, "{wrong}");
        }
    }
}
