//! In the place of `otlp` in a binary without that feature: nothing is collected. A setting that asks for it was refused
//! before.

use supervisor::{Handle, Spans};

use crate::settings::NodeSettings;

/// There is none.
pub(crate) enum Exporter {}

/// Nor does it do anything.
pub(crate) enum Exporting {}

impl Exporter {
    pub(crate) fn of(_: &NodeSettings, _: &str) -> anyhow::Result<Option<(Self, Spans)>> {
        Ok(None)
    }

    pub(crate) fn start(self, _: Handle) -> Exporting {
        match self {}
    }
}

impl Exporting {
    pub(crate) async fn ended(self) {
        match self {}
    }
}
