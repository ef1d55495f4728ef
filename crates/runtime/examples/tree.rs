//! A part of a tree whose parts are of all kinds of runtimes (tests/mixed_tree.rs): it starts children, rings the
//! test's bell, and waits, like tests/functions/tree.py.

use quell_runtime::{Context, Error, RunError};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};

async fn handler(event: Value, context: Context) -> Result<Value, Error> {
    let children = event["children"].as_array().ok_or("no children")?;
    let (waited, others): (Vec<&Value>, Vec<&Value>) =
        children.iter().partition(|child| child["sync"] == true);
    for child in others {
        let function = child["function"].as_str().ok_or("a child has no function")?;
        context.invoke_async(function, &child["event"]).await?;
    }
    let mut line = UnixStream::connect(event["bell"].as_str().ok_or("no bell")?).await?;
    let facts = json!({ "tag": event["tag"], "request": context.request_id() });
    line.write_all(format!("{facts}\n").as_bytes()).await?;
    let work = async {
        match waited.first() {
            Some(child) => {
                let function = child["function"].as_str().ok_or("a child has no function")?;
                drop(context.invoke::<Value>(function, &child["event"]).await?);
            }
            None => drop(line.read(&mut [0; 10]).await?),
        }
        Ok(json!({ "tag": event["tag"] }))
    };
    tokio::select! {
        done = work => done,
        () = context.token().cancelled() => Err("stopped".into()),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), RunError> {
    quell_runtime::run(handler).await
}
