//! A handler for the Lambda client in Rust: it rings the bell of the test and does what the event says.

use std::{
    env,
    io::{Read as _, Write as _},
    net::TcpStream,
    process::ExitCode,
};

use bytes::Bytes;
use lambda_runtime::{
    Context, Error, FunctionResponse, LambdaEvent, MetadataPrelude, StreamResponse, service_fn,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};
use tokio_stream::{Iter, iter};

type Pieces = Iter<std::vec::IntoIter<Result<Bytes, Error>>>;
type Response = FunctionResponse<Value, Pieces>;

#[tokio::main]
async fn main() -> ExitCode {
    if env::var("_HANDLER").as_deref() == Ok("index.broken") {
        return ExitCode::FAILURE; // this client has no word for that
    }
    match lambda_runtime::run_concurrent(service_fn(handler)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

async fn handler(event: LambdaEvent<Value>) -> Result<Response, Error> {
    let LambdaEvent { payload: event, context } = event;
    let known = json!({
        "request": context.request_id,
        "tag": event["tag"],
        "me": format!("{}/{}", env::var("QUELL_INSTANCE_ID")?, std::process::id()),
        "client": env::var("AWS_LAMBDA_MAX_CONCURRENCY").unwrap_or("one".to_owned()),
    });
    let result = match event["do"].as_str().unwrap_or_default() {
        "echo" => echo(&event, &context, known),
        "wait" => {
            for child in event["children"].as_array().into_iter().flatten() {
                invoke(child, &context)?;
            }
            wait(&event, known).await?
        }
        "loop" => wait(&event, known).await?,
        "fail" => return Err(event["words"].as_str().unwrap_or("as the test asked").into()),
        "panic" => panic!("as the test asked"),
        "big" => json!("x".repeat(usize::try_from(event["bytes"].as_u64().unwrap_or(0))?)),
        "stream" => return Ok(stream(&event)),
        other => return Err(format!("what is {other:?}?").into()),
    };
    Ok(FunctionResponse::BufferedResponse(result))
}

fn echo(event: &Value, context: &Context, mut known: Value) -> Value {
    known["size"] = json!(event["pad"].as_str().map_or(0, str::len));
    known["urn"] = json!(context.invoked_function_arn);
    let left = context.deadline().duration_since(std::time::SystemTime::now()).unwrap_or_default();
    known["left"] = json!(u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
    known["memory"] = json!(context.env_config.memory.to_string());
    known["stream"] = json!(context.env_config.log_stream);
    known
}

/// Says where it is, and waits to be told something.
async fn wait(event: &Value, mut known: Value) -> Result<Value, Error> {
    let mut line = UnixStream::connect(event["bell"].as_str().unwrap_or_default()).await?;
    line.write_all(format!("{known}\n").as_bytes()).await?;
    let mut told = [0; 100];
    let size = line.read(&mut told).await?;
    if size == 0 {
        return Err("the test went away".into());
    }
    known["told"] = json!(String::from_utf8_lossy(&told[..size]));
    Ok(known)
}

fn stream(event: &Value) -> Response {
    let count = event["pieces"].as_u64().unwrap_or(0);
    let mut pieces: Vec<Result<Bytes, Error>> =
        (0..count).map(|at| Ok(Bytes::from(format!("piece {at};")))).collect();
    if event["fail"] == json!(true) {
        pieces.push(Err("in the middle of the stream".into()));
    }
    let status = 201_u16.try_into().unwrap_or_default();
    let mut prelude = MetadataPrelude { status_code: status, ..MetadataPrelude::default() };
    if let Ok(value) = "stream".parse() {
        prelude.headers.insert("x-of", value);
    }
    FunctionResponse::StreamingResponse(StreamResponse { metadata_prelude: prelude, stream: iter(pieces) })
}

/// Over the request's own credentials, so that what it makes is its child.
fn invoke(event: &Value, context: &Context) -> Result<(), Error> {
    let custom = context.client_context.as_ref().map(|context| &context.custom);
    let token = custom.and_then(|custom| custom.get("quell-token")).ok_or("no token")?;
    let endpoint = env::var("QUELL_API_ENDPOINT")?;
    let host = endpoint.trim_start_matches("http://");
    let (function, body) = (event["function"].as_str().unwrap_or_default(), event.to_string());
    let mut line = TcpStream::connect(host)?;
    write!(
        line,
        "POST /v2/default/fgs/functions/{function}/invocations-async HTTP/1.1\r\nHost: {host}\r\n\
         X-Auth-Token: {token}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    line.read_to_string(&mut answer)?;
    if answer.starts_with("HTTP/1.1 202") { Ok(()) } else { Err(answer.into()) }
}
