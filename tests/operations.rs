//! Every operation of the API is in the table of docs/api.md, and a node does with it what the table says.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    process::Command,
};

use reqwest::Method;
use serde_json::{Value, json};
use support::TestNode;

const PLAIN: &str = "def handler(event, context):\n    return event\n";

/// A row of the table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    operation: String,
    method: String,
    /// After the project.
    path: String,
    /// `yes`, or the status it is refused with.
    answer: String,
}

fn table() -> Vec<Row> {
    let text = include_str!("../docs/api.md");
    let (_, section) = text.split_once("\n## Operations\n").expect("docs/api.md has the table");
    let section = section.split("\n## ").next().unwrap();
    let rows = section
        .lines()
        .filter(|line| line.starts_with("| ") && line.contains(" `/"))
        .filter(|line| !line.starts_with("| operation |"));
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let (method, path) = cells[1].split_once(' ').unwrap();
        Row {
            operation: cells[0].to_owned(),
            method: method.to_owned(),
            path: path.trim_matches('`').to_owned(),
            answer: cells[2].to_owned(),
        }
    };
    rows.map(row).collect()
}

/// Where the definitions are: a crate of the lock file, of which only the data is of interest.
fn definitions() -> PathBuf {
    let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into());
    let metadata = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", &host])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(metadata.status.success(), "{}", String::from_utf8_lossy(&metadata.stderr));
    let metadata: Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let found =
        packages.iter().find(|package| package["name"] == "huawei-cloud-api-definitions-FunctionGraph");
    let manifest = PathBuf::from(found.unwrap()["manifest_path"].as_str().unwrap());
    manifest.with_file_name("src")
}

/// What the definitions say of each operation, by its name.
fn defined() -> BTreeMap<String, Value> {
    let files = std::fs::read_dir(definitions()).unwrap().map(|file| file.unwrap().path());
    let files = files.filter(|file| file.extension().is_some_and(|kind| kind == "json"));
    let named = |file: PathBuf| {
        let definition = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        (file.file_stem().unwrap().to_str().unwrap().to_owned(), definition)
    };
    files.map(named).collect()
}

#[test]
fn the_table_has_every_operation_of_the_api_and_no_other() {
    let mut all = BTreeSet::new();
    for (operation, definition) in defined() {
        for (path, methods) in definition["paths"].as_object().unwrap() {
            for method in methods.as_object().unwrap().keys() {
                let path = path.strip_prefix("/v2/{project_id}").expect("every path names the project");
                all.insert((operation.clone(), method.to_uppercase(), path.to_owned()));
            }
        }
    }
    assert!(all.len() > 90, "{}", all.len());
    let told: BTreeSet<_> = table().into_iter().map(|row| (row.operation, row.method, row.path)).collect();
    let missing: Vec<_> = all.difference(&told).collect();
    let invented: Vec<_> = told.difference(&all).collect();
    assert!(missing.is_empty() && invented.is_empty(), "missing: {missing:#?}, invented: {invented:#?}");
}

/// That a body is of the type that the definition of its operation gives it: what is required is there, and
/// what is there is of its type. Clients are made from these types, and fail on others.
fn check_type(definition: &Value, schema: &Value, body: &Value, at: &str) {
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.trim_start_matches("#/definitions/");
        return check_type(definition, &definition["definitions"][name], body, at);
    }
    let fits = match schema["type"].as_str() {
        Some("string") => body.is_string(),
        Some("integer") => body.is_i64(),
        Some("number") => body.is_number(),
        Some("boolean") => body.is_boolean(),
        Some("array") => body.is_array(),
        Some("object") => body.is_object(),
        _ => true,
    };
    assert!(fits, "{at}: {body} is not of type {}", schema["type"]);
    for required in schema["required"].as_array().into_iter().flatten() {
        assert!(body.get(required.as_str().unwrap()).is_some(), "{at}: no {required} in {body}");
    }
    for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
        if let Some(value) = body.get(name).filter(|value| !value.is_null()) {
            check_type(definition, schema, value, &format!("{at}.{name}"));
        }
    }
    for item in body.as_array().into_iter().flatten() {
        check_type(definition, &schema["items"], item, &format!("{at}[]"));
    }
}

/// A path with something in place of each of its parameters.
fn filled(row: &Row) -> String {
    // What is deleted is not what the other rows are about.
    let function = if row.operation == "DeleteFunction" { "nowhere" } else { "f" };
    let segment = |segment: &str| match segment {
        "{function_urn}" | "{func_urn}" => function.to_owned(),
        "{period}" => "5".to_owned(),
        "statistics" if row.operation == "ListStatistics" => "statistics?filter=monitor_data".to_owned(),
        "{resource_type}" => "functions".to_owned(),
        parameter if parameter.starts_with('{') => "1".to_owned(),
        literal => literal.to_owned(),
    };
    let path: Vec<String> = row.path.split('/').map(segment).collect();
    format!("/v2/default{}", path.join("/"))
}

