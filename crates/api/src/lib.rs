//! HTTP routes: FunctionGraph v2 and Quell's own. Parses and forwards; decides nothing.
//!
//! One verb a file. A handler authenticates, reads its body within a limit, parses, and sends one call
//! to the supervisor's handle or the store; what comes back is put into the API's own shapes. The
//! contract is `docs/api.md`.

mod alias;
mod aliases;
mod async_config;
mod async_configs;
mod auth;
mod backup;
mod body;
mod bulk;
mod cancel;
mod code;
mod console;
mod create;
mod credentials;
mod error;
mod events;
mod functions;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
mod health;
mod identity;
mod invoke;
mod labels;
mod list_invocations;
mod logs;
mod metrics;
mod named;
mod nodes;
mod openapi;
mod package;
mod placement;
mod quell;
mod quotas;
mod refusals;
mod registry;
mod reports;
mod reserved;
mod response;
mod root;
mod router;
mod run_log;
mod selection;
mod settings;
mod spec;
mod urn;
mod versions;

pub use auth::{
    RateLimits, SCOPES,
    secrets::{NodeKey, Secrets, mint_operator, secrets_of},
};
pub use error::ApiError;
pub use labels::check_labels;
pub use nodes::{NodesView, SharedNode};
pub use registry::{Api, ApiSettings};
pub use router::{open_router, router};
pub use selection::Where;
