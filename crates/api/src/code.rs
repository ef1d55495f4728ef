//! The code part of a body: what kind it is, and its bytes.

use bytes::Bytes;
use serde_json::Value;

use crate::{
    error::ApiError,
    package,
    refusals::unsupported_field,
    spec::{Fields, bad},
};

/// Code as a client sent it.
pub(crate) struct Code {
    pub(crate) kind: String,
    pub(crate) filename: String,
    pub(crate) bytes: Bytes,
}

impl Code {
    /// The same with a name for plain source that has none: JavaScript is not found under `index.py`.
    pub(crate) fn named_for(mut self, runtime: &str) -> Self {
        if self.kind == "inline" && self.filename.is_empty() && runtime.starts_with("Node.js") {
            "index.js".clone_into(&mut self.filename);
        }
        self
    }
}

/// Reads `code_type`, `code_filename` and `func_code.file`.
pub(crate) fn read(fields: &Fields<'_>) -> Result<Code, ApiError> {
    let kind = fields.required_text("code_type", "FSS.1006")?;
    if !matches!(kind, "inline" | "zip") {
        let why = "code comes with the request, as \"inline\" or \"zip\"";
        return Err(unsupported_field(&format!("code_type {kind:?}"), "FSS.1006", why));
    }
    let linked = fields.0.get("func_code").and_then(|code| code.get("link")).and_then(Value::as_str);
    if linked.is_some_and(|link| !link.is_empty()) {
        let why = "code comes with the request, in func_code.file";
        return Err(unsupported_field("func_code.link", "FSS.1010", why));
    }
    let missing = || bad("FSS.1012", "func_code.file is missing".into());
    let file = match fields.0.get("func_code") {
        Some(Value::Object(code)) => code.get("file").and_then(Value::as_str).ok_or_else(missing)?,
        Some(Value::String(file)) => file,
        _ => return Err(missing()),
    };
    if file.is_empty() {
        return Err(missing());
    }
    let filename = fields.text("code_filename", "FSS.1013")?.unwrap_or_default().to_owned();
    Ok(Code { kind: kind.to_owned(), filename, bytes: package::decode(file)? })
}
