//! Every operation of the API is in the table of docs/api.md, and a node does with it what the table says.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

mod support;

use std::{collections::BTreeSet, path::PathBuf, process::Command};

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

#[test]
fn the_table_has_every_operation_of_the_api_and_no_other() {
    let mut defined = BTreeSet::new();
    for file in std::fs::read_dir(definitions()).unwrap() {
        let file = file.unwrap().path();
        if file.extension().is_none_or(|kind| kind != "json") {
            continue;
        }
        let definition: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        for (path, methods) in definition["paths"].as_object().unwrap() {
            for method in methods.as_object().unwrap().keys() {
                let path = path.strip_prefix("/v2/{project_id}").expect("every path names the project");
                let operation = file.file_stem().unwrap().to_str().unwrap().to_owned();
                defined.insert((operation, method.to_uppercase(), path.to_owned()));
            }
        }
    }
    assert!(defined.len() > 90, "{}", defined.len());
    let told: BTreeSet<_> = table().into_iter().map(|row| (row.operation, row.method, row.path)).collect();
    let missing: Vec<_> = defined.difference(&told).collect();
    let invented: Vec<_> = told.difference(&defined).collect();
    assert!(missing.is_empty() && invented.is_empty(), "missing: {missing:#?}, invented: {invented:#?}");
}

/// Told by the table and not served yet: versions and aliases come with a change of their own.
const UNDER_WAY: [&str; 7] = [
    "CreateFunctionVersion",
    "ListFunctionVersions",
    "CreateVersionAlias",
    "ListVersionAliases",
    "ShowVersionAlias",
    "UpdateVersionAlias",
    "DeleteVersionAlias",
];

/// A path with something in place of each of its parameters.
fn filled(row: &Row) -> String {
    // What is deleted is not what the other rows are about.
    let function = if row.operation == "DeleteFunction" { "nowhere" } else { "f" };
    let segment = |segment: &str| match segment {
        "{function_urn}" | "{func_urn}" => function.to_owned(),
        "{period}" => "5".to_owned(),
        "{resource_type}" => "functions".to_owned(),
        parameter if parameter.starts_with('{') => "1".to_owned(),
        literal => literal.to_owned(),
    };
    let path: Vec<String> = row.path.split('/').map(segment).collect();
    format!("/v2/default{}", path.join("/"))
}

#[tokio::test]
async fn a_node_serves_what_the_table_says_and_refuses_the_rest_with_a_reason() {
    let node = TestNode::start().await;
    node.deploy("f", PLAIN, json!({})).await;
    let rows = table();
    for row in &rows {
        if UNDER_WAY.contains(&row.operation.as_str()) {
            continue;
        }
        let method = Method::from_bytes(row.method.as_bytes()).unwrap();
        let json = [("Content-Type", "application/json")];
        let reply = node.send(method, &filled(row), &json, b"{}").await;
        if row.answer == "yes" {
            assert!(![405, 501].contains(&reply.status), "{row:?}: {reply:?}");
            if reply.status >= 400 {
                let (_, _, message) = reply.error();
                assert_ne!(message, "no such operation", "{row:?}");
            }
            continue;
        }
        let (status, code, message) = reply.error();
        assert_eq!((status.to_string(), code.as_str()), (row.answer.clone(), "FSS.0501"), "{row:?}");
        let why = message.strip_prefix("this operation is not supported by a node: ");
        assert!(why.is_some_and(|why| why.len() > 10), "{row:?}: {message}");
    }
    assert!(rows.iter().filter(|row| row.answer == "yes").count() > 30);
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
