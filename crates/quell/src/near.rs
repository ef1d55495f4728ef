//! What was probably meant by a word that is none of those there are.

/// How many letters are to be put in, left out or exchanged. Words here are short: one that is not is cut.
pub(crate) fn edits(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (at, a) in one.chars().take(64).enumerate() {
        let mut corner = row[0];
        row[0] = at + 1;
        for (next, b) in other.iter().enumerate() {
            let exchanged = corner + usize::from(a != *b);
            corner = row[next + 1];
            row[next + 1] = exchanged.min(row[next] + 1).min(corner + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}

/// The name that is nearest to this one, if it is near: a third of its letters is wrong, and three at most.
pub(crate) fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let most = (name.chars().count() / 3).clamp(1, 3);
    let near = names.map(|other| (edits(name, other), other)).filter(|(edits, _)| *edits <= most);
    near.min_by_key(|(edits, _)| *edits).map(|(_, other)| other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found_and_a_far_one_is_not_guessed() {
        let names = || ["hello", "thumbnail", "fanout"].into_iter();
        for (typed, meant) in [
            ("helo", Some("hello")),
            ("thumbnial", Some("thumbnail")),
            ("fan-out", Some("fanout")),
            ("nosuch", None),
            ("f", None),
        ] {
            assert_eq!(nearest(typed, names()), meant, "{typed}");
        }
    }
}
