//! `/console`: the web console, one page of our own with its scripts and styles, built into the binary.
//!
//! It is served to anybody: it holds nothing but itself, and asks the API for everything else with the token that
//! is typed into it. What may run in it and whom it may talk to is said to the browser by its policy.

use std::sync::Arc;

use axum::{
    Router,
    extract::Path,
    http::{HeaderName, HeaderValue, header},
    response::{IntoResponse as _, Response},
    routing::get,
};

use crate::{registry::Api, response};

/// Nothing but what the node itself serves: no scripts or styles in the markup, no other hosts, no frames, no forms
/// that are sent, and no text that becomes markup or code, whoever wrote it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";

/// What every file of the page is served with.
const HEADERS: [(HeaderName, &str); 8] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_FRAME_OPTIONS, "DENY"),
    // After an upgrade of the node the next load is the new page.
    (header::CACHE_CONTROL, "no-cache"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
];

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// Every file by its name below `/console/`.
macro_rules! files {
    ($($name:literal: $kind:expr),* $(,)?) => {
        [$(($name, $kind, include_str!(concat!("console/", $name)))),*]
    };
}

const PAGE: &str = include_str!("console/index.html");
const FILES: [(&str, &str, &str); 17] = files! {
    "page.css": CSS,
    "parts.css": CSS,
    "icon.svg": SVG,
    "api.js": JS,
    "cancel.js": JS,
    "detail.js": JS,
    "element.js": JS,
    "instances.js": JS,
    "latency.js": JS,
    "live.js": JS,
    "log.js": JS,
    "main.js": JS,
    "means.js": JS,
    "nodes.js": JS,
    "receipts.js": JS,
    "tree.js": JS,
    "words.js": JS,
};

/// The routes of the page.
pub(crate) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/console", get(async || served(HTML, PAGE)))
        .route("/console/", get(async || served(HTML, PAGE)))
        .route("/console/{file}", get(file))
}

async fn file(Path(name): Path<String>) -> Response {
    match FILES.iter().find(|(known, ..)| *known == name) {
        Some((_, kind, text)) => served(kind, text),
        None => response::unknown_route().await.into_response(),
    }
}

fn served(kind: &'static str, text: &'static str) -> Response {
    let mut response = text.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_a_file_loads_is_one_of_the_files_and_nothing_is_in_the_markup() {
        let known = |name: &str| FILES.iter().any(|(known, ..)| *known == name);
        for named in PAGE.split("/console/").skip(1) {
            let name = named.split('"').next().unwrap();
            assert!(known(name), "the page loads {name}");
        }
        for (file, kind, text) in FILES {
            for line in text.lines().filter(|line| kind == JS && line.contains(" from './")) {
                let name = line.split_once(" from './").unwrap().1.split('\'').next().unwrap();
                assert!(known(name), "{file} imports {name}");
            }
            for word in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
                assert!(!text.contains(word), "{file} has {word}");
            }
        }
        assert!(!PAGE.contains(" style=") && !PAGE.contains(" onclick=") && !PAGE.contains("<style"));
        assert_eq!(PAGE.matches("<script").count(), 1, "and that one is a file");
    }
}
