//! A client of the node: what it asks, and what the answers mean.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use reqwest::{Client, Method};
use serde_json::{Value, json};

use crate::{
    book::Row,
    plan::{FUNCTIONS, Mode},
};

/// No answer takes a fifth of this, unless the node is gone and the connection with it.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// Rows of one page of the listing.
const PAGE: u64 = 500;
/// Requests of this run are younger than any run lasts, and older than tomorrow.
const EVER: &str = "2000-01-01T00:00:00";
/// Of all functions: what does not cooperate is killed after this.
const GRACE_MS: u64 = 100;

/// A client of one life of the node.
#[derive(Clone, Debug)]
pub struct Api {
    http: Client,
    endpoint: String,
    token: String,
}

/// What became of an invocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Called {
    /// 202.
    Accepted(String),
    /// Nothing was promised: the node is ending, or was killed before it answered.
    Nothing,
    /// An answer that has no place here.
    Surprise(String),
}

/// What became of a cancel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Canceled {
    /// 200, and how far it is.
    Done(String),
    /// 400: it had ended so before.
    Finished(String),
    /// 400: no such request.
    Unknown,
    /// 500: it is stopped, and that is not on the disk.
    Unrecorded(String),
    /// Nothing was promised.
    Nothing,
    /// An answer that has no place here.
    Surprise(String),
}

impl Api {
    /// A client of the node that listens there.
    ///
    /// # Errors
    /// When the node's credential cannot be read.
    pub fn new(endpoint: &str, data: &Path) -> anyhow::Result<Self> {
        let file = data.join("client.json");
        let client: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
        let token = client["token"].as_str().context("client.json has no token")?.to_owned();
        // The client wants one, TLS or not; Err: there is one.
        drop(rustls::crypto::ring::default_provider().install_default());
        let http = Client::builder().no_proxy().timeout(ANSWER_LIMIT).build()?;
        Ok(Self { http, endpoint: endpoint.to_owned(), token })
    }

    /// Creates the functions, which write to this ledger.
    ///
    /// # Errors
    /// When the node refuses one.
    pub async fn deploy(&self, ledger: &Path) -> anyhow::Result<()> {
        let source = base64::engine::general_purpose::STANDARD.encode(include_str!("../function.py"));
        for (name, requests, instances) in FUNCTIONS {
            let body = json!({
                "func_name": name,
                "package": "default",
                "runtime": "Python3.10",
                "handler": "index.handler",
                "timeout": 120,
                "memory_size": 128,
                "code_type": "inline",
                "func_code": { "file": source },
                "user_data": json!({ "ledger": ledger }).to_string(),
                "strategy_config": { "concurrency": instances, "concurrent_num": requests },
                // Nobody who only shares a runtime with a cancelled request may end with it.
                "quell": { "grace_ms": GRACE_MS, "on_collateral": "retry" },
            });
            let (status, answer, _) = self.send(Method::POST, "", Some(&body), false).await?;
            ensure!(status == 200, "{name} cannot be deployed: {status} {answer}");
        }
        Ok(())
    }

    /// Invokes asynchronously.
    pub async fn invoke(&self, function: &str, event: &Value) -> Called {
        let path = format!("/{function}/invocations-async");
        match self.send(Method::POST, &path, Some(event), false).await {
            Ok((202, answer, _)) => match answer["request_id"].as_str() {
                Some(request) => Called::Accepted(request.to_owned()),
                None => Called::Surprise(format!("202 without an id: {answer}")),
            },
            Ok((503, ..)) | Err(_) => Called::Nothing,
            Ok((status, answer, _)) => Called::Surprise(format!("invoke {function}: {status} {answer}")),
        }
    }

