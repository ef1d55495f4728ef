//! CreateFunctionVersion and ListFunctionVersions: what `latest` is at a moment, under a name, for good.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    body::Body,
    extract::{Path, Query, State},
    http::StatusCode,
};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use store::{FunctionKey, FunctionRecord, LATEST, StoreError};

use crate::{
    auth::{Head, Right},
    body,
    error::ApiError,
    functions::number,
    registry::{Api, config as stored},
    settings::{MAX_FUNCTIONS, MAX_SMALL_BODY, MAX_VERSION_NAME, MAX_VERSIONS},
    spec::{Fields, FunctionConfig, bad},
    urn::Urn,
};

/// What a body asks to be published.
#[derive(Debug, Default, PartialEq, Eq)]
struct Publishing {
    version: Option<String>,
    digest: Option<String>,
    description: String,
}

impl Publishing {
    fn read(fields: &Fields<'_>) -> Result<Self, ApiError> {
        let given = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(str::to_owned);
        let version = given(fields.text("version", "FSS.1015")?);
        if let Some(name) = version.as_deref().filter(|name| !is_version_name(name)) {
            return Err(bad(
                "FSS.1015",
                format!(
                    "version {name:?} is not 1 to {MAX_VERSION_NAME} letters, digits, -, _ and . that begin and end with a letter or digit, other than {LATEST}"
                ),
            ));
        }
        Ok(Self {
            version,
            digest: given(fields.text("digest", "FSS.1011")?),
            description: fields.description()?.unwrap_or_default().to_owned(),
        })
    }
}

fn is_version_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=MAX_VERSION_NAME).contains(&name.len())
        && name.chars().all(plain)
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.ends_with(|c: char| c.is_ascii_alphanumeric())
        && name != LATEST
}

/// CreateFunctionVersion.
pub(crate) async fn publish(
    State(api): State<Arc<Api>>,
    Path((project, urn)): Path<(String, String)>,
    head: Head,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let caller = api.caller(&head, &project, Right::Admin)?;
    let body = api.body(&caller, body, MAX_SMALL_BODY).await?;
    body::must_be_json(&head)?;
    let object = if body.is_empty() { Map::new() } else { body::object(&body).map_err(body::not_json)? };
    let asked = Publishing::read(&Fields(&object))?;
    let urn = Urn::parse(&urn, &project)?;
    urn.must_be_latest()?;
    let _changing = api.changing.lock().await;
    let latest = api.record(&urn, &project).await?;
    let versions = api.store.versions(latest.key.clone()).await?;
    let published: Vec<_> = versions.into_iter().filter(|record| !record.key.is_latest()).collect();
    let (record, config) = version_of(latest, &published, asked, Timestamp::now())?;
    // First, so that what is in the store can run.
    api.unpacked(&record, &config, None).await?;
    match api.store.publish_version(record.clone()).await {
        Ok(true) => {}
        Ok(false) => return Err(ApiError::no_function()),
        Err(StoreError::Exists) => return Err(exists(&record.key.version)),
        Err(error) => return Err(error.into()),
    }
    api.ready(&record, None).await?;
    Ok(Json(config.show(&record, &api.settings.region)))
}

