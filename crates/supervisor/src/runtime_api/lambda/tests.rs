use std::net::{Ipv4Addr, SocketAddr};

use axum::http::Request;
use cancel::{Attempt, RequestId};
use http_body_util::BodyExt as _;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::*;
use crate::{credentials::AttemptSecrets, message::Report, runtime_api::router};

const AT: Ipv4Addr = Ipv4Addr::new(127, 1, 0, 1);
const REQUEST: RequestId = RequestId(0x1167_bf8c_87b0_43ab_8f5f_26b1_6c64_f252);

fn delivery() -> Delivery {
    let secrets = AttemptSecrets {
        token: "qa.token".into(),
        access_key: "QAACCESS".into(),
        secret_key: "secret".into(),
    };
    Delivery {
        request: REQUEST,
        attempt: Attempt(3),
        payload: Bytes::from("{}"),
        secrets,
        asynchronous: true,
        deadline_ms: 7_000,
        function_urn: "urn:fss:here:project:function:default:f:latest".into(),
        alias: Some("prod".into()),
        trace: None,
        fence: CancellationToken::new(),
    }
}

/// Sends one request; whatever comes to the inbox is answered by `shell`.
async fn send(request: Request<Body>, mut shell: impl FnMut(Message) + Send + 'static) -> Response {
    let (inbox, mut messages) = mpsc::channel(8);
    let doors = Doors::new();
    doors.open(AT, None, 1);
    let (mut head, body) = request.into_parts();
    let ends = Ends { local: SocketAddr::from((AT, 80)), peer: SocketAddr::from((AT, 4_000)) };
    head.extensions.insert(ends);
    let shell = tokio::spawn(async move {
        while let Some(message) = messages.recv().await {
            shell(message);
        }
    });
    let answer = router(inbox, doors).oneshot(Request::from_parts(head, body)).await.unwrap();
    shell.await.unwrap();
    answer
}

