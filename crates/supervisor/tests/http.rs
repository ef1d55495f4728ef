//! The listener for strangers, with limits that are short enough to be waited for.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)] // a test that cannot go on fails

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, body::Body, routing::get};
use supervisor::http::{self, Certificates, Serving, Strangers};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// Nothing here takes a tenth of this.
const LIMIT: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(300);
/// More than the buffers of a connection on loopback take.
const LARGE: usize = 32 << 20;

/// What begins HTTP/2, no settings, and `GET /` as a whole.
const HTTP_2_REQUEST: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\
    \0\0\x03\x01\x05\0\0\0\x01\x82\x86\x84";
/// The frame that says: whatever is on its way is served, and nothing new.
const GOAWAY: &[u8] = b"\0\0\x08\x07\0\0\0\0\0\x7f\xff\xff\xff\0\0\0\0";

struct Server {
    address: SocketAddr,
    end: CancellationToken,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(max_connections: usize, head_limit: Duration) -> Self {
        Self::start_with(max_connections, |strangers| strangers.head_limit = head_limit).await
    }

    async fn start_with(max_connections: usize, change: impl FnOnce(&mut Strangers)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let router = Router::new()
            .route("/small", get(async || "small"))
            .route("/large", get(async || Body::from(vec![b'x'; LARGE])))
            .route("/slow", get(slow));
        let mut strangers = Strangers {
            peer_connections: max_connections,
            handshake_limit: LIMIT,
            head_limit: LIMIT,
            body_limit: LIMIT,
            certificates: None,
        };
        change(&mut strangers);
        let serving = Serving { max_connections, end_limit: SHORT, strangers: Some(strangers) };
        let (address, end) = (listener.local_addr().unwrap(), CancellationToken::new());
        let task = tokio::spawn(http::serve(listener, router, serving, |_| Some(()), end.clone()));
        Self { address, end, task }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn http2(&self) -> (h2::client::SendRequest<bytes::Bytes>, JoinHandle<Result<(), h2::Error>>) {
        let (client, connection) =
            within("the preface", h2::client::handshake(self.connect().await)).await.unwrap();
        (client, tokio::spawn(connection))
    }

    async fn ended(self) {
        self.end.cancel();
        within("the listener's end", self.task).await.unwrap();
    }
}

/// Runs for longer than an answer may wait to be taken.
async fn slow() -> &'static str {
    tokio::time::sleep(4 * SHORT).await;
    "slow"
}

async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    timeout(LIMIT, work).await.unwrap_or_else(|_| panic!("{what}: nothing after {LIMIT:?}"))
}

async fn ends(mut stream: TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    drop(within("the connection's end", stream.read_to_end(&mut all)).await);
    all
}

fn ask(path: &str) -> hyper::Request<()> {
    hyper::Request::get(format!("http://localhost{path}")).body(()).unwrap()
}

#[tokio::test]
async fn who_says_nothing_or_half_of_something_is_cut_off() {
    let server = Server::start(16, SHORT).await;
    for begun in [
        "",
        "G",
        "PRI",
        "PRI * HTTP/2.0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost:",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let mut stream = server.connect().await;
        stream.write_all(begun.as_bytes()).await.unwrap();
        ends(stream).await;
    }
    server.ended().await;
}

fn certificates() -> Certificates {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (chain_file, key_file) = (dir.path().join("chain.pem"), dir.path().join("key.pem"));
    std::fs::write(&chain_file, params.self_signed(&key).unwrap().pem()).unwrap();
    std::fs::write(&key_file, key.serialize_pem()).unwrap();
    Certificates::open(&chain_file, &key_file).unwrap()
}

#[tokio::test]
async fn a_handshake_that_is_not_finished_is_cut_off() {
    let change = |strangers: &mut Strangers| {
        strangers.certificates = Some(Arc::new(certificates()));
        strangers.handshake_limit = SHORT;
    };
    let server = Server::start_with(16, change).await;
    for begun in [b"".as_slice(), b"\x16", b"\x16\x03\x01\x02\x00\x01"] {
        let mut stream = server.connect().await;
        stream.write_all(begun).await.unwrap();
        ends(stream).await;
    }
    server.ended().await;
}

