//! TLS, HTTP/2, and clients that are slow, silent or many.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

#[path = "support/sign.rs"]
mod sign;
#[path = "support/mod.rs"]
mod support;

use std::{
    fs::{self, FileTimes},
    path::PathBuf,
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    signal::Signal,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};
use reqwest::Version;
use rustls::{
    ClientConfig, ProtocolVersion, RootCertStore, SupportedProtocolVersion,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    version::{TLS12, TLS13},
};
use serde_json::{Value, json};
use support::{Bell, Mode, TestNode, client_trusting, within};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

const HEALTH: &[u8] = b"GET /quell/v1/health HTTP/1.1\r\nHost: a\r\n\r\n";
/// What begins HTTP/2, no settings, and `GET /` as a whole.
const HTTP_2_REQUEST: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\
    \0\0\x03\x01\x05\0\0\0\x01\x82\x86\x84";
/// The frame that says: whatever is on its way is served, and nothing new.
const GOAWAY: &[u8] = b"\0\0\x08\x07\0\0\0\0\0\x7f\xff\xff\xff\0\0\0\0";
const PLAIN: &str = include_str!("functions/plain.py");
const INVOKE: &str = "/v2/default/fgs/functions/f/invocations";

/// A certificate and its key, as files.
struct Pair {
    dir: TempDir,
    chain: PathBuf,
    key: PathBuf,
}

