//! Asynchronous requests that come all the time, and what became of their acceptance.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
};

use super::{TestNode, within};

/// What it asks at the most, should nobody end it.
const MOST: usize = 10_000;
/// Between two of them: they are to go on through everything, not to fill the queue.
const BETWEEN: Duration = Duration::from_millis(20);

/// Somebody who invokes a function on one node after the other. Its test has more than one thread: what the test waits
/// for must not stop it.
pub struct Load {
    accepted: watch::Receiver<usize>,
    end: oneshot::Sender<()>,
    task: JoinHandle<Vec<String>>,
}

impl Load {
    /// Begins. Each request is accepted or refused with 503; a node that is not there counts as the latter.
    pub fn begin(nodes: &[TestNode], function: &str, event: &Value) -> Self {
        let event = event.clone();
        let path = format!("/v2/default/fgs/functions/{function}/invocations-async");
        let asks: Vec<_> =
            nodes.iter().map(|node| (format!("{}{path}", node.endpoint), node.token.clone())).collect();
        let (count, accepted) = watch::channel(0);
        let (end, mut ended) = oneshot::channel();
        let task = tokio::spawn(async move {
            let http = super::client_trusting(&json!({})).build().unwrap();
            let mut ids = Vec::new();
            for number in 0..MOST {
                let (url, token) = &asks[number % asks.len()];
                let ask = http.post(url).header("X-Auth-Token", token).json(&event);
                if let Ok(reply) = ask.send().await {
                    let status = reply.status().as_u16();
                    let text = reply.text().await.unwrap_or_default();
                    assert!([202, 503].contains(&status), "{status}: {text}");
                    if status == 202 {
                        let reply: Value = serde_json::from_str(&text).unwrap();
                        ids.push(reply["request_id"].as_str().unwrap().to_owned());
                        count.send_replace(ids.len());
                    }
                }
                tokio::select! {
                    _ = &mut ended => break,
                    () = tokio::time::sleep(BETWEEN) => {}
                }
            }
            ids
        });
        Self { accepted, end, task }
    }

    /// Waits until so many more have been accepted.
    pub async fn more(&mut self, count: usize) {
        let wanted = *self.accepted.borrow() + count;
        within("more that is accepted", self.accepted.wait_for(|accepted| *accepted >= wanted))
            .await
            .unwrap();
    }

    /// Ends it: the requests that were accepted.
    pub async fn end(self) -> Vec<String> {
        self.end.send(()).unwrap();
        within("the end of the load", self.task).await.unwrap()
    }
}
