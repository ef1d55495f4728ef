//! Records to write, and a store to write them to.

use bytes::Bytes;
use cancel::{CancelId, RequestId};
use store::{
    CredentialRecord, FunctionFilter, FunctionKey, FunctionRecord, InvocationQuery, LATEST, Labels, Lineage,
    NewInvocation, NewReceipt, Placement, Settlement, Status,
};

pub(crate) use crate::subject::{again, fresh};

pub(crate) fn key(name: &str) -> FunctionKey {
    FunctionKey { project: "p".into(), package: "default".into(), name: name.into(), version: LATEST.into() }
}

pub(crate) fn function(name: &str, code_digest: &str) -> FunctionRecord {
    FunctionRecord {
        key: key(name),
        revision: 1,
        config: r#"{"timeout":3}"#.into(),
        code_digest: code_digest.into(),
        code_size: 4,
        created_ms: 10,
        modified_ms: 10,
    }
}

pub(crate) fn credential(key_id: &str, login: Option<&str>) -> CredentialRecord {
    CredentialRecord {
        key_id: key_id.into(),
        secret_hash: [7; 32],
        project: "p".into(),
        note: "for tests".into(),
        created_ms: 3,
        scopes: 5,
        login: login.map(str::to_owned),
        password: login.map(|_| "$argon2id$".into()),
        expires_ms: Some(4),
        generation: 2,
    }
}

/// Accepted by `f` at `id` milliseconds.
pub(crate) fn invocation(id: u128) -> NewInvocation {
    NewInvocation {
        request: RequestId(id),
        function: key("f").into(),
        alias: None,
        parent: None,
        payload: Bytes::from(format!("event {id}")),
        created_ms: i64::try_from(id).unwrap(),
        hops: 0,
        labels: Labels::default(),
        lineage: Lineage::default(),
        placement: Placement::Here,
    }
}

pub(crate) fn settlement(id: u128, status: Status, ended_ms: i64) -> Settlement {
    let (error_code, error_message) = match status {
        Status::Success => (0, String::new()),
        _ => (4208, "function invocation canceled".to_owned()),
    };
    Settlement {
        request: RequestId(id),
        status,
        error_code,
        error_message,
        ended_ms,
        tail: false,
        next: None,
    }
}

/// Cancel `id`, at `id` milliseconds, of the first of `fenced`.
pub(crate) fn receipt(id: u128, fenced: &[u128]) -> NewReceipt {
    NewReceipt {
        cancel: CancelId(id),
        target: RequestId(fenced[0]),
        function: key("f"),
        fenced: fenced.iter().copied().map(RequestId).collect(),
        reach: None,
        body: format!(r#"{{"cancel":{id}}}"#),
        created_ms: i64::try_from(id).unwrap(),
    }
}

/// Everything of `f`.
pub(crate) fn query() -> InvocationQuery {
    InvocationQuery {
        function: FunctionFilter::whole(key("f")),
        requests: Vec::new(),
        status: None,
        unsettled: false,
        labels: Labels::default(),
        from_ms: i64::MIN,
        until_ms: i64::MAX,
        offset: 0,
        limit: u32::MAX,
    }
}