/// Posts and gives the status of the answer, its body, and what was reported.
async fn post(path: &str, headers: &[(&str, &str)], body: Body) -> (u16, Value, Option<Report>) {
    let mut request = Request::post(format!("/2018-06-01/runtime/{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let (told, report) = std::sync::mpsc::channel();
    let answer = send(request.body(body).unwrap(), move |message| {
        if let Message::Reported { report, .. } = message {
            told.send(report).unwrap();
        }
    })
    .await;
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap(), report.try_recv().ok())
}

#[tokio::test]
async fn the_next_request_comes_with_every_header_that_a_client_needs() {
    let next = Request::get("/2018-06-01/runtime/invocation/next").body(Body::empty()).unwrap();
    let answer = send(next, |message| {
        if let Message::Polled { poll, .. } = message {
            drop(poll.send(delivery()));
        }
    })
    .await;
    let text = |name: &str| answer.headers()[name].to_str().unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(text("content-type"), "application/json");
    assert_eq!(text("lambda-runtime-aws-request-id"), "1167bf8c-87b0-43ab-8f5f-26b16c64f252");
    assert_eq!(text("lambda-runtime-deadline-ms"), "7000");
    assert_eq!(text("lambda-runtime-invoked-function-arn"), delivery().function_urn);
    assert_eq!(
        text("lambda-runtime-trace-id"),
        "Root=1-1167bf8c-87b043ab8f5f26b16c64f252;Parent=0000000000000003;Sampled=0"
    );
    assert_eq!(text("lambda-runtime-invocation-id"), "1167bf8c-87b0-43ab-8f5f-26b16c64f252-3");
    assert_eq!(text("lambda-runtime-invocation-id"), text("x-quell-invocation-id"));
    let context: Value = serde_json::from_str(text("lambda-runtime-client-context")).unwrap();
    assert_eq!(context["custom"]["quell-token"], "qa.token");
    assert_eq!(context["custom"]["quell-alias"], "prod");
    assert!(context["custom"].as_object().unwrap().values().all(Value::is_string), "{context}");
    assert_eq!(context["w3c"]["traceparent"], "00-1167bf8c87b043ab8f5f26b16c64f252-0000000000000003-00");
}

#[tokio::test]
async fn every_report_is_answered_with_202_and_names_its_delivery_if_the_client_does() {
    let id = REQUEST.to_string();
    let echoed = format!("{id}-3");
    let path = format!("invocation/{id}/response");
    let (status, body, report) =
        post(&path, &[("lambda-runtime-invocation-id", &echoed)], Body::from("7")).await;
    let report = report.unwrap();
    assert_eq!((status, body), (202, json!({ "status": "OK" })));
    assert_eq!(
        (report.request, report.attempt, report.body.as_ref()),
        (REQUEST, Some(Attempt(3)), &b"7"[..])
    );
    // One that does not know the header, in a percent-encoded path.
    let path = format!("invocation/{}/response", id.replace('-', "%2D"));
    let (status, _, report) = post(&path, &[], Body::from("7")).await;
    assert_eq!((status, report.unwrap().attempt), (202, None));
    let large = vec![b'x'; crate::settings::MAX_RESPONSE_BYTES + 1];
    let (status, _, report) = post(&path, &[], Body::from(large)).await;
    assert_eq!((status, report.unwrap().kind), (202, ReportKind::TooLarge), "a client must not die of it");
}

#[tokio::test]
async fn a_body_that_breaks_off_is_no_result_and_is_told_at_once() {
    let half = || {
        let pieces = [Ok(Bytes::from("{\"a\":")), Err(std::io::Error::from(std::io::ErrorKind::BrokenPipe))];
        Body::from_stream(futures_util::stream::iter(pieces))
    };
    for what in ["response", "error"] {
        let (_, _, report) = post(&format!("invocation/{REQUEST}/{what}"), &[], half()).await;
        assert_eq!(report.unwrap().kind, ReportKind::BrokenOff, "{what}");
    }
}

#[tokio::test]
async fn an_error_says_what_it_is_in_its_body_or_its_headers() {
    let path = format!("invocation/{REQUEST}/error");
    let kind = [("lambda-runtime-function-error-type", "Kaputt")];
    let full = json!({ "errorMessage": "m", "errorType": "T", "stackTrace": [] });
    let (status, _, report) = post(&path, &kind, Body::from(full.to_string())).await;
    assert_eq!(status, 202);
    assert_eq!(serde_json::from_slice::<Value>(&report.unwrap().body).unwrap(), full);
    let (_, _, report) = post(&path, &kind, Body::from("words")).await;
    let words: Value = serde_json::from_slice(&report.unwrap().body).unwrap();
    assert_eq!(words, json!({ "errorMessage": "words", "errorType": "Kaputt" }));
}

#[tokio::test]
async fn refusals_have_the_vendors_shape() {
    let shape = |body: &Value| body["errorMessage"].is_string() && body["errorType"].is_string();
    let (status, body, report) = post("invocation/nonsense/response", &[], Body::from("7")).await;
    assert_eq!((status, shape(&body), report.is_none()), (400, true, true), "{body}");
    let (status, body, _) = post("no/such/thing", &[], Body::empty()).await;
    assert_eq!((status, shape(&body)), (404, true), "{body}");
    let mode = [("lambda-runtime-function-response-mode", "trickling")];
    let (status, body, report) =
        post(&format!("invocation/{REQUEST}/response"), &mode, Body::from("7")).await;
    assert_eq!((status, shape(&body)), (400, true), "{body}");
    assert_eq!(report.unwrap().kind, ReportKind::Error, "its request does not wait for another");
}

#[tokio::test]
async fn what_cannot_start_says_why_and_what_was_never_restored_goes_on() {
    for path in ["init/error", "restore/error"] {
        let (told, failed) = std::sync::mpsc::channel();
        let error = json!({ "errorMessage": "no module", "errorType": "Runtime.ImportModuleError" });
        let request = Request::post(format!("/2018-06-01/runtime/{path}"));
        let answer = send(request.body(Body::from(error.to_string())).unwrap(), move |message| {
            if let Message::InitFailed { body, .. } = message {
                told.send(body).unwrap();
            }
        })
        .await;
        assert_eq!(answer.status(), 202);
        assert_eq!(serde_json::from_slice::<Value>(&failed.recv().unwrap()).unwrap(), error);
    }
    let request = Request::get("/2018-06-01/runtime/restore/next").body(Body::empty()).unwrap();
    assert_eq!(send(request, |_| {}).await.status(), 200);
}

#[tokio::test]
async fn half_a_reason_why_it_cannot_start_is_none() {
    for path in ["init/error", "restore/error"] {
        let pieces = [Ok(Bytes::from("{\"a\":")), Err(std::io::Error::from(std::io::ErrorKind::BrokenPipe))];
        let half = Body::from_stream(futures_util::stream::iter(pieces));
        let request = Request::post(format!("/2018-06-01/runtime/{path}")).body(half).unwrap();
        let answer = send(request, |_| panic!("something was told")).await;
        assert_eq!(answer.status(), 400, "{path}");
    }
}

#[tokio::test]
async fn an_extension_that_cannot_start_says_why_for_its_instance() {
    let error =
        || Body::from(json!({ "errorMessage": "no file", "errorType": "Extension.Init" }).to_string());
    let post = |identifier: &str| {
        Request::post("/2020-01-01/extension/init/error").header("lambda-extension-identifier", identifier)
    };
    let answer = send(post("none").body(error()).unwrap(), |_| panic!("something was told")).await;
    assert_eq!(answer.status(), 403);
    let (told, failed) = std::sync::mpsc::channel();
    let identifier = uuid::Uuid::from_u128(7).to_string();
    let answer = send(post(&identifier).body(error()).unwrap(), move |message| {
        if let Message::InitFailed { body, .. } = message {
            told.send(body).unwrap();
        }
    })
    .await;
    assert_eq!(answer.status(), 202);
    assert_eq!(serde_json::from_slice::<Value>(&failed.recv().unwrap()).unwrap()["errorMessage"], "no file");
}

#[tokio::test]
async fn a_connection_that_ends_in_the_middle_of_an_answer_is_told_at_once() {
    use tokio::io::AsyncWriteExt as _;
    let listener = tokio::net::TcpListener::bind((AT, 0)).await.unwrap();
    let to = listener.local_addr().unwrap();
    let (inbox, mut messages) = mpsc::channel(8);
    let doors = Doors::new();
    doors.open(AT, None, 1);
    let serving =
        crate::http::Serving { max_connections: 8, end_limit: std::time::Duration::ZERO, strangers: None };
    let end = CancellationToken::new();
    let served = crate::http::serve(listener, router(inbox, doors), serving, |_| Some(()), end.clone());
    let served = tokio::spawn(served);
    for half in ["content-length: 10\r\n\r\n{\"a\"", "transfer-encoding: chunked\r\n\r\n4\r\n{\"a\"\r\n"] {
        let mut client = tokio::net::TcpStream::connect(to).await.unwrap();
        let head = format!("POST /2018-06-01/runtime/invocation/{REQUEST}/response HTTP/1.1\r\nhost: x\r\n");
        client.write_all(format!("{head}{half}").as_bytes()).await.unwrap();
        drop(client);
        let limit = std::time::Duration::from_secs(20);
        let message = tokio::time::timeout(limit, messages.recv()).await.unwrap().unwrap();
        let Message::Reported { report, .. } = message else { panic!("something else was told") };
        assert_eq!(report.kind, ReportKind::BrokenOff, "{half}");
    }
    end.cancel();
    served.await.unwrap();
}
