//! `quell doctor`.

use std::{path::Path, process::ExitCode};

use anyhow::Context as _;
use serde_json::json;
use supervisor::group::{Containment, Isolation};

use crate::{
    args::Output,
    images, output,
    runtime_user::{self, RuntimeUser},
    serve,
};

/// Probes containment the way `serve` does and says what it found.
pub(crate) fn doctor(data: &Path, how: Output) -> anyhow::Result<ExitCode> {
    // The folder may not be there yet; then what is above it must be passed through all the same.
    let there = data.ancestors().find_map(|folder| match folder.as_os_str().is_empty() {
        true => std::env::current_dir().ok(),
        false => folder.canonicalize().ok(),
    });
    let images = images::described(Path::new(""))?;
    let chosen = runtime_user::choose(RuntimeUser::Auto, there.as_deref(), &images, serve::helper)?;
    let containment = Containment::probe("doctor", Isolation::Auto, &serve::helper(chosen.user))?;
    if how == Output::Json {
        let layers = containment.layers().iter().map(|layer| {
            json!({ "id": layer.id, "name": layer.name, "active": layer.active, "detail": layer.detail })
        });
        let limits = containment.limits();
        let limits = limits
            .iter()
            .map(|limit| json!({ "name": limit.name, "active": limit.active, "detail": limit.detail }));
        output::line(json!({
            "layers": layers.collect::<Vec<_>>(),
            "limits": limits.collect::<Vec<_>>(),
            "runtime_user": chosen.to_string(),
            "cannot_fork": containment.cannot_fork(),
        }));
        containment.close().context("the probe's cgroup stays behind")?;
        return Ok(ExitCode::SUCCESS);
    }
    for layer in containment.layers() {
        output::line(layer);
    }
    output::line(&chosen);
    for limit in containment.limits() {
        output::line(limit);
    }
    output::line(match containment.cannot_fork() {
        None => "fork servers (possible): for functions that ask for one; each row and receipt names what a forked \
                 instance has"
            .to_owned(),
        Some(why) => format!("fork servers (not possible): {why}; such functions are executed"),
    });
    containment.close().context("the probe's cgroup stays behind")?;
    Ok(ExitCode::SUCCESS)
}
