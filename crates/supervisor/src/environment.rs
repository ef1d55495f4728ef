//! The environment of a runtime, and the words of its command.

use std::{ffi::OsString, net::Ipv4Addr};

use cancel::InstanceId;

use crate::{settings::MAX_RESPONSE_BYTES, shell::Shell, spec::FunctionSpec};

impl Shell {
    /// The whole environment of a runtime: nothing is inherited but the path and the locale.
    pub(crate) fn environment(
        &self,
        id: InstanceId,
        address: Ipv4Addr,
        function: &FunctionSpec,
    ) -> Vec<(OsString, OsString)> {
        let mut env: Vec<(OsString, OsString)> = Vec::new();
        for inherited in ["PATH", "LANG", "LC_ALL", "TZ"] {
            if let Some(value) = std::env::var_os(inherited) {
                env.push((inherited.into(), value));
            }
        }
        let code = function.code_dir.to_string_lossy().into_owned();
        let own = [
            ("HOME", code.clone()),
            ("RUNTIME_API_ADDR", format!("{address}:{}", self.runtime_port)),
            ("RUNTIME_CODE_ROOT", code),
            ("RUNTIME_ROOT", function.image.dir.to_string_lossy().into_owned()),
            ("RUNTIME_PROJECT_ID", function.key.project.clone()),
            ("RUNTIME_PACKAGE", function.key.package.clone()),
            ("RUNTIME_FUNC_NAME", function.key.name.clone()),
            ("RUNTIME_FUNC_VERSION", function.key.version.clone()),
            ("RUNTIME_HANDLER", function.handler.clone()),
            ("RUNTIME_TIMEOUT", function.timeout.as_secs().to_string()),
            ("RUNTIME_USERDATA", function.user_data.clone()),
            ("RUNTIME_CPU", function.cpu_millis.to_string()),
            ("RUNTIME_MEMORY", function.memory_mb.to_string()),
            ("RUNTIME_MAX_RESP_BODY_SIZE", MAX_RESPONSE_BYTES.to_string()),
            ("QUELL_API_ENDPOINT", self.settings.api_endpoint.clone()),
            ("QUELL_CONCURRENCY", function.concurrency.to_string()),
            ("QUELL_FUNCTION_URN", function.urn.clone()),
            ("QUELL_INSTANCE_ID", id.to_string()),
        ];
        env.extend(own.map(|(name, value)| (name.into(), value.into())));
        if let Some(initializer) = &function.initializer {
            env.push(("RUNTIME_INITIALIZER_HANDLER".into(), initializer.into()));
            let limit = function.start_timeout.as_secs().to_string();
            env.push(("RUNTIME_INITIALIZER_TIMEOUT".into(), limit.into()));
        }
        if let Some(hook) = &function.pre_stop {
            env.push(("PRE_STOP_HANDLER".into(), hook.handler.clone().into()));
            env.push(("PRE_STOP_TIMEOUT".into(), hook.timeout.as_secs().to_string().into()));
        }
        let shared = (function.concurrency > 1).then_some(&function.image.env_shared);
        for (name, value) in function.image.env.iter().chain(shared.into_iter().flatten()) {
            let value = self.fill(value, id, address, function);
            // What an image says is so for it, whatever we would have said.
            env.retain(|(known, _)| known != name.as_str());
            env.push((name.into(), value));
        }
        env
    }

    /// A word of an image's description with what is meant by its `{names}`.
    pub(crate) fn fill(
        &self,
        word: &str,
        id: InstanceId,
        address: Ipv4Addr,
        function: &FunctionSpec,
    ) -> OsString {
        let names = [
            ("{image}", function.image.dir.to_string_lossy().into_owned()),
            ("{code}", function.code_dir.to_string_lossy().into_owned()),
            ("{handler}", function.handler.clone()),
            ("{function}", function.key.name.clone()),
            ("{version}", function.key.version.clone()),
            ("{memory_mb}", function.memory_mb.to_string()),
            ("{concurrency}", function.concurrency.to_string()),
            ("{runtime_api}", format!("{address}:{}", self.runtime_port)),
            ("{region}", function.urn.split(':').nth(2).unwrap_or_default().to_owned()),
            ("{instance}", id.to_string()),
        ];
        let mut filled = String::with_capacity(word.len());
        let mut rest = word;
        // In one go: what a value has in braces is not a name.
        while let Some(at) = rest.find('{') {
            let (before, from) = rest.split_at(at);
            filled.push_str(before);
            match names.iter().find(|(name, _)| from.starts_with(name)) {
                Some((name, value)) => {
                    filled.push_str(value);
                    rest = &from[name.len()..];
                }
                None => {
                    filled.push('{');
                    rest = &from[1..];
                }
            }
        }
        filled.push_str(rest);
        filled.into()
    }
}
