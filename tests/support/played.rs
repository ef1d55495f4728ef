//! A runtime that the test plays: what it writes reaches the Runtime API byte by byte, and what comes back
//! is read as it is on the wire.

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
};

use super::{Bell, Reply, TestNode, base64, within, zip};

/// One instance whose part the test plays.
pub struct Played<'a> {
    bell: &'a Bell,
}

/// One connection of it to the Runtime API.
pub struct Line {
    stream: BufReader<UnixStream>,
}

impl<'a> Played<'a> {
    /// Deploys it; its first instance starts with the first request. `more` is merged into the create body.
    pub async fn deploy(node: &TestNode, bell: &'a Bell, name: &str, concurrency: u32, more: Value) -> Self {
        let code = zip(&[("bootstrap", include_bytes!("../functions/played.py"))]);
        let mut body = json!({
            "runtime": "Custom",
            "code_type": "zip",
            "func_code": { "file": base64(&code) },
            "user_data": json!({ "port": bell.port.to_string() }).to_string(),
            "strategy_config": { "concurrency": 1, "concurrent_num": concurrency },
        });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        node.deploy(name, "", body).await;
        Self { bell }
    }

    /// The next connection.
    pub async fn line(&self) -> Line {
        Line { stream: self.bell.ring().await.into_stream() }
    }

    /// A connection on which this was asked.
    pub async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Line {
        let mut line = self.line().await;
        line.send("GET", path, headers, "").await;
        line
    }

    /// The whole exchange.
    pub async fn post(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        let mut line = self.line().await;
        line.send("POST", path, headers, body).await;
        line.reply().await
    }

    /// Takes the next request: its id and the id of its invocation.
    pub async fn take(&self) -> (String, String) {
        let mut poll = self.get("/v1/runtime/invocation/request", &[]).await;
        let given = poll.reply().await;
        assert_eq!(given.status, 200);
        let header = |name: &str| given.header(name).to_owned();
        (header("x-cff-request-id"), header("x-quell-invocation-id"))
    }
}

impl Line {
    pub async fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) {
        let mut text = format!("{method} {path} HTTP/1.1\r\nHost: quell\r\n");
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
        self.stream.get_mut().write_all(text.as_bytes()).await.unwrap();
    }

    /// Status and headers of the answer; its body is still to come.
    pub async fn head(&mut self) -> Reply {
        let status = self.line().await;
        let status = status.split(' ').nth(1).unwrap().parse().unwrap();
        let mut headers = reqwest::header::HeaderMap::new();
        loop {
            let line = self.line().await;
            let Some((name, value)) = line.split_once(": ") else { break };
            let name = reqwest::header::HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.insert(name, value.parse().unwrap());
        }
        Reply { status, headers, body: Vec::new() }
    }

    /// The whole answer, which says how long it is.
    pub async fn reply(&mut self) -> Reply {
        let mut reply = self.head().await;
        reply.body = self.body(&reply).await.into_bytes();
        reply
    }

    /// The body that belongs to this head, which says how long it is.
    pub async fn body(&mut self, head: &Reply) -> String {
        let mut body = vec![0; head.header("content-length").parse().unwrap_or(0)];
        within("a body", self.stream.read_exact(&mut body)).await.unwrap();
        String::from_utf8(body).unwrap()
    }

    /// The next piece of an answer in pieces; empty at its end.
    pub async fn chunk(&mut self) -> String {
        let length = usize::from_str_radix(&self.line().await, 16).unwrap();
        let mut chunk = vec![0; length + 2];
        within("a chunk", self.stream.read_exact(&mut chunk)).await.unwrap();
        chunk.truncate(length);
        String::from_utf8(chunk).unwrap()
    }

    /// Whether nothing of an answer is here yet.
    pub async fn is_held(&mut self) -> bool {
        tokio::select! {
            biased;
            read = self.stream.fill_buf() => panic!("{:?}", read.map(String::from_utf8_lossy)),
            () = std::future::ready(()) => true,
        }
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        within("a line", self.stream.read_line(&mut line)).await.unwrap();
        line.trim_end().to_owned()
    }
}
