//! The embedded registry's API: any requests, one after the other. None is answered with 500, and what was registered is
//! found under its id until the end, also by an instance that reads the topic anew.
//!
//! An input is requests, each ended by a zero byte: a method, a path, a line break, a body.
#![no_main]

use axum::body::Body;
use axum::http::Request;
use crossdock::log::embedded::{EmbeddedLog, Options};
use crossdock::registry::{EmbeddedRegistry, Registry, router};
use crossdock_fuzz::cut;
use http_body_util::BodyExt;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use tokio::runtime::Runtime;
use tower::ServiceExt;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.max_blocking_threads(1).build().expect("a runtime")
});
/// Requests in one input.
const REQUESTS_MAX: usize = 12;

fuzz_target!(|data: &[u8]| {
    let log = EmbeddedLog::new(Options::system());
    let open = || EmbeddedRegistry::open(Arc::new(log.clone())).expect("the log answers");
    let registry = Arc::new(open());
    let api = router(registry.clone());
    let mut schemas = BTreeMap::new();
    let mut rest = data;
    for _ in 0..REQUESTS_MAX {
        if rest.is_empty() {
            break;
        }
        let (request, behind) = cut(rest, 0);
        rest = behind;
        let (head, body) = cut(request, b'\n');
        let head = String::from_utf8_lossy(head);
        let Some((method, path)) = head.split_once(' ') else {
            continue;
        };
        let request = Request::builder().method(method).uri(path);
        let Ok(request) = request.body(Body::from(body.to_vec())) else {
            continue;
        };
        let (status, answer) = RUNTIME.block_on(async {
            let answer = api.clone().oneshot(request).await.expect("an answer");
            let status = answer.status().as_u16();
            let bytes = answer
                .into_body()
                .collect()
                .await
                .expect("a body")
                .to_bytes();
            (status, bytes)
        });
        assert!(
            status < 500,
            "{status} to {head}: {}",
            String::from_utf8_lossy(&answer)
        );
        let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
        if status == 200
            && method == "POST"
            && path.contains("/versions")
            && path.starts_with("/subjects")
        {
            let id = answer["id"].as_u64().expect("an id") as u32;
            schemas.insert(id, registry.by_id(id).expect("what was registered"));
        }
    }
    if schemas.is_empty() {
        return;
    }
    let anew = open();
    for (id, schema) in schemas {
        assert_eq!(registry.by_id(id).expect("still there"), schema);
        assert_eq!(anew.by_id(id).expect("in the topic"), schema);
    }
});
