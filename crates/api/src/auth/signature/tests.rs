//! Requests of the real clients, as they were captured, and what must not pass.

use axum::http::HeaderValue;
use proptest::prelude::*;

use super::*;

const SECRET: &str = "sk-test-secret";
const BODY: &[u8] = br#"{"request_id": "1167bf8c-87b0-43ab-8f5f-26b16c64f252", "type": "force"}"#;
const SIGNED: &str = "SDK-HMAC-SHA256 Access=AKTEST0000000000EXAM, \
    SignedHeaders=content-type;host;user-agent;x-project-id;x-sdk-date, \
    Signature=c69a62c9d7621ec97e18b44941b372925d3cf938385555c23b38acb9f3ff2eca";

/// A request as it came, and what is changed of it.
struct Captured {
    method: Method,
    uri: String,
    headers: HeaderMap,
    authorization: String,
    body: Vec<u8>,
    now: Timestamp,
}

impl Captured {
    /// "cancel, type=force" of the Python client.
    fn force() -> Self {
        let project = "7aad83af3e8d42e99ac194e8419e2c9b";
        let urn = format!("urn%3Afss%3Acn-north-4%3A{project}%3Afunction%3Adefault%3Atest%3Alatest");
        let mut headers = HeaderMap::new();
        for (name, value) in [
            (
                "user-agent",
                "huaweicloud-usdk-python/3.0; os/Linux##1_SMP_PREEMPT_DYNAMIC_@0#x86_64 \
                            python/3.11.7 impl/CPython; app/99eb34b9-4be1-4deb-9b06-facbe107d2cb",
            ),
            ("content-type", "application/json"),
            ("x-project-id", project),
            ("x-sdk-date", "20261124T031830Z"),
            ("host", "127.0.0.1:18999"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        Self {
            method: Method::POST,
            uri: format!("/v2/{project}/fgs/functions/{urn}/cancel"),
            headers,
            authorization: SIGNED.to_owned(),
            body: BODY.to_vec(),
            now: "2026-11-24T03:18:35Z".parse().unwrap(),
        }
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn checked(&self, secret: &str) -> Result<(), SignatureError> {
        let signature = Signature::parse(&self.authorization)?;
        let uri: Uri = self.uri.parse().unwrap();
        let statement = signature.statement(&self.method, &uri, &self.headers, self.now)?;
        signature.verify(&statement, &self.body, secret)
    }
}

#[test]
fn a_captured_request_of_the_python_client_is_verified() {
    assert_eq!(Captured::force().checked(SECRET), Ok(()));
}

#[test]
fn colons_that_a_client_did_not_encode_are_signed_as_if_it_had() {
    let raw = Captured::force().with(|request| request.uri = request.uri.replace("%3A", ":"));
    assert_eq!(raw.checked(SECRET), Ok(()));
}

#[test]
fn a_host_in_the_request_line_counts_as_the_header() {
    let second = Captured::force().with(|request| {
        request.headers.remove("host");
        request.uri = format!("http://127.0.0.1:18999{}", request.uri);
    });
    assert_eq!(second.checked(SECRET), Ok(()));
}

#[test]
fn whatever_of_a_signed_request_is_changed_it_is_refused() {
    use SignatureError::*;
    type Change = fn(&mut Captured);
    let cases: [(Change, SignatureError); 13] = [
        (|request| request.method = Method::PUT, Wrong),
        (|request| request.uri = request.uri.replace("test", "Test"), Wrong),
        (|request| request.uri += "?recursive=true", Wrong),
        (|request| request.body = BODY.to_ascii_uppercase(), Wrong),
        (|request| request.body.clear(), Wrong),
        (|request| drop(request.headers.insert("host", HeaderValue::from_static("other"))), Wrong),
        (|request| assert!(request.headers.append("x-project-id", HeaderValue::from_static("b"))), Wrong),
        (|request| drop(request.headers.remove("x-project-id")), HeaderMissing),
        (|request| drop(request.headers.remove("x-sdk-date")), NoDate),
        (|request| drop(request.headers.insert("x-sdk-date", HeaderValue::from_static("20261124"))), NoDate),
        (
            |request| {
                drop(request.headers.insert("x-sdk-date", HeaderValue::from_static("20261124T031831Z")))
            },
            Wrong,
        ),
        (|request| request.now = "2026-11-24T03:33:31Z".parse().unwrap(), Skewed),
        (|request| request.now = "2026-11-24T03:03:29Z".parse().unwrap(), Skewed),
    ];
    for (number, (change, error)) in cases.into_iter().enumerate() {
        assert_eq!(Captured::force().with(change).checked(SECRET), Err(error), "case {number}");
    }
    assert_eq!(Captured::force().checked("sk-test-secre"), Err(Wrong));
    for now in ["2026-11-24T03:33:30Z", "2026-11-24T03:03:30Z"] {
        let edge = Captured::force().with(|request| request.now = now.parse().unwrap());
        assert_eq!(edge.checked(SECRET), Ok(()), "15 minutes are allowed");
    }
}

#[test]
fn what_is_no_signature_is_told_from_a_wrong_one() {
    for (text, error) in [
        ("SDK-HMAC-SHA256 ", SignatureError::Unreadable),
        ("SDK-HMAC-SHA256", SignatureError::Unreadable),
        ("Basic YTpi", SignatureError::Unreadable),
        (&SIGNED.replace("Access=AKTEST0000000000EXAM", "Access="), SignatureError::Unreadable),
        (&SIGNED.replace("Access", "access"), SignatureError::Unreadable),
        (&SIGNED.replace("eca", "ec"), SignatureError::Unreadable),
        (&SIGNED.replace("eca", "ecg"), SignatureError::Unreadable),
        (&format!("{SIGNED}, Access=b"), SignatureError::Unreadable),
        (&SIGNED.replace("host;", ""), SignatureError::NotBound),
        (&SIGNED.replace(";x-sdk-date", ""), SignatureError::NotBound),
        (&SIGNED.replace("host;", "host;;"), SignatureError::Unreadable),
        (&SIGNED.replace("host;", &"host;".repeat(80)), SignatureError::Unreadable),
        (&SIGNED.replace("EXAM", &"X".repeat(200)), SignatureError::Unreadable),
    ] {
        assert_eq!(Signature::parse(text).err(), Some(error), "{text}");
    }
    assert!(
        Signature::is_one(SIGNED) && !Signature::is_one("none") && !Signature::is_one("SDK-HMAC-SHA256x")
    );
}

#[test]
fn paths_and_queries_are_put_into_their_one_form() {
    assert_eq!(path("/v2/p/fgs/functions"), "/v2/p/fgs/functions/");
    assert_eq!(path("/v2/p/a:b!c/"), "/v2/p/a%3Ab%21c/");
    assert_eq!(path("/a%2fb%3a%zz%4"), "/a%2Fb%3A%25zz%254/");
    assert_eq!(path("/"), "/");
    assert_eq!(
        query(Some("maxitems=10&func_name=te%20st%2F%E4%B8%AD&marker=0&empty&b=")).unwrap(),
        "b=&empty=&func_name=te%20st%2F%E4%B8%AD&marker=0&maxitems=10"
    );
    assert_eq!(query(Some("a=2&a=1&A=3")).unwrap(), "A=3&a=1&a=2");
    assert_eq!(query(None).unwrap(), "");
    assert_eq!(query(Some(&"a&".repeat(300))), Err(SignatureError::TooMany));
}

proptest! {
    #[test]
    fn no_header_makes_it_panic(text in "\\PC{0,200}", uri in "/[a-z%:?&=]{0,60}") {
        for text in [text.clone(), format!("{ALGORITHM} {text}"), format!("{SIGNED}{text}")] {
            if let (Ok(signature), Ok(uri)) = (Signature::parse(&text), uri.parse::<Uri>()) {
                let _ = signature.statement(&Method::GET, &uri, &Captured::force().headers, Timestamp::UNIX_EPOCH);
            }
        }
    }

    #[test]
    fn what_is_encoded_is_decoded(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let mut text = String::new();
        encode(&bytes, &mut text);
        prop_assert_eq!(decode(&text), bytes);
    }
}