    /// Cancels.
    pub async fn cancel(&self, function: &str, request: &str, mode: Mode) -> Canceled {
        let mut body = match mode {
            Mode::Plain | Mode::Early => json!({}),
            Mode::Recursive => json!({ "type": "recursive" }),
            Mode::Force => json!({ "type": "force" }),
            Mode::Both => json!({ "recursive": true, "force": true }),
        };
        body["request_id"] = json!(request);
        let path = format!("/{function}/cancel");
        let (status, answer, stop) =
            match self.send(Method::POST, &path, Some(&body), mode == Mode::Early).await {
                Ok(answer) => answer,
                Err(_) => return Canceled::Nothing,
            };
        let message = answer["error_msg"].as_str().unwrap_or_default();
        match (status, message.strip_prefix("Invalid RequestId")) {
            (200, _) => Canceled::Done(stop),
            (400, Some("")) => Canceled::Unknown,
            (400, Some(told)) => Canceled::Finished(told.trim_start_matches(": ").to_owned()),
            (503, _) => Canceled::Nothing,
            (500, _) if message.contains("could not be recorded") => Canceled::Unrecorded(message.to_owned()),
            _ => {
                Canceled::Surprise(format!("cancel {function} {request} {mode:?}: {status} {answer} {stop}"))
            }
        }
    }

    /// The youngest requests of all functions.
    ///
    /// # Errors
    /// When the node does not answer.
    pub async fn youngest(&self) -> anyhow::Result<Vec<Row>> {
        let mut rows = Vec::new();
        for (name, ..) in FUNCTIONS {
            rows.extend(self.page(name, "limit=100").await?.0);
        }
        Ok(rows)
    }

    /// All requests there ever were. Nothing may be accepted meanwhile, or pages overlap.
    ///
    /// # Errors
    /// When the node does not answer.
    pub async fn all(&self) -> anyhow::Result<Vec<Row>> {
        let mut rows = Vec::new();
        for (name, ..) in FUNCTIONS {
            let mut marker = 0;
            loop {
                let query = format!("query_begin_time={EVER}&limit={PAGE}&marker={marker}");
                let (page, list) = self.page(name, &query).await?;
                rows.extend(page);
                marker = list["next_marker"].as_u64().context("no next_marker")?;
                if marker == 0 {
                    break;
                }
            }
        }
        Ok(rows)
    }

    /// How many requests have not ended.
    ///
    /// # Errors
    /// When the node does not answer.
    pub async fn unsettled(&self) -> anyhow::Result<u64> {
        let mut count = 0;
        for (name, ..) in FUNCTIONS {
            for status in ["WAIT", "RUNNING"] {
                let query = format!("query_begin_time={EVER}&status={status}&limit=1");
                count += self.page(name, &query).await?.1["count"].as_u64().context("no count")?;
            }
        }
        Ok(count)
    }

    async fn page(&self, function: &str, query: &str) -> anyhow::Result<(Vec<Row>, Value)> {
        let path = format!("/{function}/async-invocations?{query}");
        let (status, list, _) = self.send(Method::GET, &path, None, false).await?;
        ensure!(status == 200, "{path}: {status} {list}");
        let rows = list["invocations"].as_array().context("no invocations")?;
        let text = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
        let rows = rows.iter().map(|row| Row {
            request: text(row, "request_id"),
            status: text(row, "status"),
            code: row["error_code"].as_i64().unwrap_or(-1),
            message: text(row, "error_message"),
        });
        Ok((rows.collect(), list))
    }

    /// Status, body and `X-Quell-Stop` of an answer that came whole.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        early: bool,
    ) -> anyhow::Result<(u16, Value, String)> {
        let url = format!("{}/v2/default/fgs/functions{path}", self.endpoint);
        let mut request = self.http.request(method, url).header("X-Auth-Token", &self.token);
        if early {
            request = request.header("Prefer", "respond-async");
        }
        if let Some(body) = body {
            request = request.header("Content-Type", "application/json").body(body.to_string());
        }
        let response = request.send().await?;
        let status = response.status().as_u16();
        let stop = response.headers().get("x-quell-stop").and_then(|stop| stop.to_str().ok());
        let stop = stop.unwrap_or_default().to_owned();
        let body = response.bytes().await?;
        let body = serde_json::from_slice(&body)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&body).into_owned()));
        Ok((status, body, stop))
    }
}
