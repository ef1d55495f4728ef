//! An example function: it "fetches" pages, several at once, and stops when it is cancelled.
//!
//! Event: `{"pages": 40, "millis": 250}`. Result: `{"fetched": 40}`. Cancelled, it takes back what it has begun
//! and says how far it was; nothing of it runs any more when the cancel is answered.
#![allow(clippy::print_stdout)] // what a function prints is its log

use std::time::Duration;

use quell_runtime::{Context, Error, RunError};
use serde::{Deserialize, Serialize};

/// Pages at once.
const AT_ONCE: u32 = 4;

#[derive(Deserialize)]
struct Order {
    pages: u32,
    millis: u64,
}

#[derive(Serialize)]
struct Done {
    fetched: u32,
}

async fn handler(order: Order, context: Context) -> Result<Done, Error> {
    let mut fetched = 0;
    while fetched < order.pages {
        let batch: Vec<_> = (fetched..order.pages.min(fetched + AT_ONCE))
            // Tasks of the context end with the request, whatever becomes of the handler.
            .map(|page| context.spawn(fetch(page, order.millis)))
            .collect();
        for page in batch {
            tokio::select! {
                done = page => fetched += u32::from(done.is_some()),
                () = context.token().cancelled() => {
                    println!("cancelled ({:?}) after {fetched} pages: cleaning up", context.reason());
                    return Err("cancelled".into());
                }
            }
        }
    }
    Ok(Done { fetched })
}

async fn fetch(page: u32, millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
    println!("page {page}");
}

#[tokio::main]
async fn main() -> Result<(), RunError> {
    quell_runtime::run(handler).await
}
