//! Labels as callers write them: `X-Quell-Labels: team=x,tier=1`.

use std::collections::BTreeMap;

use axum::http::HeaderMap;
use store::{BadLabel, Labels, check_label};

use crate::error::ApiError;

const HEADER: &str = "x-quell-labels";
/// Labels of one request. A node keeps those of a million live requests in memory, at 200 bytes or so each.
const MAX_LABELS: usize = 8;

/// Those of a request's head; none where it says none.
pub(crate) fn of(headers: &HeaderMap) -> Result<Labels, ApiError> {
    let mut text = String::new();
    for value in headers.get_all(HEADER) {
        let value = value.to_str().map_err(|_| ApiError::invalid("X-Quell-Labels is not plain text"))?;
        if !text.is_empty() {
            text.push(','); // a header that is sent twice is one list
        }
        text.push_str(value);
    }
    parse(&text).map_err(|why| ApiError::invalid(format!("X-Quell-Labels: {why}")))
}

/// Reads `name=value,name2=value2`; of nothing it is none.
///
/// # Errors
/// In words, which label and what is wrong with it.
pub(crate) fn parse(text: &str) -> Result<Labels, String> {
    let mut labels = BTreeMap::new();
    if text.trim().is_empty() {
        return Ok(Labels::default());
    }
    for pair in text.split(',').map(str::trim) {
        let (name, value) =
            pair.split_once('=').ok_or_else(|| format!("{pair:?} is not of the form name=value"))?;
        check(name, value)?;
        if labels.insert(name.to_owned(), value.to_owned()).is_some() {
            return Err(format!("label {name:?} is given twice"));
        }
    }
    if labels.len() > MAX_LABELS {
        return Err(format!("{} labels; a request may have {MAX_LABELS}", labels.len()));
    }
    Ok(Labels::new(labels))
}

/// Whether this can be labels of a request, as the header has them: what a client can tell without a node.
///
/// # Errors
/// In words, which label and what is wrong with it.
pub fn check_labels(text: &str) -> Result<(), String> {
    parse(text).map(drop)
}

/// Whether these can be the name and the value of a label.
pub(crate) fn check(name: &str, value: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err(format!("the label of the value {value:?} has no name"));
    }
    check_label(name, value).map_err(|bad| match bad {
        BadLabel::Letters => format!("label \"{name}={value}\": {bad}"),
        BadLabel::Length { .. } => bad.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderValue, header::HeaderName};

    #[test]
    fn labels_are_pairs_with_commas_between() {
        for (text, pairs) in [
            ("", vec![]),
            ("  ", vec![]),
            ("team=x", vec![("team", "x")]),
            ("team=x, tier=1", vec![("team", "x"), ("tier", "1")]),
            ("empty=", vec![("empty", "")]),
            ("a.b/c=run:7@night", vec![("a.b/c", "run:7@night")]),
        ] {
            let labels = parse(text).unwrap();
            assert_eq!(labels.iter().collect::<Vec<_>>(), pairs, "{text:?}");
        }
    }

    #[test]
    fn each_mistake_is_named() {
        let many: Vec<String> = (0..9).map(|at| format!("l{at}=x")).collect();
        for (text, said) in [
            ("team", "\"team\" is not of the form name=value"),
            ("team=x,", "\"\" is not of the form"),
            ("=x", "has no name"),
            ("team=x,team=y", "given twice"),
            ("te am=x", "letters, digits"),
            ("-team=x", "begins with"),
            ("team=\"x\"", "letters, digits"),
            ("team=a=b", "letters, digits"),
            (&format!("{}=x", "n".repeat(64)), "64 bytes"),
            (&format!("n={}", "x".repeat(64)), "64 bytes"),
            (&many.join(","), "may have 8"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(said), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_header_that_is_sent_twice_is_one_list() {
        let mut headers = HeaderMap::new();
        assert!(of(&headers).unwrap().is_empty());
        for value in ["a=1", "b=2"] {
            headers.append(HeaderName::from_static(HEADER), HeaderValue::from_static(value));
        }
        assert_eq!(of(&headers).unwrap().iter().collect::<Vec<_>>(), [("a", "1"), ("b", "2")]);
        headers.append(HeaderName::from_static(HEADER), HeaderValue::from_static("a=3"));
        assert!(of(&headers).unwrap_err().message.contains("given twice"));
    }
}