fn made(change: impl Fn(&mut CertificateParams)) -> (String, String) {
    let names = ["localhost", "127.0.0.1"].map(str::to_owned);
    let mut params = CertificateParams::new(names).unwrap();
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

impl Pair {
    fn new(change: impl Fn(&mut CertificateParams)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (chain, key) = (dir.path().join("chain.pem"), dir.path().join("key.pem"));
        let pair = Self { dir, chain, key };
        pair.write(&made(change));
        pair
    }

    fn write(&self, (chain, key): &(String, String)) {
        fs::write(&self.chain, chain).unwrap();
        fs::write(&self.key, key).unwrap();
    }

    fn options(&self) -> [&str; 4] {
        ["--tls-cert", self.chain.to_str().unwrap(), "--tls-key", self.key.to_str().unwrap()]
    }

    async fn node(&self, more: &[&str]) -> TestNode {
        TestNode::start_with(&[&self.options(), more].concat()).await
    }

    fn certificate(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(&self.chain).unwrap()
    }
}

fn port(node: &TestNode) -> u16 {
    node.endpoint.rsplit(':').next().unwrap().parse().unwrap()
}

async fn tcp(node: &TestNode) -> TcpStream {
    TcpStream::connect(("127.0.0.1", port(node))).await.unwrap()
}

/// A handshake with whoever shows this certificate.
async fn try_handshake(
    node: &TestNode,
    trusted: &CertificateDer<'static>,
    version: &'static SupportedProtocolVersion,
    alpn: &[&str],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let name = ServerName::try_from("localhost").unwrap();
    within("a handshake", TlsConnector::from(Arc::new(config)).connect(name, tcp(node).await)).await
}

async fn handshake(node: &TestNode, pair: &Pair, alpn: &[&str]) -> TlsStream<TcpStream> {
    try_handshake(node, &pair.certificate(), &TLS13, alpn).await.unwrap()
}

/// Shakes hands until the node shows this certificate: it looks at its files once a second.
async fn shown(node: &TestNode, certificate: &CertificateDer<'static>) {
    within("the new certificate", async {
        while try_handshake(node, certificate, &TLS13, &[]).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

async fn asks_health(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> String {
    within("an answer", async {
        stream.write_all(HEALTH).await.unwrap();
        let mut answer = vec![0; 4_096];
        let length = stream.read(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer[..length]).into_owned()
    })
    .await
}

/// Reads to the end, which must come; what is reset has ended too.
async fn to_end(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut all = Vec::new();
    drop(within("the end of the connection", stream.read_to_end(&mut all)).await);
    String::from_utf8_lossy(&all).into_owned()
}

fn client_json(node: &TestNode) -> Value {
    serde_json::from_slice(&fs::read(node.dir.join("client.json")).unwrap()).unwrap()
}

/// The command line, on the data folder of a node or with what else is said.
async fn quell(dir: &std::path::Path, args: &[&str]) -> (i32, String) {
    let mut command = TestNode::client_command(dir, args);
    let output = tokio::task::spawn_blocking(move || command.stdin(Stdio::null()).output().unwrap());
    let output = within("the command line", output).await.unwrap();
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test]
async fn a_client_gets_the_version_of_tls_and_of_http_that_it_asks_for() {
    let pair = Pair::new(|_| {});
    let node = pair.node(&[]).await;
    assert!(node.endpoint.starts_with("https://"), "{}", node.endpoint);
    for (version, expected) in [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)] {
        for (asked, given) in
            [(["h2", "http/1.1"].as_slice(), Some("h2")), (&["http/1.1"], Some("http/1.1")), (&[], None)]
        {
            let mut stream = try_handshake(&node, &pair.certificate(), version, asked).await.unwrap();
            let session = stream.get_ref().1;
            assert_eq!(session.protocol_version(), Some(expected));
            assert_eq!(session.alpn_protocol(), given.map(str::as_bytes));
            if given != Some("h2") {
                assert!(asks_health(&mut stream).await.starts_with("HTTP/1.1 200"));
            }
        }
    }
    let client = client_json(&node);
    assert_eq!(client["ca"], pair.chain.to_str().unwrap());
    let url = format!("{}/quell/v1/health", node.endpoint);
    for (builder, version) in [
        (client_trusting(&client), Version::HTTP_2),
        (client_trusting(&client).http1_only(), Version::HTTP_11),
    ] {
        let answer = within("health", builder.build().unwrap().get(&url).send()).await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.version()), (200, version));
    }
    let mut in_the_clear = tcp(&node).await;
    in_the_clear.write_all(HEALTH).await.unwrap();
    assert!(!to_end(&mut in_the_clear).await.contains("HTTP/1.1"));
    node.stop().await;
}

#[tokio::test]
async fn the_command_line_trusts_the_certificate_it_was_given_and_no_other() {
    // As `openssl req -x509` makes them: it signs for others, and names no address.
    let pair = Pair::new(|params| {
        params.subject_alt_names =
            CertificateParams::new(vec!["node.example".to_owned()]).unwrap().subject_alt_names;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_after = date_time_ymd(2020, 1, 1);
        params.not_before = date_time_ymd(2019, 1, 1);
    });
    let node = pair.node(&[]).await;
    assert_eq!(quell(&node.dir, &["ls"]).await, (0, String::new()), "client.json names the file");
    let nowhere = tempfile::tempdir().unwrap();
    let there = ["ls", "--endpoint", &node.endpoint, "--token", &node.token];
    let with = |ca: &'static str| [there.as_slice(), &["--ca", ca]].concat();
    let chain = String::leak(pair.chain.to_str().unwrap().to_owned());
    assert_eq!(quell(nowhere.path(), &with(chain)).await, (0, String::new()));
    let other = Pair::new(|_| {});
    let other_chain = String::leak(other.chain.to_str().unwrap().to_owned());
    let (code, said) = quell(nowhere.path(), &with(other_chain)).await;
    assert!(code == 3 && said.contains("is not trusted") && said.contains("--ca"), "{code} {said}");
    let (code, said) = quell(nowhere.path(), &with("/nonexistent")).await;
    assert!(code == 2 && said.contains("--ca /nonexistent cannot be read"), "{code} {said}");
    let key = String::leak(pair.key.to_str().unwrap().to_owned());
    let (code, said) = quell(nowhere.path(), &with(key)).await;
    assert!(code == 2 && said.contains("holds no certificate"), "{code} {said}");
    let in_the_clear = node.endpoint.replace("https://", "http://");
    let (code, said) = quell(nowhere.path(), &["ls", "--endpoint", &in_the_clear, "--token", "t"]).await;
    assert!(
        code == 3 && said.contains("does not speak HTTP in the clear") && said.contains("https://"),
        "{said}"
    );
    node.stop().await;
}

#[tokio::test]
async fn requests_run_and_are_cancelled_over_http_2_with_what_they_started() {
    let pair = Pair::new(|_| {});
    for options in [pair.options().to_vec(), vec![]] {
        let (node, bell) = (TestNode::start_with(&options).await, Bell::hang().await);
        let mut builder = client_trusting(&client_json(&node));
        if options.is_empty() {
            builder = builder.http2_prior_knowledge();
        }
        let http = builder.build().unwrap();
        node.deploy_probe("f", 1, 4, json!({})).await;
        let child = json!({ "do": "wait", "port": bell.port, "tag": "child" });
        let event = json!({ "do": "wait", "port": bell.port, "tag": "root", "children": [child] });
        let request = http.post(format!("{}{INVOKE}", node.endpoint)).header("X-Auth-Token", &node.token);
        let invoked = tokio::spawn(request.json(&event).send());
        let rings = [bell.ring().await, bell.ring().await];
        let root = rings.iter().find(|ring| ring.facts["tag"] == "root").unwrap().request();
        let cancel = http.post(format!("{}/v2/default/fgs/functions/f/cancel", node.endpoint));
        let body = json!({ "request_id": root, "type": "recursive", "force": true });
        let cancel = cancel.header("X-Auth-Token", &node.token).json(&body);
        let canceled = within("the cancel", cancel.send()).await.unwrap();
        assert_eq!((canceled.status().as_u16(), canceled.version()), (200, Version::HTTP_2));
        assert_eq!(canceled.headers()["x-quell-stop"], "stopped");
        for ring in &rings {
            assert!(ring.process.is_gone());
        }
        let answer = within("its answer", invoked).await.unwrap().unwrap();
        assert_eq!((answer.status().as_u16(), answer.version()), (500, Version::HTTP_2));
        assert_eq!(answer.headers()["x-func-err-code"], "4208");
        node.stop().await;
    }
}

#[tokio::test]
async fn a_request_that_is_taken_back_over_http_2_is_cancelled_and_its_neighbour_goes_on() {
    let pair = Pair::new(|_| {});
    let (node, bell) = (pair.node(&[]).await, Bell::hang().await);
    node.deploy_probe("f", 1, 2, json!({ "quell": { "on_disconnect": "cancel" } })).await;
    let stream = handshake(&node, &pair, &["h2"]).await;
    let (mut http2, connection) = within("HTTP/2", h2::client::handshake(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut invoke = |event: Value| {
        let request = http::Request::post(format!("https://localhost{INVOKE}"));
        let request = request.header("X-Auth-Token", &node.token).body(()).unwrap();
        let (answer, mut body) = http2.send_request(request, false).unwrap();
        body.send_data(event.to_string().into(), true).unwrap();
        (answer, body)
    };
    let (stays, _) = invoke(json!({ "do": "wait", "port": bell.port }));
    let mut neighbour = bell.ring().await;
    let (_gone, mut gone) = invoke(json!({ "do": "cleanup", "port": bell.port }));
    let mut taken_back = bell.ring().await;
    gone.send_reset(h2::Reason::CANCEL);
    assert_eq!(taken_back.last_words().await, "cleaned\n");
    assert!(!neighbour.process.is_gone());
    neighbour.release().await;
    assert_eq!(within("the neighbour's answer", stays).await.unwrap().status(), 200);
    connection.abort();
    node.stop().await;
}

#[tokio::test]
async fn a_signature_is_good_over_http_2_and_a_slow_body_is_408_there_too() {
    let pair = Pair::new(|_| {});
    let node = pair.node(&["--body-timeout", "1"]).await;
    let client = client_json(&node);
    let http = client_trusting(&client).build().unwrap();
    let (path, host) = ("/quell/v1/node", format!("127.0.0.1:{}", port(&node)));
    let keys = ["access_key", "secret_key"].map(|name| client[name].as_str().unwrap());
    let mut request = http.get(format!("{}{path}", node.endpoint));
    for (name, value) in sign::sign((keys[0], keys[1], None), "GET", path, &host, b"") {
        request = request.header(name, value);
    }
    let answer = within("a signed request", request.send()).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.version()), (200, Version::HTTP_2));

    node.deploy("f", PLAIN, json!({ "handler": "index.length" })).await;
    let stream = handshake(&node, &pair, &["h2"]).await;
    let (mut http2, connection) = within("HTTP/2", h2::client::handshake(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::post(format!("https://localhost{INVOKE}"));
    let request = request.header("X-Auth-Token", &node.token).body(()).unwrap();
    let (answer, mut body) = http2.send_request(request, false).unwrap();
    body.send_data("[".into(), false).unwrap();
    assert_eq!(within("its refusal", answer).await.unwrap().status(), 408);
    drop((body, http2));
    drop(within("the connection's end", connection).await.unwrap());
    node.stop().await;
}

#[tokio::test]
async fn a_new_certificate_is_shown_to_new_connections_and_old_ones_live_on() {
    let pair = Pair::new(|_| {});
    let node = pair.node(&[]).await;
    let old = pair.certificate();
    let mut kept = handshake(&node, &pair, &[]).await;
    assert!(asks_health(&mut kept).await.starts_with("HTTP/1.1 200"));
    pair.write(&made(|_| {}));
    shown(&node, &pair.certificate()).await;
    assert!(try_handshake(&node, &old, &TLS13, &[]).await.is_err());
    assert!(asks_health(&mut kept).await.starts_with("HTTP/1.1 200"), "the old connection lives on");
    assert_eq!(quell(&node.dir, &["ls"]).await.0, 0, "the command line reads the file again");
    node.stop().await;
}

#[tokio::test]
async fn a_hang_up_reads_certificates_that_look_as_before() {
    let pair = Pair::new(|_| {});
    let node = pair.node(&[]).await;
    let mut kept = handshake(&node, &pair, &[]).await;
    let lengths = [&pair.chain, &pair.key].map(|file| fs::metadata(file).unwrap().len());
    let times = [&pair.chain, &pair.key].map(|file| fs::metadata(file).unwrap().modified().unwrap());
    // The length of a signature varies by a byte or two.
    let same = loop {
        let new = made(|_| {});
        if [new.0.len() as u64, new.1.len() as u64] == lengths {
            break new;
        }
    };
    let old = pair.certificate();
    pair.write(&same);
    for (file, time) in [&pair.chain, &pair.key].into_iter().zip(times) {
        let file = fs::OpenOptions::new().write(true).open(file).unwrap();
        file.set_times(FileTimes::new().set_modified(time)).unwrap();
    }
    assert!(try_handshake(&node, &old, &TLS13, &[]).await.is_ok(), "nobody could see a change");
    node.signal(Signal::SIGHUP);
    node.logs("certificates were read again");
    assert!(try_handshake(&node, &pair.certificate(), &TLS13, &[]).await.is_ok());
    assert!(asks_health(&mut kept).await.starts_with("HTTP/1.1 200"), "the old connection lives on");
    node.stop().await;
}

#[tokio::test]
async fn a_broken_pair_is_told_in_the_log_and_the_old_one_goes_on() {
    let pair = Pair::new(|_| {});
    let node = pair.node(&[]).await;
    let old = pair.certificate();
    let (chain, key) = made(|_| {});
    let (_, other) = made(|_| {});
    for (broken, words) in [
        ((chain.clone(), other), "does not belong to"),
        ((String::new(), key.clone()), "holds no certificate"),
        ((chain.clone(), "no key".to_owned()), "holds no private key"),
    ] {
        pair.write(&broken);
        node.signal(Signal::SIGHUP);
        node.logs(words);
        assert!(try_handshake(&node, &old, &TLS13, &[]).await.is_ok(), "{words}");
    }
    fs::remove_file(&pair.key).unwrap();
    node.signal(Signal::SIGHUP);
    node.logs("cannot be read");
    assert!(try_handshake(&node, &old, &TLS13, &[]).await.is_ok());
    pair.write(&(chain, key));
    shown(&node, &pair.certificate()).await;
    node.stop().await;
}

#[tokio::test]
async fn a_node_with_wrong_tls_options_says_why_and_touches_nothing() {
    let pair = Pair::new(|_| {});
    let other = Pair::new(|_| {});
    let [chain, key, other] = [&pair.chain, &pair.key, &other.key].map(|path| path.to_str().unwrap());
    let dir = pair.dir.path().to_str().unwrap();
    for (args, code, words) in [
        (vec!["--tls-cert", chain], 2, "--tls-key"),
        (vec!["--tls-key", key], 2, "--tls-cert"),
        (vec!["--tls-cert", "/nonexistent", "--tls-key", key], 2, "/nonexistent cannot be read"),
        (vec!["--tls-cert", chain, "--tls-key", dir], 2, "cannot be read"),
        (vec!["--tls-cert", key, "--tls-key", key], 2, "holds no certificate"),
        (vec!["--tls-cert", chain, "--tls-key", chain], 2, "holds no private key"),
        (vec!["--tls-cert", chain, "--tls-key", other], 2, "does not belong to"),
        (vec!["--body-timeout", "0"], 2, "not between"),
        (vec!["--peer-connections", "0"], 2, "is not between 1 and"),
    ] {
        let scratch = tempfile::tempdir().unwrap();
        let data = scratch.path().join("data");
        let mut command = TestNode::command(&data, &args);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap());
        let output = within("the node's end", output).await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(code) && said.contains(words), "{args:?}: {said}");
        assert!(!data.exists(), "{args:?}: nothing was made, so nothing was bound");
    }
}

#[tokio::test]
async fn an_expired_certificate_is_told_in_the_log() {
    let pair = Pair::new(|params| params.not_after = date_time_ymd(2020, 1, 1));
    let mut node = pair.node(&[]).await;
    // What it says before it listens is not kept, so it says it once more.
    node.signal(Signal::SIGHUP);
    node.logs("has expired");
    node.signal(Signal::SIGTERM);
    assert!(node.ended().await.0.success());
}

#[tokio::test]
async fn a_handshake_that_is_not_finished_delays_nobody() {
    let pair = Pair::new(|_| {});
    let node = pair.node(&[]).await;
    let _silent = tcp(&node).await;
    let mut partial = tcp(&node).await;
    partial.write_all(b"\x16\x03\x01\x02\x00\x01").await.unwrap();
    assert!(asks_health(&mut handshake(&node, &pair, &[]).await).await.starts_with("HTTP/1.1 200"));
    node.stop().await;
}

#[tokio::test]
async fn a_body_that_does_not_arrive_in_time_is_answered_408_and_nothing_runs() {
    let pair = Pair::new(|_| {});
    for options in [pair.options().to_vec(), vec![]] {
        let node = TestNode::start_with(&[options.as_slice(), &["--body-timeout", "2"]].concat()).await;
        node.deploy("f", PLAIN, json!({ "handler": "index.length" })).await;
        let head = format!(
            "POST {INVOKE} HTTP/1.1\r\nHost: a\r\nX-Auth-Token: {}\r\nContent-Length: 600\r\n\r\n[",
            node.token
        );
        let answer = if options.is_empty() {
            drip(tcp(&node).await, &head).await
        } else {
            drip(handshake(&node, &pair, &[]).await, &head).await
        };
        assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("FSS.0408"), "{answer}");
        assert!(answer.contains("did not arrive within 2 s"), "{answer}");
        assert_eq!(node.view().await["requests"], json!([]));
        node.stop().await;
    }
}

/// Sends a body one byte at a time until there is an answer.
async fn drip(mut stream: impl AsyncRead + AsyncWrite + Unpin, head: &str) -> String {
    within("the answer", async {
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = vec![0; 4_096];
        loop {
            tokio::select! {
                length = stream.read(&mut answer) => {
                    to_end(&mut stream).await;
                    return String::from_utf8_lossy(&answer[..length.unwrap()]).into_owned();
                }
                () = tokio::time::sleep(Duration::from_millis(200)) => stream.write_all(b" ").await.unwrap(),
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_drain_ends_whatever_clients_leave_open() {
    let pair = Pair::new(|_| {});
    let mut node = pair.node(&["--drain", "1", "--body-timeout", "600"]).await;
    let bell = Bell::hang().await;
    node.deploy("f", PLAIN, json!({ "handler": "index.large" })).await;
    node.deploy_probe("g", 1, 2, json!({})).await;
    let stream = handshake(&node, &pair, &["h2"]).await;
    let (mut http2, connection) = within("HTTP/2", h2::client::handshake(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let post = |path: &str| {
        let request = http::Request::post(format!("https://localhost{path}"));
        request.header("X-Auth-Token", &node.token).body(()).unwrap()
    };
    // An answer that nobody reads, a request that runs, a body that never ends.
    let (unread, mut body) = http2.send_request(post(INVOKE), false).unwrap();
    body.send_data(r#"{"bytes": 3000000}"#.into(), true).unwrap();
    let unread = within("its head", unread).await.unwrap();
    assert_eq!(unread.status(), 200);
    let (_runs, mut body) = http2.send_request(post(&INVOKE.replace("/f/", "/g/")), false).unwrap();
    body.send_data(json!({ "do": "wait", "port": bell.port }).to_string().into(), true).unwrap();
    let _ring = bell.ring().await;
    let (_sends, mut endless) = http2.send_request(post(INVOKE), false).unwrap();
    endless.send_data("[".into(), false).unwrap();
    let half = tcp(&node).await;
    let mut head = handshake(&node, &pair, &[]).await;
    head.write_all(b"GET / HT").await.unwrap();
    let silent = handshake(&node, &pair, &[]).await;
    node.signal(Signal::SIGTERM);
    let (status, log) = node.ended().await;
    assert!(status.success(), "{log:#?}");
    drop(within("the connection's end", connection).await.unwrap());
    drop((unread, half, head, silent));
}

#[tokio::test]
async fn a_drain_tells_idle_http_2_connections_to_go() {
    let pair = Pair::new(|_| {});
    let mut node = pair.node(&[]).await;
    let mut stream = handshake(&node, &pair, &["h2"]).await;
    stream.write_all(HTTP_2_REQUEST).await.unwrap();
    let mut all = vec![0; 64 << 10];
    let length = within("an answer", stream.read(&mut all)).await.unwrap();
    all.truncate(length);
    node.signal(Signal::SIGTERM);
    // It does not answer the ping that comes with it, so in the end it is cut.
    drop(within("the connection's end", stream.read_to_end(&mut all)).await);
    assert!(all.windows(GOAWAY.len()).any(|frame| frame == GOAWAY), "{all:?}");
    assert!(node.ended().await.0.success());
}

#[tokio::test]
async fn a_flood_of_silent_connections_keeps_nobody_out() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let node = TestNode::start().await;
    let bell = Bell::hang().await;
    node.deploy_probe("f", 1, 1, json!({})).await;
    let asked = node.invoke("f", &json!({ "do": "wait", "port": bell.port }));
    let ring = bell.ring().await;
    // As many as this machine may have of a listener, and some more.
    let most = usize::try_from((hard / 4).min(4_096)).unwrap() * 3 / 4;
    let mut flood = Vec::new();
    for _ in 0..most + 50 {
        flood.push(within("a connection", tcp(&node)).await);
    }
    assert_eq!(node.get("/quell/v1/health").await.status, 200);
    assert_eq!(quell(&node.dir, &["ls"]).await.0, 0);
    assert!(within("the first of the flood", flood[0].read(&mut [0; 1])).await.is_ok_and(|read| read == 0));
    assert!(!asked.is_finished(), "whoever waits for an answer is not put out");
    assert_eq!(node.cancel("f", &ring.request(), Mode::Force).await.status, 200);
    assert_eq!(within("its answer", asked).await.unwrap().header("x-func-err-code"), "4208");
    drop(flood);
    node.stop().await;
}
