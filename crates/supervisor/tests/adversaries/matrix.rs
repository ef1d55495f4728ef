//! `docs/containment.md`: the matrix, a column a layer, rewritten or compared.

use std::{collections::BTreeMap, fs, path::PathBuf};

const COLUMNS: [&str; 4] = ["L0", "L1", "L2", "L2+L3"];
const HEAD: &str = "| behaviour | L0 | L1 | L2 | L2+L3 |";

/// Seen of what this machine cannot do: what is documented stays.
pub(crate) const UNTESTED: &str = "(untested)";

pub(crate) fn path() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/containment.md"))
}

/// Compares a column with the documented one, or rewrites it.
pub(crate) fn compare(layer: &str, rows: &[&str], column: &BTreeMap<&str, String>) {
    let text = fs::read_to_string(path()).unwrap();
    let at = 1 + COLUMNS.iter().position(|name| *name == layer).unwrap();
    let start = text.find(HEAD).expect("the matrix is in the document");
    let (before, table) = text.split_at(start);
    let table = table.trim_end();
    let mut documented: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in table.lines().skip(2) {
        let cells: Vec<String> =
            line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
        documented.insert(cells[0].clone(), cells);
    }
    if std::env::var_os("QUELL_UPDATE_DOCS").is_some() {
        let mut lines = vec![HEAD.to_owned(), "|---|---|---|---|---|".to_owned()];
        for row in rows {
            let mut cells = documented.get(*row).cloned().unwrap_or_default();
            cells.resize(COLUMNS.len() + 1, String::new());
            (*row).clone_into(&mut cells[0]);
            let seen = column.get(row).map_or("(not run)", String::as_str);
            if seen != UNTESTED {
                seen.clone_into(&mut cells[at]);
            }
            lines.push(format!("| {} |", cells.join(" | ")));
        }
        fs::write(path(), format!("{before}{}\n", lines.join("\n"))).unwrap();
        return;
    }
    for row in rows {
        let told = documented.get(*row).map_or("", |cells| cells[at].as_str());
        let seen = column.get(row).map_or("(not run)", String::as_str);
        assert!(
            seen == told || seen == UNTESTED,
            "{seen}, documented {told}: {row} on {layer}: docs/containment.md; QUELL_UPDATE_DOCS=1 rewrites it"
        );
    }
}
