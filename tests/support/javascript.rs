//! Functions in JavaScript, and the bell that they ring: by TCP, as not every version of Node.js knows
//! abstract sockets.

use std::collections::HashMap;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use super::{Reply, TestNode, within};

pub const SHARED: usize = 8;
pub const CANCELED: (u16, &str) = (500, "FSS.4208");

/// Where functions say that they are at the point the test waits for.
pub struct TcpBell(TcpListener);

pub struct TcpRing {
    pub facts: Value,
    pub line: BufReader<TcpStream>,
}

impl TcpBell {
    pub async fn hang() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    pub fn port(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }

    pub async fn ring(&self) -> TcpRing {
        within("a ring of the bell", async {
            let mut line = BufReader::new(self.0.accept().await.unwrap().0);
            let mut text = String::new();
            line.read_line(&mut text).await.unwrap();
            TcpRing { facts: serde_json::from_str(&text).unwrap(), line }
        })
        .await
    }
}

impl TcpRing {
    pub fn fact(&self, name: &str) -> String {
        self.facts[name].as_str().unwrap().to_owned()
    }

    pub fn request(&self) -> String {
        self.fact("request")
    }

    pub async fn release(&mut self) {
        self.line.get_mut().write_all(b"go").await.unwrap();
    }

    /// What else it said until its end of the line closed; a killed process says nothing.
    pub async fn last_words(&mut self) -> String {
        let mut words = Vec::new();
        drop(within("the end of a line", self.line.read_to_end(&mut words)).await);
        String::from_utf8_lossy(&words).into_owned()
    }
}

pub async fn deploy(node: &TestNode, name: &str, more: Value) {
    let mut body = json!({ "runtime": "Node.js20.15" });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    node.deploy(name, include_str!("../functions/probe.js"), body).await;
}

/// With N requests an instance, on one instance.
pub async fn deploy_shared(node: &TestNode, name: &str, requests: usize, quell: Value) {
    let strategy = json!({ "concurrency": 1, "concurrent_num": requests });
    deploy(node, name, json!({ "strategy_config": strategy, "quell": quell })).await;
}

/// So many synchronous requests that wait on one instance; by tag.
pub async fn waiting(
    node: &TestNode,
    bell: &TcpBell,
    function: &str,
    count: usize,
) -> (HashMap<String, JoinHandle<Reply>>, HashMap<String, TcpRing>) {
    let (mut answers, mut rings) = (HashMap::new(), HashMap::new());
    for at in 0..count {
        let tag = format!("a{at}");
        answers.insert(
            tag.clone(),
            node.invoke(function, &json!({ "do": "wait", "port": bell.port(), "tag": tag })),
        );
    }
    for _ in 0..count {
        let ring = bell.ring().await;
        rings.insert(ring.fact("tag"), ring);
    }
    (answers, rings)
}

pub async fn answered(what: &str, answer: JoinHandle<Reply>) -> Reply {
    within(what, answer).await.unwrap()
}

/// They are told to go on, and each gives its own answer from the same process.
pub async fn finish(mut answers: HashMap<String, JoinHandle<Reply>>, rings: HashMap<String, TcpRing>) {
    for (tag, mut ring) in rings {
        ring.release().await;
        let reply = answered(&tag, answers.remove(&tag).unwrap()).await;
        assert_eq!(reply.status, 200, "{tag}: {}", reply.text());
        assert_eq!(reply.json(), json!({ "me": ring.facts["me"], "told": "go", "tag": tag }));
    }
    assert!(answers.is_empty());
}

#[track_caller]
pub fn assert_canceled(reply: &Reply) {
    let (status, code, _) = reply.error();
    assert_eq!((status, code.as_str()), CANCELED);
}
