//! `GET /quell/v1/openapi.json`: Quell's own routes, described by the very handlers and types that serve them.
//!
//! Of the FunctionGraph routes the service's own definitions are the description; a test holds the router
//! against those.

use std::{collections::BTreeMap, sync::Arc};

use axum::{Json, extract::Extension};
use serde::Serialize;
use utoipa::{
    IntoResponses, Modify, OpenApi, ToSchema,
    openapi::{
        ContentBuilder, Ref, RefOr, ResponseBuilder,
        response::Response,
        security::{ApiKey, ApiKeyValue, SecurityScheme},
    },
};

/// What every error looks like.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    /// `FSS.` and a number.
    pub(crate) error_code: String,
    /// In words.
    pub(crate) error_msg: String,
}

/// The refusals that every route has which wants a credential.
pub(crate) struct Refusals;

impl IntoResponses for Refusals {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let refusal = |status: &str, why: &str| {
            let body = ContentBuilder::new().schema(Some(Ref::from_schema_name("ErrorBody"))).build();
            let response = ResponseBuilder::new().description(why).content("application/json", body).build();
            (status.to_owned(), RefOr::T(response))
        };
        BTreeMap::from([
            refusal("400", "something in the request is not understood; it says what"),
            refusal("403", "nobody, or not in the scopes of the credential"),
            refusal("404", "it is not there, or of another project"),
            refusal("429", "too many requests"),
            refusal("500", "the node could not do it; it says why"),
            refusal("503", "the node is ending, or its store refuses"),
        ])
    }
}

/// The document without its paths, which the router adds.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Quell",
        description = "What a node has beside the FunctionGraph v2 API: what lives on it, what a cancel would do and \
                       did, who may do what.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    components(schemas(ErrorBody, supervisor::LogLine, supervisor::Changes)),
    modifiers(&Credentials),
    security(("token" = []))
)]
pub(crate) struct Document;

struct Credentials;

impl Modify for Credentials {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let header = ApiKey::Header(ApiKeyValue::new("X-Auth-Token"));
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::ApiKey(header));
    }
}

/// The document as it is served.
pub(crate) type Served = Arc<utoipa::openapi::OpenApi>;

/// This document.
#[utoipa::path(get, path = "/quell/v1/openapi.json", tag = "node", security(()),
               responses((status = 200, description = "an OpenAPI document", body = serde_json::Value)))]
pub(crate) async fn serve(Extension(document): Extension<Served>) -> Json<utoipa::openapi::OpenApi> {
    Json((*document).clone())
}