#[tokio::test]
async fn what_a_client_asks_that_came_just_before_the_end_is_answered() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, end) = (listener.local_addr().unwrap(), CancellationToken::new());
    let strangers = Strangers {
        peer_connections: 8,
        handshake_limit: LIMIT,
        head_limit: LIMIT,
        body_limit: LIMIT,
        certificates: None,
    };
    let serving = Serving { max_connections: 8, end_limit: LIMIT, strangers: Some(strangers) };
    let router = Router::new().route("/small", get(async || "small"));
    let server = tokio::spawn(http::serve(listener, router, serving, |_| Some(()), end.clone()));
    let mut early = TcpStream::connect(address).await.unwrap();
    let mut half = TcpStream::connect(address).await.unwrap();
    half.write_all(b"GET /small HTTP/1.1\r\n").await.unwrap();
    let silent = TcpStream::connect(address).await.unwrap();
    // They are accepted in their order: the others were before this one.
    let mut last = TcpStream::connect(address).await.unwrap();
    last.write_all(b"GET /small HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    assert!(ends(last).await.starts_with(b"HTTP/1.1 200"));
    end.cancel();
    early.write_all(b"GET /small HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    half.write_all(b"Host: a\r\n\r\n").await.unwrap();
    for stream in [early, half] {
        let answer = ends(stream).await;
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{:?}", String::from_utf8_lossy(&answer));
    }
    assert_eq!(ends(silent).await, b"", "who asks nothing is waited for a moment only");
    timeout(LIMIT, server).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_end_waits_for_no_handshake() {
    let change = |strangers: &mut Strangers| strangers.certificates = Some(Arc::new(certificates()));
    let server = Server::start_with(16, change).await;
    let mut half = server.connect().await;
    half.write_all(b"\x16\x03\x01").await.unwrap();
    server.ended().await;
    ends(half).await;
}

#[tokio::test]
async fn an_idle_http_2_connection_is_told_to_go() {
    let server = Server::start(16, SHORT).await;
    let mut stream = server.connect().await;
    stream.write_all(HTTP_2_REQUEST).await.unwrap();
    // It does not answer the ping that comes with it, so in the end it is cut.
    let all = ends(stream).await;
    assert!(all.windows(GOAWAY.len()).any(|frame| frame == GOAWAY), "{all:?}");
    server.ended().await;
}

#[tokio::test]
async fn who_does_not_take_his_answer_is_cut_off() {
    let server = Server::start(16, SHORT).await;
    let mut http1 = server.connect().await;
    http1.write_all(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let (mut client, connection) = server.http2().await;
    // The connection is alive and answers pings; only this one answer is not taken.
    let (answer, _) = client.send_request(ask("/large"), true).unwrap();
    let unread = within("its head", answer).await.unwrap();
    drop(within("the end of HTTP/2", connection).await.unwrap());
    let mut body = unread.into_body();
    let mut pieces = 0;
    let cut = loop {
        match within("the answer's end", body.data()).await {
            Some(Ok(_)) => pieces += 1,
            end => break end,
        }
    };
    assert!(matches!(cut, Some(Err(_))), "after {pieces} pieces: {cut:?}");
    server.ended().await;
    assert!(ends(http1).await.len() < LARGE);
}

/// A proxy has everybody's requests on one connection: a slow reader must not end those of others.
#[tokio::test]
async fn an_answer_that_is_not_taken_ends_alone() {
    let server = Server::start(16, SHORT).await;
    let (mut client, _connection) = server.http2().await;
    let (runs, _) = client.send_request(ask("/slow"), true).unwrap();
    let (answer, _) = client.send_request(ask("/large"), true).unwrap();
    let mut unread = within("its head", answer).await.unwrap().into_body();
    let cut = within("its end", async {
        loop {
            match unread.data().await {
                Some(Ok(_)) => {} // not given back, so there is no room for more
                end => break end,
            }
        }
    })
    .await;
    assert!(matches!(&cut, Some(Err(error)) if error.is_reset()), "{cut:?}");
    assert_eq!(within("the other's answer", runs).await.unwrap().status(), 200);
    server.ended().await;
}

#[tokio::test]
async fn who_takes_his_answer_gets_all_of_it() {
    let server = Server::start(16, SHORT).await;
    let mut http1 = server.connect().await;
    http1.write_all(b"GET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    assert!(ends(http1).await.len() > LARGE);
    let (mut client, _connection) = server.http2().await;
    let (answer, _) = client.send_request(ask("/large"), true).unwrap();
    let mut body = within("its head", answer).await.unwrap().into_body();
    let mut got = 0;
    while let Some(data) = within("a piece", body.data()).await {
        let length = data.unwrap().len();
        got += length;
        body.flow_control().release_capacity(length).unwrap();
    }
    assert_eq!(got, LARGE);
    server.ended().await;
}

#[tokio::test]
async fn an_end_waits_for_nobody_who_does_not_take_his_answer() {
    let server = Server::start(16, LIMIT).await;
    let mut http1 = server.connect().await;
    http1.write_all(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let (mut client, _connection) = server.http2().await;
    let (answer, _) = client.send_request(ask("/large"), true).unwrap();
    let _unread = within("its head", answer).await.unwrap();
    let _silent = server.connect().await;
    server.ended().await;
}

#[tokio::test]
async fn streams_are_bounded_and_taken_back_ones_too() {
    let server = Server::start(16, LIMIT).await;
    let (mut client, connection) = server.http2().await;
    let (answer, _) = client.send_request(ask("/small"), true).unwrap();
    assert_eq!(within("an answer", answer).await.unwrap().status(), 200);
    assert_eq!(client.current_max_send_streams(), 100);
    drop((client, connection));
    let mut flood = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    for stream in (1..2_000_u32).step_by(2) {
        // Opened (GET / without its end) and taken back in one breath.
        flood.extend_from_slice(b"\0\0\x03\x01\x04");
        flood.extend_from_slice(&stream.to_be_bytes());
        flood.extend_from_slice(b"\x82\x86\x84\0\0\x04\x03\0");
        flood.extend_from_slice(&stream.to_be_bytes());
        flood.extend_from_slice(b"\0\0\0\x08");
    }
    let mut flooding = server.connect().await;
    flooding.write_all(&flood).await.unwrap();
    let told = ends(flooding).await;
    let enhance_your_calm = [0, 0, 0, 11];
    assert!(told.windows(4).any(|code| code == enhance_your_calm), "{told:?}");
    let (mut client, _connection) = server.http2().await;
    let (answer, _) = client.send_request(ask("/small"), true).unwrap();
    assert_eq!(within("an answer to another", answer).await.unwrap().status(), 200);
    server.ended().await;
}

#[tokio::test]
async fn a_newcomer_takes_the_place_of_who_is_silent() {
    let server = Server::start(8, LIMIT).await;
    let mut working = server.connect().await;
    working.write_all(b"GET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut first = vec![0; 1];
    within("the answer's first byte", working.read_exact(&mut first)).await.unwrap();
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(server.connect().await);
    }
    let mut asks = server.connect().await;
    asks.write_all(b"GET /small HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    assert!(ends(asks).await.starts_with(b"HTTP/1.1 200"));
    ends(silent.remove(0)).await;
    assert!(ends(working).await.len() + 1 > LARGE, "whose answer is under way keeps its place");
    server.ended().await;
}

/// One frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Reads frames until there is one of this kind; the end of the connection and GOAWAY are none.
async fn until_frame(stream: &mut TcpStream, kind: u8) -> Vec<u8> {
    const GOAWAY: u8 = 7;
    within("a frame", async {
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await.unwrap();
            let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
            stream.read_exact(&mut payload).await.unwrap();
            assert!(head[3] != GOAWAY, "sent away: {}", String::from_utf8_lossy(&payload));
            if head[3] == kind {
                return payload;
            }
        }
    })
    .await
}

/// A proxy has everybody's requests on one connection. What is still on its way when a request is refused
/// before its body was read must not cost the others their connection.
#[tokio::test]
async fn bodies_of_refused_requests_that_are_still_on_their_way_end_nothing_else() {
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const RST_STREAM: u8 = 3;
    const SETTINGS: u8 = 4;
    const PING: u8 = 6;
    const END_HEADERS: u8 = 4;
    let server = Server::start(16, LIMIT).await;
    let mut stream = server.connect().await;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, b"")).await.unwrap();
    let refused: Vec<u32> = (1..=401).step_by(2).collect();
    for id in &refused {
        // POST / is no route, and nobody reads its body.
        stream.write_all(&frame(HEADERS, END_HEADERS, *id, b"\x83\x86\x84")).await.unwrap();
        until_frame(&mut stream, RST_STREAM).await;
    }
    for id in &refused {
        stream.write_all(&frame(DATA, 0, *id, &[b'x'; 1_024])).await.unwrap();
    }
    stream.write_all(&frame(PING, 0, 0, b"are you?")).await.unwrap();
    assert_eq!(until_frame(&mut stream, PING).await, b"are you?");
    server.ended().await;
}
