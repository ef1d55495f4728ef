//! What a label may be, of a request or of a node: the two have one form and nothing else in common.

use thiserror::Error;

/// Bytes of a name, and of a value: what people call teams, runs and tickets is shorter, and a table still
/// has room for it.
const MAX_LENGTH: usize = 63;

/// Why a name and a value are no label.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum BadLabel {
    /// They are not of the letters that labels have.
    #[error(
        "name and value are of letters, digits and - _ . / : @, and the name begins with a letter or digit"
    )]
    Letters,
    /// One of them is too long.
    #[error("label {name:?} has {length} bytes; its name and value may have {MAX_LENGTH} each")]
    Length {
        /// The label's name.
        name: String,
        /// The bytes of the longer of the two.
        length: usize,
    },
}

/// Whether these can be the name and the value of a label. A value may be empty.
///
/// # Errors
/// What is wrong with them.
pub fn check_label(name: &str, value: &str) -> Result<(), BadLabel> {
    // None of these has a meaning where labels are written: in a header or variable, in a selection, in a shell, in a message.
    let plain =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./:@".contains(&byte));
    if !name.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric) || !plain(name) || !plain(value) {
        return Err(BadLabel::Letters);
    }
    match name.len().max(value.len()) {
        0..=MAX_LENGTH => Ok(()),
        length => Err(BadLabel::Length { name: name.to_owned(), length }),
    }
}
