//! What the documents say of the code, held to it: guarantees name tests that are there, every error code has its
//! page, and links lead somewhere.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The files with this ending below a folder.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == ending) {
                found.push(path);
            }
        }
    }
    found
}

/// The links of a document: what they are called and where they lead, without those to other sites.
fn links(text: &str) -> Vec<(String, String)> {
    let mut links = Vec::new();
    for (at, _) in text.match_indices("](") {
        let Some(name) = text[..at].rfind('[').map(|begin| &text[begin + 1..at]) else { continue };
        let Some(target) = text[at + 2..].split([')', '\n']).next() else { continue };
        if !target.contains("://") {
            links.push((name.to_owned(), target.to_owned()));
        }
    }
    links
}

/// What a heading is linked by.
fn anchor(heading: &str) -> String {
    let kept = |letter: &char| letter.is_alphanumeric() || [' ', '-', '_'].contains(letter);
    heading.trim().to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")
}

fn anchors(text: &str) -> BTreeSet<String> {
    text.lines()
        .filter_map(|line| line.strip_prefix('#'))
        .map(|line| anchor(line.trim_start_matches('#')))
        .collect()
}

#[test]
fn every_test_that_a_guarantee_names_is_there() {
    let page = tree().join("docs/guarantees.md");
    let mut named = 0;
    for (name, target) in links(&read(&page)) {
        let Some(test) = name.strip_prefix('`').and_then(|name| name.strip_suffix('`')) else { continue };
        let file = page.parent().unwrap().join(&target);
        assert!(read(&file).contains(&format!("fn {test}(")), "{test} is not in {target}");
        named += 1;
    }
    assert!(named > 50, "only {named} are named: are they found?");
    // Everything else that a row names in the third column is marked.
    for row in read(&page).lines().filter(|line| line.starts_with("| ") && !line.starts_with("| promise")) {
        assert!(row.contains("](") || row.contains("**not yet held**"), "nothing holds: {row}");
    }
}

#[test]
fn every_error_code_has_a_page_and_every_page_a_code() {
    let tree = tree();
    let mut codes = BTreeSet::new();
    for file in files(&tree.join("crates/api/src"), "rs") {
        let text = read(&file);
        for (at, found) in text.match_indices("FSS.") {
            let digits: String = text[at + found.len()..].chars().take_while(char::is_ascii_digit).collect();
            // Shorter ones are made up, by tests.
            if digits.len() >= 4 {
                codes.insert(format!("FSS.{digits}"));
            }
        }
    }
    // What a request ends with: on the wire with the same prefix.
    for file in ["crates/supervisor/src/codes.rs", "crates/cancel/src/outcome.rs"] {
        for line in read(&tree.join(file)).lines() {
            if let Some((_, number)) = line.split_once(": u16 = ") {
                codes.insert(format!("FSS.{}", number.trim_end_matches(';')));
            }
        }
    }
    let pages: BTreeSet<String> = files(&tree.join("docs/errors"), "md")
        .iter()
        .map(|page| page.file_stem().unwrap().to_str().unwrap().to_owned())
        .filter(|page| page != "README")
        .collect();
    assert_eq!(codes, pages, "codes of the source, and pages in docs/errors");
    let index = read(&tree.join("docs/errors/README.md"));
    for code in &codes {
        assert!(index.contains(&format!("[{code}]({code}.md)")), "{code} is not in the index");
    }
}

#[test]
fn links_in_documents_lead_somewhere() {
    let tree = tree();
    let mut pages = files(&tree.join("docs"), "md");
    pages.extend(["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"].map(|page| tree.join(page)));
    let mut wrong = Vec::new();
    for page in pages {
        for (name, target) in links(&read(&page)) {
            let (path, part) = target.split_once('#').unwrap_or((&target, ""));
            let file = if path.is_empty() { page.clone() } else { page.parent().unwrap().join(path) };
            let there = file.exists() && (part.is_empty() || anchors(&read(&file)).contains(part));
            if !there {
                wrong.push(format!("{}: [{name}]({target})", page.strip_prefix(&tree).unwrap().display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
