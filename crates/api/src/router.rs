//! The table of routes.

use std::sync::Arc;

use axum::{
    Extension, Router,
    extract::Request,
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::{any, delete, get, post, put},
};
use utoipa::OpenApi as _;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    aliases, async_configs, auth, backup, bulk, cancel, console, create, credentials, error::ApiError,
    events, functions, health, identity, invoke, list_invocations, logs, metrics, nodes, openapi, quell,
    quotas, refusals, registry::Api, reports, reserved, response, root, versions,
};

/// Literal segments where a URN could stand: without these routes what is below them would be taken for
/// operations on functions of that name (`functiongraph.md` section 2, routing trap).
const NOT_FUNCTIONS: [&str; 7] = [
    "reservedinstances",
    "reservedinstanceconfigs",
    "statistics",
    "import",
    "enable-lts-logs",
    "enable-async-status-logs",
    "async-status-log-detail",
];

/// All routes. Answers always carry `X-Request-Id`; errors always have the API's own shape.
pub fn router(api: Arc<Api>) -> Router {
    let functions = "/v2/{project}/fgs/functions";
    let function = |rest: &str| format!("{functions}/{{urn}}{rest}");
    let changes = Router::new()
        .route(functions, post(create::create).get(functions::list))
        .route(&function(""), delete(functions::delete))
        .route(&function("/config"), get(functions::show).put(functions::update_config))
        .route(&function("/code"), get(functions::show_code).put(functions::update_code))
        .route(&function("/config-max-instance"), put(functions::update_max_instances))
        .route(
            &function("/async-invoke-config"),
            get(async_configs::show).put(async_configs::put).delete(async_configs::delete),
        )
        .route(&function("/versions"), post(versions::publish).get(versions::list))
        .route(&function("/aliases"), post(aliases::create).get(aliases::list))
        .route(&function("/aliases/{alias}"), get(aliases::show).put(aliases::update).delete(aliases::delete))
        .route(&function("/reservedinstances"), put(reserved::put))
        .layer(middleware::from_fn(carried_out));
    let mut router = Router::new()
        .merge(changes)
        .route(&function("/invocations"), post(invoke::invoke))
        .route(&function("/invocations-async"), post(invoke::invoke_async))
        .route(&function("/cancel"), post(cancel::cancel))
        .route(&function("/async-invoke-configs"), get(async_configs::list))
        .route(&function("/instancereports"), get(reports::instances))
        .route(&function("/slareports/{period}"), get(reports::metrics))
        .route(&function("/statistics/{period}"), get(reports::statistics))
        .route(&format!("{functions}/statistics"), get(reports::project_statistics))
        .route(&format!("{functions}/reservedinstances"), get(reserved::list))
        .route(&format!("{functions}/reservedinstanceconfigs"), get(reserved::list_configs))
        .route("/v2/{project}/fgs/function/report", get(reports::report))
        .route("/v2/{project}/fgs/quotas", get(quotas::list))
        .merge(refusals::routes())
        .route(&function("/async-invocations"), get(list_invocations::list))
        .route(&function("/active-async-invocations"), get(list_invocations::list_active));
    for name in NOT_FUNCTIONS {
        router = router.route(&format!("{functions}/{name}/{{*rest}}"), any(response::unknown_route));
    }
    let (own, document) = own().split_for_parts();
    router
        .merge(own)
        // Their first names.
        .route("/quell/v1/receipts", get(quell::receipts))
        .route("/quell/v1/receipts/{id}", get(quell::receipt))
        .layer(Extension(Arc::new(document)))
        .merge(console::routes())
        .route("/", get(root::root))
        .route("/v3/auth/tokens", post(identity::create_token))
        .fallback(response::unknown_route)
        .layer(middleware::from_fn_with_state(Arc::clone(&api), auth::authenticate))
        .layer(middleware::from_fn(response::complete))
        .layer(middleware::from_fn_with_state(Arc::clone(&api), metrics::count))
        .with_state(api)
}

/// What is told to whoever can reach a listener that asks nobody who he is: the figures, and whether the node lives and
/// takes work.
pub fn open_router(api: Arc<Api>) -> Router {
    Router::new()
        .route("/metrics", get(metrics::open_metrics))
        .route("/quell/v1/health", get(health::health))
        .route("/quell/v1/ready", get(health::ready))
        .fallback(response::unknown_route)
        .layer(middleware::from_fn(response::complete))
        .with_state(api)
}

/// Quell's own routes, each with its description.
fn own() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::with_openapi(openapi::Document::openapi())
        .routes(routes!(health::health))
        .routes(routes!(health::ready))
        .routes(routes!(metrics::metrics))
        .routes(routes!(quell::node))
        .routes(routes!(nodes::nodes))
        .routes(routes!(events::events))
        .routes(routes!(bulk::requests))
        .routes(routes!(quell::request))
        .routes(routes!(quell::tree))
        .routes(routes!(quell::plan))
        .routes(routes!(quell::output))
        .routes(routes!(logs::request))
        .routes(routes!(logs::instance))
        .routes(routes!(logs::function))
        .routes(routes!(quell::receipts, bulk::ask))
        .routes(routes!(bulk::list))
        .routes(routes!(bulk::one, bulk::call_off))
        .routes(routes!(quell::receipt))
        .routes(routes!(credentials::list, credentials::create))
        .routes(routes!(credentials::revoke))
        .routes(routes!(credentials::rotate))
        .routes(routes!(backup::backup))
        .routes(routes!(openapi::serve))
}

/// Goes on when the caller goes away: a change that is in the store must come to the running node too.
async fn carried_out(request: Request, next: Next) -> Response {
    match tokio::spawn(next.run(request)).await {
        Ok(response) => response,
        Err(error) => ApiError::internal(format!("it failed badly: {error}")).into_response(),
    }
}
