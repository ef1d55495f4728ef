//! An alias as a body says it, and as the API shows it.

use serde_json::{Value, json};
use store::{AliasRecord, FunctionKey, LATEST, Share};

use crate::{
    create::is_name,
    error::ApiError,
    settings::MAX_ALIAS_NAME,
    spec::{Fields, bad, modified},
    urn,
};

/// What an alias says: all of a body but its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Says {
    pub(crate) version: String,
    pub(crate) additional: Option<Share>,
    pub(crate) description: String,
}

impl Says {
    pub(crate) fn read(fields: &Fields<'_>) -> Result<Self, ApiError> {
        let version = fields.required_text("version", "FSS.1015")?.to_owned();
        // Who sends it means that requests are told apart: to ignore it would send them all one way.
        if fields.object("additional_version_strategy", "FSS.1091")?.is_some_and(|rules| !rules.is_empty()) {
            let why = "additional_version_strategy: a node chooses by additional_version_weights only";
            return Err(bad("FSS.1091", why.to_owned()));
        }
        Ok(Self {
            additional: additional(fields, &version)?,
            version,
            description: fields.description()?.unwrap_or_default().to_owned(),
        })
    }

    /// As it is kept for this function.
    pub(crate) fn record(
        self,
        function: &FunctionKey,
        name: &str,
        created_ms: i64,
        now_ms: i64,
    ) -> AliasRecord {
        AliasRecord {
            function: function.at(&self.version),
            name: name.to_owned(),
            additional: self.additional,
            description: self.description,
            created_ms,
            modified_ms: now_ms,
        }
    }
}

/// `{"<version>": percent}`, of one version at most.
fn additional(fields: &Fields<'_>, version: &str) -> Result<Option<Share>, ApiError> {
    let field = "additional_version_weights";
    let Some(weights) = fields.object(field, "FSS.1091")? else { return Ok(None) };
    if weights.len() > 1 {
        return Err(bad("FSS.1091", format!("{field} names more than one version")));
    }
    let Some((additional, weight)) = weights.iter().next() else { return Ok(None) };
    if additional == version {
        return Err(bad("FSS.1093", format!("{field} names the alias's own version {version:?}")));
    }
    let percent =
        weight.as_u64().and_then(|weight| u8::try_from(weight).ok()).filter(|percent| *percent <= 100);
    let percent = percent.ok_or_else(|| {
        bad("FSS.1092", format!("{field}: {weight} is not a whole number between 0 and 100"))
    })?;
    Ok(Some(Share { version: additional.clone(), percent }))
}

/// The name of a new alias: 1 to 63 letters, digits, `-` and `_`.
pub(crate) fn name(fields: &Fields<'_>) -> Result<String, ApiError> {
    let name = fields.required_text("name", "FSS.1014")?;
    if is_name(name, MAX_ALIAS_NAME) && name != LATEST {
        return Ok(name.to_owned());
    }
    Err(bad(
        "FSS.1014",
        format!(
            "name {name:?} is not 1 to {MAX_ALIAS_NAME} letters, digits, - and _ that begin with a letter, other than {}",
            LATEST
        ),
    ))
}

/// In the API's own shape.
pub(crate) fn show(alias: &AliasRecord, region: &str) -> Value {
    let weights = match &alias.additional {
        Some(Share { version, percent }) => json!({ version.as_str(): percent }),
        None => json!({}),
    };
    json!({
        "name": alias.name,
        "version": alias.function.version,
        "description": alias.description,
        "last_modified": modified(alias.modified_ms),
        "alias_urn": urn::of_alias(region, &alias.function, &alias.name),
        "additional_version_weights": weights,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: Value) -> Result<Says, ApiError> {
        Says::read(&Fields(body.as_object().unwrap()))
    }

    #[test]
    fn an_alias_names_one_version_and_at_most_one_more() {
        for (weights, additional) in [
            (json!(null), None),
            (json!({}), None),
            (json!({ "v2": 0 }), Some(("v2", 0))),
            (json!({ "v2": 100 }), Some(("v2", 100))),
        ] {
            let says = read(json!({ "version": "v1", "additional_version_weights": weights })).unwrap();
            let share = additional.map(|(version, percent)| Share { version: version.into(), percent });
            assert_eq!((says.version.as_str(), says.additional), ("v1", share));
        }
    }

    #[test]
    fn what_cannot_be_kept_is_refused_with_its_own_code() {
        for (body, code) in [
            (json!({}), "FSS.1015"),
            (json!({ "version": 1 }), "FSS.1015"),
            (json!({ "version": "v1", "additional_version_weights": [] }), "FSS.1091"),
            (json!({ "version": "v1", "additional_version_weights": { "a": 1, "b": 1 } }), "FSS.1091"),
            (json!({ "version": "v1", "additional_version_weights": { "a": 101 } }), "FSS.1092"),
            (json!({ "version": "v1", "additional_version_weights": { "a": -1 } }), "FSS.1092"),
            (json!({ "version": "v1", "additional_version_weights": { "a": 1.5 } }), "FSS.1092"),
            (json!({ "version": "v1", "additional_version_weights": { "a": "1" } }), "FSS.1092"),
            (json!({ "version": "v1", "additional_version_weights": { "v1": 1 } }), "FSS.1093"),
            (json!({ "version": "v1", "additional_version_strategy": { "v2": {} } }), "FSS.1091"),
            (json!({ "version": "v1", "description": "x".repeat(513) }), "FSS.1019"),
        ] {
            let error = read(body.clone()).unwrap_err();
            assert_eq!((error.status.as_u16(), error.code.as_str()), (400, code), "{body}: {error}");
        }
        for bad in ["", "latest", "!a", "a:b", "1a", &"x".repeat(64)] {
            let body = json!({ "name": bad });
            let refused = name(&Fields(body.as_object().unwrap())).unwrap_err();
            assert_eq!(refused.code, "FSS.1014", "{bad}");
        }
    }
}