/// Whether the answer has the type of the definition: a result is the function's own.
fn is_typed(row: &Row) -> bool {
    row.method == "GET" || (row.method == "PUT" && row.operation != "UpdateFunctionCode")
}

/// So that the lists have something in them.
async fn reserve_one(node: &TestNode) {
    let json = [("Content-Type", "application/json")];
    let path = "/v2/default/fgs/functions/f";
    for (rest, body) in [("reservedinstances", "{\"count\": 1}"), ("async-invoke-config", "{}")] {
        let reply = node.send(Method::PUT, &format!("{path}/{rest}"), &json, body.as_bytes()).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    let reply = node.post(&format!("{path}/invocations"), &json!({})).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
}

#[tokio::test]
async fn a_node_serves_what_the_table_says_and_refuses_the_rest_with_a_reason() {
    let node = TestNode::start().await;
    node.deploy("f", PLAIN, json!({})).await;
    reserve_one(&node).await;
    let (rows, defined, mut typed) = (table(), defined(), 0);
    for row in &rows {
        let method = Method::from_bytes(row.method.as_bytes()).unwrap();
        let json = [("Content-Type", "application/json")];
        let reply = node.send(method, &filled(row), &json, b"{}").await;
        if row.answer == "yes" {
            assert!(![405, 501].contains(&reply.status), "{row:?}: {reply:?}");
            if reply.status >= 400 {
                let (_, _, message) = reply.error();
                assert_ne!(message, "no such operation", "{row:?}");
            } else if is_typed(row) {
                let definition = &defined[&row.operation];
                let path = format!("/v2/{{project_id}}{}", row.path);
                let responses = &definition["paths"][&path][row.method.to_lowercase()]["responses"];
                let schema = &responses[reply.status.to_string()]["schema"];
                check_type(definition, schema, &reply.json(), &row.operation);
                typed += u32::from(schema.is_object());
            }
            continue;
        }
        let (status, code, message) = reply.error();
        assert_eq!((status.to_string(), code.as_str()), (row.answer.clone(), "FSS.0501"), "{row:?}");
        let why = message.strip_prefix("this operation is not supported by a node: ");
        assert!(why.is_some_and(|why| why.len() > 10), "{row:?}: {message}");
    }
    assert!(rows.iter().filter(|row| row.answer == "yes").count() > 30);
    assert!(typed > 12, "only {typed} answers have a type");
    node.stop().await;
}

#[tokio::test]
async fn a_function_that_asks_for_what_a_node_has_not_is_not_made() {
    let node = TestNode::start().await;
    let whole = json!({
        "func_name": "f", "package": "default", "runtime": "Python3.10", "handler": "index.handler",
        "timeout": 9, "memory_size": 128, "code_type": "inline",
        "func_code": { "file": support::base64(PLAIN.as_bytes()) },
    });
    for (change, status, code, word) in [
        (json!({ "code_type": "obs", "code_url": "https://b.obs/c.zip" }), 400, "FSS.1006", "not supported"),
        (json!({ "code_type": "jar" }), 400, "FSS.1006", "not supported"),
        (json!({ "code_type": "Custom-Image-Swr" }), 400, "FSS.1006", "not supported"),
        (json!({ "runtime": "Custom Image" }), 400, "FSS.1005", "not served here"),
        (json!({ "func_code": { "link": "https://b.obs/c.zip" } }), 400, "FSS.1010", "not supported"),
        (json!({ "func_vpc": { "vpc_id": "v" } }), 400, "FSS.0400", "func_vpc is not supported"),
        (json!({ "encrypted_user_data": "{\"a\":\"b\"}" }), 400, "FSS.1009", "use user_data"),
        (json!({ "enable_lts_log": true }), 400, "FSS.0400", "no log service"),
        (json!({ "enable_dynamic_memory": true }), 400, "FSS.1007", "memory_size"),
    ] {
        let mut body = whole.clone();
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let (got, got_code, message) = node.post("/v2/default/fgs/functions", &body).await.error();
        assert_eq!((got, got_code.as_str()), (status, code), "{change}: {message}");
        assert!(message.contains(word), "{change}: {message}");
    }
    assert_eq!(node.get("/v2/default/fgs/functions").await.json()["count"], 0);
    node.deploy("f", PLAIN, json!({ "func_vpc": null, "enable_lts_log": false, "xrole": "agency" })).await;
    node.stop().await;
}