/// The record of a new version. `published` are those there are, the newest first.
fn version_of(
    latest: FunctionRecord,
    published: &[FunctionRecord],
    asked: Publishing,
    now: Timestamp,
) -> Result<(FunctionRecord, FunctionConfig), ApiError> {
    let digest = &latest.code_digest;
    if let Some(other) = asked.digest.filter(|asked| !asked.eq_ignore_ascii_case(digest)) {
        return Err(bad("FSS.1011", format!("the digest of the code is {digest}, not {other:?}")));
    }
    let taken = |name: &str| published.iter().any(|record| record.key.version == name);
    let version = asked.version.unwrap_or_else(|| name_at(now, taken));
    if taken(&version) {
        return Err(exists(&version));
    }
    let mut config = stored(&latest)?;
    if let Some(newest) = published.first()
        && newest.code_digest == latest.code_digest
        && stored(newest)?.was_published_from(&config)
    {
        let why = format!("nothing has changed since version {:?} was published", newest.key.version);
        return Err(bad("FSS.1016", why));
    }
    if published.len() >= MAX_VERSIONS {
        // The service has no code of its own for it; this is that of too many functions.
        let why = format!("a function has at most {MAX_VERSIONS} published versions");
        return Err(ApiError::new(StatusCode::FORBIDDEN, "FSS.1041", why));
    }
    config.version_description = asked.description;
    config.reserved = 0; // those of `latest` are its own
    let now = now.as_millisecond();
    let newest = published.first().map_or(0, |newest| newest.revision + 1);
    let record = FunctionRecord {
        key: latest.key.at(&version),
        // By the clock, as for a function that is made; and above the others, whose order it is.
        revision: now.cast_unsigned().max(newest),
        config: serde_json::to_string(&config).map_err(|error| ApiError::internal(error.to_string()))?,
        created_ms: now,
        modified_ms: now,
        ..latest
    };
    Ok((record, config))
}

/// `vYYYYMMDD-HHMMSS`, UTC: the first such name from now on that is free.
fn name_at(now: Timestamp, taken: impl Fn(&str) -> bool) -> String {
    let name = |at: Timestamp| at.strftime("v%Y%m%d-%H%M%S").to_string();
    let mut at = now;
    // Of one more name than there can be versions, one is free.
    for _ in 0..MAX_VERSIONS {
        if !taken(&name(at)) {
            break;
        }
        at = at.saturating_add(Duration::from_secs(1)).unwrap_or(at);
    }
    name(at)
}

fn exists(version: &str) -> ApiError {
    ApiError::new(StatusCode::CONFLICT, "FSS.1062", format!("version {version:?} has existed"))
}

