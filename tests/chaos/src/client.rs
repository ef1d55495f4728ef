//! A client of the node: what it asks, and what the answers mean.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use reqwest::{Client, Method};
use serde_json::{Value, json};

use crate::{
    book::{Receipt, Row},
    plan::{FUNCTIONS, Mode},
};

/// No answer takes a fifth of this, unless the node is gone and the connection with it.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
const LATE: &str = "no answer, though there was a node to give one";
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
    /// 200, how far it is, and the id of its receipt.
    Done(String, String),
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
            let (status, answer, ..) = self.send(Method::POST, "", Some(&body), false).await?;
            ensure!(status == 200, "{name} cannot be deployed: {status} {answer}");
        }
        Ok(())
    }

    /// Invokes asynchronously.
    pub async fn invoke(&self, function: &str, event: &Value) -> Called {
        let path = format!("/{function}/invocations-async");
        match self.send(Method::POST, &path, Some(event), false).await {
            Ok((202, answer, ..)) => match answer["request_id"].as_str() {
                Some(request) => Called::Accepted(request.to_owned()),
                None => Called::Surprise(format!("202 without an id: {answer}")),
            },
            Ok((503, ..)) => Called::Nothing,
            Err(error) if is_late(&error) => Called::Surprise(format!("invoke {function}: {LATE}")),
            Err(_) => Called::Nothing,
            Ok((status, answer, ..)) => Called::Surprise(format!("invoke {function}: {status} {answer}")),
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
        let (status, answer, stop, cancel) =
            match self.send(Method::POST, &path, Some(&body), mode == Mode::Early).await {
                Ok(answer) => answer,
                Err(error) if is_late(&error) => {
                    return Canceled::Surprise(format!("cancel {function} {request} {mode:?}: {LATE}"));
                }
                Err(_) => return Canceled::Nothing,
            };
        let message = answer["error_msg"].as_str().unwrap_or_default();
        match (status, message.strip_prefix("Invalid RequestId")) {
            (200, _) if !cancel.is_empty() => Canceled::Done(stop, cancel),
            (400, Some("")) => Canceled::Unknown,
            (400, Some(told)) => Canceled::Finished(told.trim_start_matches(": ").to_owned()),
            (503, _) => Canceled::Nothing,
            (500, _) if message.contains("could not be recorded") => Canceled::Unrecorded(message.to_owned()),
            _ => {
                Canceled::Surprise(format!("cancel {function} {request} {mode:?}: {status} {answer} {stop}"))
            }
        }
    }

    /// Whether the node should be sent work: it holds its lease, and its store takes what it writes.
    pub async fn is_ready(&self) -> bool {
        let asked = self.http.get(format!("{}/quell/v1/ready", self.endpoint)).send().await;
        asked.is_ok_and(|answer| answer.status().is_success())
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
        let (status, list, ..) = self.send(Method::GET, &path, None, false).await?;
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

    /// The receipt of a cancel; none if there is none.
    ///
    /// # Errors
    /// When the node does not answer.
    pub async fn receipt(&self, cancel: &str) -> anyhow::Result<Option<Receipt>> {
        let Some(told) = self.look(&format!("/quell/v1/cancels/{cancel}")).await? else { return Ok(None) };
        let text = |value: &Value, name: &str| value[name].as_str().unwrap_or_default().to_owned();
        let parts = told["parts"].as_array().into_iter().flatten();
        Ok(Some(Receipt {
            result: text(&told, "result"),
            closed: told["closed_ms"].is_i64(),
            recorded: told["recorded_ms"].is_i64(),
            stopped_later: told["stopped_later_ms"].is_i64(),
            parts: parts.map(|part| text(part, "result")).collect(),
        }))
    }

    /// The epoch of this node among those that share its store: it rises with each of its lives, and when its lease is
    /// over.
    ///
    /// # Errors
    /// When the node does not answer, or shares no store.
    pub async fn epoch(&self) -> anyhow::Result<i64> {
        let told = self.look("/quell/v1/nodes").await?.context("no list of nodes")?;
        let mut nodes = told["nodes"].as_array().context("no nodes")?.iter();
        let own = nodes.find(|node| node["node"] == told["this"]).context("the node is none of them")?;
        own["epoch"].as_i64().context("no epoch")
    }

    async fn look(&self, path: &str) -> anyhow::Result<Option<Value>> {
        let asked = self.http.get(format!("{}{path}", self.endpoint)).header("X-Auth-Token", &self.token);
        let answer = asked.send().await?;
        let status = answer.status().as_u16();
        ensure!(matches!(status, 200 | 404), "{path}: {status}");
        let body = answer.bytes().await?;
        Ok(if status == 200 { Some(serde_json::from_slice(&body)?) } else { None })
    }

    /// Status, body, `X-Quell-Stop` and `X-Quell-Cancel-Id` of an answer that came whole.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        early: bool,
    ) -> anyhow::Result<(u16, Value, String, String)> {
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
        let header = |name| {
            let told = response.headers().get(name).and_then(|told| told.to_str().ok());
            told.unwrap_or_default().to_owned()
        };
        let (stop, cancel) = (header("x-quell-stop"), header("x-quell-cancel-id"));
        let body = response.bytes().await?;
        let body = serde_json::from_slice(&body)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&body).into_owned()));
        Ok((status, body, stop, cancel))
    }
}

/// Whether nothing came in time. A node that is gone is not late: its connections are gone with it.
fn is_late(error: &anyhow::Error) -> bool {
    error.downcast_ref::<reqwest::Error>().is_some_and(reqwest::Error::is_timeout)
}
