//! The function of the end-to-end tests (tests/rust_runtime.rs): it rings the test's bell and does what its
//! event says, like tests/functions/probe.py.

use std::os::{linux::net::SocketAddrExt as _, unix::net::SocketAddr};

use quell_runtime::{Context, Error, RunError};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};

/// A line to the test, on which this has been told.
async fn ring(event: &Value, context: &Context, children: &[String]) -> Result<UnixStream, Error> {
    let port = event["port"].as_u64().ok_or("no port")?;
    let name = SocketAddr::from_abstract_name(format!("quell-bell-{port}"))?;
    let line = std::os::unix::net::UnixStream::connect_addr(&name)?;
    line.set_nonblocking(true)?;
    let mut line = UnixStream::from_std(line)?;
    let facts = json!({ "tag": event["tag"], "request": context.request_id(), "children": children });
    line.write_all(format!("{facts}\n").as_bytes()).await?;
    Ok(line)
}

async fn handler(event: Value, context: Context) -> Result<Value, Error> {
    let mut children = Vec::new();
    for child in event["children"].as_array().into_iter().flatten() {
        let function = child["function"].as_str().unwrap_or_default();
        children.push(context.invoke_async(function, child).await?);
    }
    let mut line = ring(&event, &context, &children).await?;
    let mut word = [0; 16];
    match event["do"].as_str() {
        // Waits for the test, and cleans up when it is cancelled.
        Some("wait") => tokio::select! {
            read = line.read(&mut word) => drop(read?),
            () = context.token().cancelled() => {
                line.write_all(format!("cleaned {:?}", context.reason()).as_bytes()).await?;
                return Err("cancelled".into());
            }
        },
        // Does not look at its token; its future can be dropped.
        Some("ignore") => drop(line.read(&mut word).await?),
        // Never comes to an `.await`.
        Some("block") => loop {
            std::hint::spin_loop();
        },
        // Returns at once when it is cancelled, and leaves a task that does not look.
        Some("leave") => {
            let left = context.spawn(async move { line.read(&mut word).await.is_ok() });
            tokio::select! {
                _ = left => {}
                () = context.token().cancelled() => {}
            }
        }
        Some("invoke") => {
            return Ok(context
                .invoke(event["function"].as_str().unwrap_or_default(), &event["event"])
                .await?);
        }
        Some("panic") => panic!("as the test asked"),
        _ => return Err("what is to be done?".into()),
    }
    Ok(json!({ "tag": event["tag"], "process": std::process::id() }))
}

#[tokio::main]
async fn main() -> Result<(), RunError> {
    quell_runtime::run_with(async {
        match std::env::var("RUNTIME_HANDLER").as_deref() {
            Ok("bootstrap.broken") => Err("no table to sit at"),
            _ => Ok(handler),
        }
    })
    .await
}
