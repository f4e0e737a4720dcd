//! The web page, part of the program. `page/` holds its source.

use crate::app::App;
use axum::Router;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::sync::Arc;

/// Only the server itself may provide scripts, styles and data.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

fn file(kind: &'static str, content: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, content).into_response()
}

/// Returns a self-contained page that shows samples of a trace file: a JSON list of records with
/// their frames.
pub fn trace_page(samples: &serde_json::Value) -> String {
    // A tag inside a string would end the script.
    let samples = samples.to_string().replace('<', "\\u003c");
    include_str!("../page/trace.html")
        .replace("/*STYLE*/", include_str!("../page/page.css"))
        .replace("/*SCRIPT*/", include_str!("../page/dist/trace.js"))
        .replace("/*TRACE*/", &samples)
}

/// The routes of the page.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route(
            "/",
            get(async || {
                file(
                    "text/html; charset=utf-8",
                    include_str!("../page/index.html"),
                )
            }),
        )
        .route(
            "/page.js",
            get(async || {
                file(
                    "text/javascript; charset=utf-8",
                    include_str!("../page/dist/page.js"),
                )
            }),
        )
        .route(
            "/page.css",
            get(async || file("text/css; charset=utf-8", include_str!("../page/page.css"))),
        )
}