/// Refuses to part with a version that an alias names.
pub(crate) fn must_be_unused(api: &Api, key: &FunctionKey) -> Result<(), ApiError> {
    let user = api.aliases(&key.at(LATEST), |aliases| {
        let mut users = aliases.values().filter(|alias| {
            let additional = alias.additional.as_ref().map(|share| &share.version);
            alias.function.version == key.version || additional == Some(&key.version)
        });
        users.next().map(|alias| alias.name.clone())
    });
    match user.flatten() {
        None => Ok(()),
        Some(alias) => {
            let why = format!("version {:?} is in use by the alias {alias:?}", key.version);
            Err(ApiError::new(StatusCode::CONFLICT, "FSS.1066", why))
        }
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct ListQuery {
    marker: Option<String>,
    maxitems: Option<String>,
}

/// ListFunctionVersions: `latest`, then the newest first.
pub(crate) async fn list(
    State(api): State<Arc<Api>>,
    Path((project, urn)): Path<(String, String)>,
    Query(query): Query<ListQuery>,
    head: Head,
) -> Result<Json<Value>, ApiError> {
    api.caller(&head, &project, Right::Read)?;
    let marker = number(query.marker.as_deref(), "marker")?.unwrap_or(0);
    let most = match number(query.maxitems.as_deref(), "maxitems")? {
        None | Some(0) => MAX_FUNCTIONS,
        Some(most) => most.min(MAX_FUNCTIONS),
    };
    let key = api.record(&Urn::parse(&urn, &project)?, &project).await?.key;
    let versions = api.store.versions(key).await?;
    let mut shown = Vec::new();
    for record in versions.iter().skip(marker).take(most) {
        shown.push(stored(record)?.show(record, &api.settings.region));
    }
    let next = marker.saturating_add(shown.len());
    let next = if next < versions.len() { next } else { 0 };
    Ok(Json(json!({ "versions": shown, "count": versions.len(), "next_marker": next })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(version: &str, timeout: u64, digest: &str, revision: u64) -> FunctionRecord {
        let body = json!({
            "runtime": "Python3.10", "handler": "index.handler", "timeout": timeout, "memory_size": 128,
        });
        let config = FunctionConfig::read(&Fields(body.as_object().unwrap()), None).unwrap();
        FunctionRecord {
            key: FunctionKey {
                project: "p".into(),
                package: "k".into(),
                name: "f".into(),
                version: version.into(),
            },
            revision,
            config: serde_json::to_string(&config).unwrap(),
            code_digest: digest.into(),
            code_size: 1,
            created_ms: 1,
            modified_ms: 1,
        }
    }

    fn named(version: &str) -> Publishing {
        Publishing { version: Some(version.into()), ..Publishing::default() }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn refusal(latest: FunctionRecord, published: &[FunctionRecord], asked: Publishing) -> String {
        version_of(latest, published, asked, at(0)).unwrap_err().code
    }

    #[test]
    fn what_differs_from_the_newest_version_is_published_and_nothing_else() {
        let latest = || record(LATEST, 3, "d", 9);
        let newest = |timeout, digest| [record("v2", timeout, digest, 8), record("v1", 3, "d", 7)];
        assert_eq!(refusal(latest(), &newest(3, "d"), named("v3")), "FSS.1016");
        for other in [newest(4, "d"), newest(3, "e")] {
            let (made, _) = version_of(latest(), &other, named("v3"), at(0)).unwrap();
            assert_eq!((made.key.version.as_str(), made.revision, made.code_digest.as_str()), ("v3", 9, "d"));
        }
    }

    #[test]
    fn a_description_of_a_version_is_no_change() {
        let asked = Publishing { description: "first".into(), ..named("v1") };
        let (made, config) = version_of(record(LATEST, 3, "d", 1), &[], asked, at(0)).unwrap();
        assert_eq!(config.version_description, "first");
        assert_eq!(refusal(record(LATEST, 3, "d", 1), &[made], named("v2")), "FSS.1016");
    }

    #[test]
    fn names_are_free_and_the_digest_that_of_the_code() {
        let taken = [record("v1", 4, "d", 1)];
        assert_eq!(refusal(record(LATEST, 3, "d", 1), &taken, named("v1")), "FSS.1062");
        let digest = |digest: &str| Publishing { digest: Some(digest.into()), ..named("v2") };
        assert_eq!(refusal(record(LATEST, 3, "d", 1), &[], digest("e")), "FSS.1011");
        assert!(version_of(record(LATEST, 3, "d", 1), &[], digest("D"), at(0)).is_ok());
    }

    #[test]
    fn there_are_so_many_versions_and_no_more() {
        let mut published: Vec<_> =
            (0..MAX_VERSIONS).map(|at| record(&format!("v{at}"), 4, "d", 1)).collect();
        let latest = || record(LATEST, 3, "d", 1);
        assert_eq!(refusal(latest(), &published, named("new")), "FSS.1041");
        published.pop();
        assert!(version_of(latest(), &published, named("new"), at(0)).is_ok());
    }

    #[test]
    fn a_version_without_a_name_is_named_by_the_next_free_second() {
        let name = |taken: &[&str]| name_at(at(0), |name| taken.contains(&name));
        assert_eq!(name(&[]), "v19700101-000000");
        assert_eq!(name(&["v19700101-000000", "v19700101-000001"]), "v19700101-000002");
    }

    #[test]
    fn names_of_versions_are_plain_and_not_latest() {
        for good in ["v1", "1", "a.b_c-d", &"x".repeat(42)] {
            assert!(is_version_name(good), "{good}");
        }
        for bad in ["", LATEST, "!a", "a:b", "-a", "a.", "a b", "é", &"x".repeat(43)] {
            assert!(!is_version_name(bad), "{bad}");
        }
    }
}
