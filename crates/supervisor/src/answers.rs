//! What is wrong with an answer to a cancel, in the API's codes: the same for one and for many.

use crate::handle::CancelAnswer;

impl CancelAnswer {
    /// The error code of an answer that is none of success, and why; `None` of one that is.
    pub fn refusal(&self) -> Option<(&'static str, String)> {
        Some(match self {
            Self::Done { .. } => return None,
            Self::Finished(status) => ("FSS.0400", format!("Invalid RequestId: {status}")),
            Self::Unknown | Self::Elsewhere => ("FSS.0400", "Invalid RequestId".to_owned()),
            Self::Unkillable { detail, .. } => {
                ("FSS.0500", format!("fenced, but not everything could be killed: {detail}"))
            }
            Self::NotRecorded { detail, .. } => {
                ("FSS.0500", format!("stopped, but it could not be recorded: {detail}"))
            }
            Self::TooManyAskers => {
                ("FSS.0429", "too many callers wait for this cancel; it goes on".to_owned())
            }
            Self::Gone => ("FSS.0503", "the node is ending, or its store failed".to_owned()),
        })
    }
}
