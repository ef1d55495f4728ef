//! SIGHUP: the configuration and the certificates are read again. What can change while a node runs changes, what
//! cannot is told, and a configuration with a mistake in it changes nothing.

use std::{path::PathBuf, sync::Arc};

use anyhow::Context as _;
use api::Api;
use supervisor::{Handle, http::Certificates};

use crate::{
    manager::Manager,
    output,
    serve::{rate_limits, tunable},
    settings::{Given, Loaded, NodeSettings, Reload, SETTINGS},
    signals::HangUps,
};

/// What of a node can be changed.
pub(crate) struct Changeable {
    pub(crate) handle: Handle,
    pub(crate) api: Arc<Api>,
    pub(crate) certificates: Option<Arc<Certificates>>,
}

/// The settings of a running node, and how they were given.
pub(crate) struct Reloads {
    given: Given,
    now: NodeSettings,
    /// The file that was read at the start.
    file: Option<PathBuf>,
    /// Where nothing could be read again the signal keeps its meaning: the terminal has gone, end.
    hang_ups: Option<HangUps>,
    manager: Manager,
}

impl Reloads {
    /// From here on SIGHUP does not end the process, if there is anything to read again.
    /// A service manager that sends it means it.
    pub(crate) fn listen(given: Given, loaded: Loaded, manager: Manager) -> anyhow::Result<Self> {
        let anything = loaded.file.is_some() || loaded.settings.tls_cert.is_some() || manager.is_there();
        let hang_ups = anything.then(HangUps::listen).transpose().context("no signals")?;
        Ok(Self { given, now: loaded.settings, file: loaded.file, hang_ups, manager })
    }

    /// The settings that hold now.
    pub(crate) fn settings(&self) -> &NodeSettings {
        &self.now
    }

    /// Follows the signal; never done. Cancellation-safe between two of them. `status`: what the manager is told
    /// of a node that serves.
    pub(crate) async fn follow(&mut self, node: &Changeable, status: &str) {
        loop {
            match &mut self.hang_ups {
                Some(hang_ups) => hang_ups.next().await,
                None => std::future::pending().await,
            }
            self.manager.reloading();
            self.reload(node).await;
            self.manager.ready(status);
        }
    }

    async fn reload(&mut self, node: &Changeable) {
        let given = self.given.clone();
        let loaded = match tokio::task::spawn_blocking(move || given.load()).await {
            Ok(Ok(loaded)) => loaded,
            Ok(Err(mistakes)) => {
                for mistake in mistakes.iter() {
                    tracing::error!(%mistake, "the configuration was not reloaded: nothing has changed");
                }
                return;
            }
            Err(error) => return tracing::error!(%error, "the configuration could not be looked at"),
        };
        // A file that was found without being named may be in the middle of being replaced: without it everything
        // would silently be the default.
        if let (Some(file), None) = (&self.file, &loaded.file) {
            let file = file.display().to_string();
            return tracing::error!(
                file,
                "the configuration was not reloaded: its file is gone, nothing has changed"
            );
        }
        let changes = self.take(&loaded.settings);
        node.handle.tune(tunable(&self.now)).await;
        node.api.limit(rate_limits(&self.now));
        output::change_filter(self.now.log.as_str());
        if let Some(certificates) = &node.certificates {
            certificates.reload().await;
        }
        tracing::info!(changes, "the configuration was reloaded");
    }

    /// Takes over what can change, says so, and says of the rest that it needs a restart. How many took effect.
    fn take(&mut self, new: &NodeSettings) -> usize {
        let mut changes = 0;
        for setting in SETTINGS {
            let shown = |of: &NodeSettings| setting.shown(of).unwrap_or_else(|| "none".to_owned());
            let (from, to) = (shown(&self.now), shown(new));
            if from == to {
                continue;
            }
            let key = setting.key;
            match setting.reload {
                Reload::Restart(why) => {
                    tracing::warn!(key, from, to, why, "needs a restart: stays what it was until then");
                }
                Reload::AtOnce | Reload::Next(_) => {
                    tracing::info!(key, from, to, "changed");
                    setting.copy(new, &mut self.now);
                    changes += 1;
                }
            }
        }
        changes
    }
}
