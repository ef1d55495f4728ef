//! The Lambda clients of others and the functions that the tests run with them.

use std::path::{Path, PathBuf};

pub use super::waiting;
use super::{Reply, TestNode, base64, within, zip};
use serde_json::{Value, json};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    Python,
    Node,
    Rust,
}

pub const ALL: [Client; 3] = [Client::Python, Client::Node, Client::Rust];
/// These know no way to stop one request of several.
pub const WITHOUT_CANCEL: [Client; 2] = [Client::Node, Client::Rust];

/// Below the target folder, where `.ci/runtimes` has put it.
fn installed(path: &str) -> PathBuf {
    let built = Path::new(env!("CARGO_BIN_EXE_quell")).parent().unwrap();
    let found = built.parent().unwrap().join("runtimes").join(path);
    assert!(found.exists(), "{} is not there: run .ci/runtimes, which installs it", found.display());
    // Where it is in truth: a link to it may be where an instance does not see it.
    found.canonicalize().unwrap()
}

pub fn paths() -> [PathBuf; 2] {
    installed("python/installed-from");
    installed("node/installed-from");
    [installed("python/bin"), installed("node/node_modules/.bin")]
}

pub async fn start() -> TestNode {
    TestNode::start_with_path(&paths()).await
}

impl Client {
    fn package(self, broken: bool) -> Vec<u8> {
        let file = match (self, broken) {
            (Self::Python, false) => ("index.py", include_str!("../functions/lambda.py").to_owned()),
            (Self::Python, true) => ("index.py", include_str!("../functions/lambda_broken.py").to_owned()),
            (Self::Node, false) => ("index.mjs", include_str!("../functions/lambda.mjs").to_owned()),
            (Self::Node, true) => ("index.mjs", include_str!("../functions/lambda_broken.mjs").to_owned()),
            (Self::Rust, _) => {
                let program = installed("rust/quell-lambda-function");
                ("bootstrap", format!("#!/bin/sh\nexec '{}'\n", program.display()))
            }
        };
        zip(&[(file.0, file.1.as_bytes())])
    }

    /// Deploys the function of these tests. `more` is merged into the create body.
    pub async fn deploy(self, node: &TestNode, name: &str, (requests, instances): (u32, u32), more: Value) {
        let runtime = match self {
            Self::Python => "python3.11",
            Self::Node => "nodejs22.x",
            Self::Rust => "provided.al2023",
        };
        let broken = more["handler"] == "index.broken";
        let mut body = json!({
            "runtime": runtime,
            "code_type": "zip",
            "memory_size": 512,
            "func_code": { "file": base64(&self.package(broken)) },
            "strategy_config": { "concurrency": instances, "concurrent_num": requests },
        });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        node.deploy(name, "", body).await;
    }
}

pub async fn result(node: &TestNode, function: &str, event: Value) -> Reply {
    within("a result", node.invoke(function, &event)).await.unwrap()
}

pub async fn echo(node: &TestNode, function: &str) -> Value {
    let reply = result(node, function, json!({ "do": "echo", "tag": function })).await;
    assert_eq!(reply.status, 200, "{function}: {}", reply.text());
    reply.json()
}

pub fn instance_of(me: &Value) -> &str {
    me["me"].as_str().unwrap().split_once('/').unwrap().0
}

/// The evidence of the one request that a cancel covers, and the signals that its instance was sent.
pub async fn told(node: &TestNode, cancel: &Reply) -> (Value, Value) {
    let receipt = node.receipt(cancel.header("x-quell-cancel-id")).await;
    (receipt["requests"][0]["evidence"].clone(), receipt["instances"][0]["signals"].clone())
}
